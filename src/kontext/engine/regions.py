"""Where an edit acts, and keeping everything else: change map, clean-up, and compositing over the original.

A change is where decode(result) differs from decode(encode(source)): the codec's own error is on both
sides, so it does not count. Inside the region the picture is the model's; at its soft edge the original's
own detail comes back as the change fades; outside, the original's pixels stay to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kontext.engine.sizes import SizePlan

WEAK, STRONG = 0.04, 0.10  # change (of 1) that may belong to a region, and change that makes one
RESTLESS_WEAK, RESTLESS_STRONG = 3.0, 6.0  # both stay this many medians of the change map above chance,
CALM = 2.0  # but no more than this many times their usual value: a change everywhere is not chance
SPECK = 0.0006  # share of the canvas below which a patch of change is chance
GLOBAL = 0.72  # share of the canvas from which on the edit counts as one of the whole picture
MARGIN = 1 / 64  # of the canvas side: how far a region reaches beyond the change itself, for its soft edge


@dataclass(frozen=True)
class Region:
    """`soft` (height, width) float32 on the canvas: 1 inside, 0 where the original stays; None: the whole
    picture.
    """

    soft: np.ndarray | None

    @property
    def empty(self) -> bool:
        return self.soft is not None and not self.soft.any()


def change_map(result: np.ndarray, codec: np.ndarray) -> np.ndarray:
    """How much each pixel changed, 0 to 1: the largest difference of a channel after a 3x3 mean. uint8 in."""
    difference = (
        torch.from_numpy(result.astype(np.float32) - codec.astype(np.float32)).permute(2, 0, 1)[None] / 255
    )
    return F.avg_pool2d(difference, 3, 1, 1, count_include_pad=False).abs().amax(dim=1)[0].numpy()


def find_region(change: np.ndarray, inside: np.ndarray | None = None) -> Region:
    """The region of a change map (height, width). `inside`, a soft mask of the same size, limits it.

    Weak change belongs to the region where it is connected with strong change (hysteresis). Gaps are
    closed, specks dropped, the edge feathered within a margin around it. A change nearly everywhere
    is left whole.
    """
    median = float(np.median(change))
    if inside is not None:
        change = change * (inside > 0)
    weak = min(max(WEAK, RESTLESS_WEAK * median), CALM * WEAK)
    strong = min(max(STRONG, RESTLESS_STRONG * median), CALM * STRONG)
    field = torch.from_numpy(change)[None, None]
    grown = _connected(field > weak, field > strong)
    radius = max(1, round(min(change.shape) * MARGIN))
    grown = _shrink(_grow(grown, radius), radius)  # closed
    grown = _without_specks(grown, max(2, round(SPECK * change.size)))
    if inside is None and grown.float().mean() > GLOBAL:
        return Region(None)
    soft = _feather(grown, radius)[0, 0].numpy()
    if inside is not None:
        soft = soft * inside
    return Region(soft)


def composite(
    original: Image.Image,
    result: Image.Image,
    codec: Image.Image,
    soft: Image.Image,
    alpha: Image.Image | None,
) -> Image.Image:
    """Original and result as one picture; all of one size, `soft` (mode L) says where the result may show.

    `codec` is the original through the codec alone. As result and codec view come together, what the codec
    lost of the original (and, enlarged, the original's finer detail) is added back, so that the edge has
    nothing to show. Where `soft` is 0 the pixels are the original's. `alpha` of the original stays there,
    and new things are opaque.
    """
    box = soft.getbbox()
    if box is None:
        return original if alpha is None else Image.merge("RGBA", (*original.split(), alpha))
    o, r, c = (np.asarray(image.crop(box), np.float32) for image in (original, result, codec))
    weight = np.asarray(soft.crop(box), np.float32)[..., None] / 255
    change = np.abs(r - c).max(-1, keepdims=True) / 255
    same = 1 - np.clip((change - WEAK / 2) / (STRONG - WEAK / 2), 0, 1)
    painted = r + same * (o - c)
    mixed = np.clip(np.rint(o + weight * (painted - o)), 0, 255).astype(np.uint8)
    whole = original.copy()
    whole.paste(Image.fromarray(mixed), box[:2])
    if alpha is None:
        return whole
    opacity = np.array(alpha, np.float32)
    x0, y0, x1, y1 = box
    new = 255 * weight[..., 0] * (1 - same[..., 0])  # transparent stays where nothing was painted
    opacity[y0:y1, x0:x1] = np.maximum(opacity[y0:y1, x0:x1], new)
    return Image.merge("RGBA", (*whole.split(), Image.fromarray(np.rint(opacity).astype(np.uint8))))


def enlarge(region: Region, plan: SizePlan) -> Image.Image:
    """The region at the size of the output, mode L; soft edges stay soft, 0 stays 0."""
    canvas = Image.fromarray(np.rint(region.soft * 255).astype(np.uint8))
    return plan.restore(canvas, Image.Resampling.BILINEAR)


def changed_fraction(before: Image.Image, after: Image.Image) -> float:
    """Share of the pixels that are not equal."""
    if before.mode != after.mode:
        before, after = before.convert("RGBA"), after.convert("RGBA")
    return float((np.asarray(before) != np.asarray(after)).any(axis=-1).mean())


def token_mask(inside: np.ndarray, patch: int = 16) -> Tensor:
    """A mask (height, width) on the canvas as tokens (n,) bool: every token that it touches."""
    field = torch.from_numpy((inside > 0).astype(np.float32))[None, None]
    return F.max_pool2d(field, patch)[0, 0].flatten() > 0


def _grow(mask: Tensor, radius: int) -> Tensor:
    """Dilation by a disc-like shape: a square and a diamond in turn."""
    field = mask.float()
    for i in range(radius):
        if i % 2:
            field = F.max_pool2d(field, 3, 1, 1)
        else:
            field = torch.maximum(
                F.max_pool2d(field, (3, 1), 1, (1, 0)), F.max_pool2d(field, (1, 3), 1, (0, 1))
            )
    return field > 0


def _shrink(mask: Tensor, radius: int) -> Tensor:
    return ~_grow(~mask, radius)


def _connected(allowed: Tensor, seeds: Tensor) -> Tensor:
    """The part of `allowed` that is connected (8 neighbours) with a seed."""
    field, count = (seeds & allowed).float(), -1.0
    while (now := float(field.sum())) != count:
        count = now
        for _ in range(8):
            field = F.max_pool2d(field, 3, 1, 1) * allowed
    return field > 0


def _without_specks(mask: Tensor, least: int) -> Tensor:
    """Connected patches of fewer than `least` pixels dropped."""
    labels = _labels(mask)
    names, counts = labels[mask].unique(return_counts=True)
    small = names[counts < least]
    return mask & ~torch.isin(labels, small)


def _labels(mask: Tensor) -> Tensor:
    """Connected patches by the largest index in each."""
    names = torch.arange(1, mask.numel() + 1, dtype=torch.float64).reshape(mask.shape) * mask
    while True:
        spread = names
        for _ in range(8):
            spread = F.max_pool2d(spread, 3, 1, 1) * mask
        if torch.equal(spread, names):
            return names.long()
        names = spread


def _feather(mask: Tensor, radius: int) -> Tensor:
    """1 in the mask, falling evenly to 0 at `radius` + 1 pixels outside it."""
    soft = mask.float()
    for i in range(1, radius + 1):
        mask = _grow(mask, 1)
        soft = torch.maximum(soft, mask * (1 - i / (radius + 1)))
    return soft
