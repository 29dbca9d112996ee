"""Where an edit acts, and keeping everything else: change map, clean-up, and compositing over the original.

A change is where decode(result) differs from decode(encode(source)): the codec's own error is on both
sides, so it does not count. Inside the region the picture is the model's; at its soft edge the original's
own detail comes back as the change fades; outside, the original's pixels stay to the last bit.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops
from torch import Tensor

from kontext.engine.sizes import Size, SizePlan
from kontext.model.window import Window

WEAK, STRONG = 0.04, 0.10  # change (of 1) that may belong to a region, and change that makes one
RESTLESS_WEAK, RESTLESS_STRONG = 4.2, 9.0  # both stay this many times above the change of the calmer third,
CALM = 3.0  # but no more than this many times their usual value: a change nearly everywhere is not chance
HALO = 0.2  # of the strongest change nearby: what is weaker is only the codec's blur around it
SPECK = 8  # pixels of a 7x7 square that must change for a patch to be more than chance
GLOBAL = 0.72  # share of the canvas from which on the edit counts as one of the whole picture
EVERYWHERE = ((0.8, 0.035), (0.95, 0.014))  # a share of the 8x8 blocks, and the mean change that each exceeds
MARGIN = 1 / 64  # of the canvas side: how far a region reaches beyond the change itself, for its soft edge
TOKEN_CHANGE, TOKEN_RESTLESS = 0.35, 2.5  # the same two thresholds for tokens of an early estimate
TOUCH = 0.25  # of a mask, from which on a token under it is worked on whoever its neighbours are
WORTH = 0.6  # share of the tokens from which on leaving out the others saves too little
DECODED_MARGIN = 8  # pixels around latents that differ: a decoder spreads them a little
SAME_LATENT = 1e-3  # difference of latents that is only rounding
WINDOW_WORTH = 0.6  # share of the picture from which on decoding only a window saves too little
SURROUNDINGS = 8  # points of the grid around a window that filters may look at
GRID = 256  # points along the longer side of the grid on which regions are found


@dataclass(frozen=True)
class Region:
    """`soft` (height, width) float32 on the canvas: 1 inside, 0 where the original stays; None: the whole
    picture.
    """

    soft: np.ndarray | None

    @property
    def empty(self) -> bool:
        return self.soft is not None and not self.soft.any()


def window_of(latents: Tensor, before: Tensor, cell: int = 8) -> Window | None:
    """Where pictures (b, channels, rows, columns) differ from others, with what a latent reaches around it;
    None where that is nearly all. A latent stands for `cell` x `cell` pixels.
    """
    rows, columns = latents.shape[2:]
    differs = ((latents - before).abs() > SAME_LATENT).any(0).any(0).cpu()
    down, across = differs.any(1).nonzero(), differs.any(0).nonzero()
    if not len(down):
        return Window(0, 0, 0, 0)
    tight = Window(int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1).multiplied(cell)
    window = tight.grown(DECODED_MARGIN, cell * rows, cell * columns)
    return window if window.area <= WINDOW_WORTH * cell**2 * rows * columns else None


def coarseness(canvas: Size) -> int:
    """How many pixels on a side one point of the grid covers."""
    return math.ceil(max(canvas) / GRID)


def change_map(result: np.ndarray, codec: np.ndarray, factor: int | None = None) -> Tensor:
    """How each pixel changed: (3, rows, columns) float32, -1 to 1, of uint8 pictures (height, width, 3).

    Means over 3x3 pixels, so that single pixels do not count; of canvases larger than the grid, over as many
    pixels as one point of the grid covers (`factor`, of a part of a canvas).
    """
    change = torch.from_numpy(result.astype(np.float32) - codec.astype(np.float32)).permute(2, 0, 1) / 255
    factor = factor or coarseness(result.shape[:2])
    if factor > 1:
        return F.avg_pool2d(change, factor, ceil_mode=True, count_include_pad=False)
    return F.avg_pool2d(change, 3, 1, 1, count_include_pad=False)


def region_of(
    painted: np.ndarray, codec: np.ndarray, inside: Image.Image | None = None, window: Window | None = None
) -> Region:
    """Where a result (height, width, 3) uint8 differs from its source's own way through the codec.

    Outside of `window`, if there is one, they are known to be equal.
    """
    height, width = painted.shape[:2]
    if window is None:
        return find_region(change_map(painted, codec), (width, height), inside)
    soft = np.zeros((height, width), np.float32)
    factor = coarseness((height, width))
    near = window.grown(factor * (2 * _radius((height, width), factor) + SURROUNDINGS), height, width, factor)
    if window.area:
        change = change_map(near.of(painted), near.of(codec), factor)
        part = inside and inside.crop(near.box)
        found = find_region(change, (near.right - near.left, near.bottom - near.top), part, (width, height))
        near.of(soft)[:] = 1 if found.soft is None else found.soft
    return Region(soft)


def find_region(
    change: Tensor, canvas: Size, inside: Image.Image | None = None, whole: Size | None = None
) -> Region:
    """The region of a change map on a canvas. `inside`, a soft mask (mode L) as large as the canvas, limits
    it. The canvas may be part of a `whole` that is otherwise unchanged.

    Weak change belongs to the region where it is connected with strong change (hysteresis). Gaps are
    closed, specks dropped, the edge feathered within a margin around it. A change nearly everywhere
    is left whole.
    """
    share = 1.0 if whole is None else canvas[0] * canvas[1] / (whole[0] * whole[1])
    if inside is None and share == 1 and _everywhere(change):
        return Region(None)
    size = change.abs().amax(dim=0)[None, None]
    restless = float(np.quantile(size.numpy(), max(0, 1 - 0.7 / share))) if share > 0.7 else 0.0
    if inside is not None:
        size = size * (F.interpolate(_field(inside), size.shape[2:], mode="area") > 0)
    weak = min(max(WEAK, RESTLESS_WEAK * restless), CALM * WEAK)
    strong = min(max(STRONG, RESTLESS_STRONG * restless), CALM * STRONG)
    halo = HALO * _square(size, 4)
    grown = _connected((size > weak) & (size > halo), size > strong)
    radius = _radius(whole or canvas, coarseness(whole or canvas))
    grown = _shrink(_grow(grown, radius), radius)  # gaps closed
    dense = F.avg_pool2d(grown.float(), 7, 1, 3) * 49 >= SPECK
    grown = _connected(grown, dense & grown)  # specks dropped
    if inside is None and share * grown.float().mean() > GLOBAL:
        return Region(None)
    soft = F.interpolate(_feather(grown, radius), canvas[::-1], mode="bilinear")
    if inside is not None:
        soft = soft * _field(inside)
    return Region(soft[0, 0].numpy())


def _radius(canvas: Size, factor: int) -> int:
    """Points of the grid that a region reaches beyond the change itself."""
    return max(1, round(-(-min(canvas) // factor) * MARGIN))


def _everywhere(change: Tensor) -> bool:
    """Whether most blocks changed in the mean: colour and light of a whole picture, which noise does not
    move.

    Of exact edits of everything, through nano's codec, 97 % do (62 of 64); of nano's own changes of a
    background, which should keep the person in front of it, one in three does too.
    """
    side = max(1, max(change.shape) // 16)
    blocks = F.avg_pool2d(change, side).abs().amax(dim=0).flatten()
    return any(float(blocks.quantile(1 - share)) > least for share, least in EVERYWHERE)


def _field(mask: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(mask, np.float32) / 255)[None, None]


def composite(
    original: Image.Image, result: Image.Image, soft: Image.Image, alpha: Image.Image | None
) -> Image.Image:
    """Original and result as one picture. `soft` (mode L), as large as the original, says where the result
    may show, and `result` is what lies in the box of its bounds.

    Where `soft` is 0 the pixels are the original's. `alpha` of the original stays there, and new things are
    opaque.
    """
    box = soft.getbbox()
    if box is None:
        return original if alpha is None else Image.merge("RGBA", (*original.split(), alpha))
    o, r = np.asarray(original.crop(box), np.float32), np.asarray(result, np.float32)
    weight = np.asarray(soft.crop(box), np.float32)[..., None] / 255
    mixed = np.clip(np.rint(o + weight * (r - o)), 0, 255).astype(np.uint8)
    whole = original.copy()
    whole.paste(Image.fromarray(mixed), box[:2])
    if alpha is None:
        return whole
    change = np.abs(r - o).max(-1) / 255
    painted = np.clip((change - WEAK / 2) / (STRONG - WEAK / 2), 0, 1)
    opacity = np.array(alpha, np.float32)
    x0, y0, x1, y1 = box
    new = 255 * weight[..., 0] * painted  # transparent stays where nothing was painted
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
    largest = functools.reduce(ImageChops.lighter, ImageChops.difference(before, after).split())
    return 1 - largest.histogram()[0] / (before.width * before.height)


def active_tokens(
    estimate: Tensor, source: Tensor, grid: tuple[int, int], inside: Tensor | None = None
) -> Tensor | None:
    """Which tokens of a target are worth computing further, from an early estimate; None: all of them.

    estimate and source (b, n, 64); grid (rows, columns); inside (rows, columns) bool limits the edit. Tokens
    count that differ from the source by more than the estimate's own restlessness, and their neighbours.
    """
    distance = (estimate - source).square().mean(-1).sqrt().amax(0).reshape(1, 1, *grid)
    restless = float(distance.quantile(0.3))
    active = distance > min(max(TOKEN_CHANGE, TOKEN_RESTLESS * restless), 2 * TOKEN_CHANGE)
    if inside is not None:
        active = active & inside
    return worth(active)


def worth(active: Tensor) -> Tensor | None:
    """Tokens (..., rows, columns) bool with their neighbours, as (n,) bool; None where leaving out the others
    saves too little.
    """
    wide = F.max_pool2d(active.float().reshape(1, 1, *active.shape[-2:]), 3, 1, 1).flatten() > 0
    return wide if wide.any() and float(wide.float().mean()) <= WORTH else None


def token_mask(inside: Image.Image, patch: int = 16) -> Tensor:
    """A mask (mode L) on the canvas as (rows, columns) bool: tokens that more than its soft edge touches."""
    return F.max_pool2d(_field(inside), patch)[0, 0] > TOUCH


def _largest(x: Tensor, radius: int, dim: int) -> Tensor:
    """The largest value within `radius` along one axis."""
    for _ in range(radius):
        wide = x.clone()
        for into, of in ((1, 0), (0, 1)):
            part = wide.narrow(dim, into, x.shape[dim] - 1)
            torch.maximum(part, x.narrow(dim, of, x.shape[dim] - 1), out=part)
        x = wide
    return x


def _square(x: Tensor, radius: int) -> Tensor:
    """The largest value within so many rows and columns."""
    return _largest(_largest(x, radius, -1), radius, -2)


def _grow(mask: Tensor, radius: int) -> Tensor:
    """Dilation by a disc-like shape: a square and a diamond in turn."""
    for i in range(radius):
        mask = _square(mask, 1) if i % 2 else _largest(mask, 1, -1) | _largest(mask, 1, -2)
    return mask


def _shrink(mask: Tensor, radius: int) -> Tensor:
    return ~_grow(~mask, radius)


def _connected(allowed: Tensor, seeds: Tensor) -> Tensor:
    """The part of `allowed` that is connected with a seed; what lies within 2 pixels counts as connected."""
    where, field, before = _halved(allowed), _halved(seeds & allowed), None
    while before is None or not torch.equal(field, before):
        before = field
        for _ in range(8):
            field = _square(field, 1) & where
    rows, columns = allowed.shape[-2:]
    return allowed & field.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :rows, :columns]


def _halved(mask: Tensor) -> Tensor:
    """Whether any of 2x2 is set."""
    rows, columns = mask.shape[-2:]
    even = F.pad(mask, (0, columns % 2, 0, rows % 2))
    pairs = even[..., ::2] | even[..., 1::2]
    return pairs[..., ::2, :] | pairs[..., 1::2, :]


def _feather(mask: Tensor, radius: int) -> Tensor:
    """1 in the mask, falling evenly to 0 at `radius` + 1 pixels outside it."""
    soft = mask.float()
    for i in range(1, radius + 1):
        mask = _grow(mask, 1)
        soft = torch.maximum(soft, mask * (1 - i / (radius + 1)))
    return soft
