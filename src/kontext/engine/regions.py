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

from kontext.engine.morphology import connected, dilate, erode, feather, largest_in_square
from kontext.engine.sizes import Size, SizePlan
from kontext.model.window import Window


@dataclass(frozen=True, kw_only=True)
class RegionRules:
    """Thresholds that decide where an edit acts. Changes are of colors in 0 to 1, shares are 0 to 1."""

    weak_change: float = 0.04
    """Change that may belong to a region."""
    strong_change: float = 0.10
    """Change that starts a region."""
    weak_noise_factor: float = 4.2
    """`weak_change` is at least this many times the noise floor, the change of the calmer third."""
    strong_noise_factor: float = 9.0
    """`strong_change` is at least this many times the noise floor."""
    max_noise_factor: float = 3.0
    """Both thresholds are at most this many times their usual value: a change of nearly all is no noise."""
    halo_share: float = 0.2
    """Share of the strongest change nearby below which change is only the codec's blur around it."""
    min_blob_pixels: int = 8
    """Pixels of a 7x7 square that must change; smaller blobs are chance."""
    global_share: float = 0.72
    """Share of the canvas above which the edit is one of the whole picture."""
    global_changes: tuple[tuple[float, float], ...] = ((0.8, 0.035), (0.95, 0.014))
    """(share of the 8x8 blocks, mean change that each of them exceeds) of an edit of the whole picture.

    97 % (62 of 64) of exact edits of everything reach one of these through the codec of nano. One in three of
    nano's changes of a background, which should keep the person in front of it, does too.
    """
    margin: float = 1 / 64
    """How far a region reaches beyond the change for its soft edge, as a share of the canvas side."""
    token_change: float = 0.35
    """Change of a token of an early estimate (root mean square of its numbers) that makes it active."""
    token_noise_factor: float = 2.5
    """`token_change` is at least this many times the noise floor of the tokens."""
    min_token_coverage: float = 0.25
    """Mask value above which a token under the mask is computed, whatever its neighbors are."""
    min_token_probability: float = 0.2
    """Probability, by the model's region head, above which a token is expected to change."""
    whole_share: float = 0.9
    """Share of the tokens expected to change above which the edit is one of the whole picture."""
    max_active_share: float = 0.6
    """Share of the tokens above which skipping the others saves too little."""
    max_window_share: float = 0.6
    """Share of the picture above which decoding only a window saves too little."""
    decoded_margin: int = 8
    """Pixels around changed latents that a decoder reaches."""
    same_latent: float = 1e-3
    """Difference of latents that is only rounding."""
    surroundings: int = 8
    """Points of the grid around a window that the filters read."""
    grid: int = 256
    """Points along the longer side of the grid on which regions are found."""


RULES = RegionRules()


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
    differs = ((latents - before).abs() > RULES.same_latent).any(0).any(0).cpu()
    down, across = differs.any(1).nonzero(), differs.any(0).nonzero()
    if not len(down):
        return Window(0, 0, 0, 0)
    tight = Window(int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1).multiplied(cell)
    window = tight.grown(RULES.decoded_margin, cell * rows, cell * columns)
    return window if window.area <= RULES.max_window_share * cell**2 * rows * columns else None


def coarseness(canvas: Size) -> int:
    """How many pixels on a side one point of the grid covers."""
    return math.ceil(max(canvas) / RULES.grid)


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
    result: np.ndarray,
    codec: np.ndarray,
    edit_mask: Image.Image | None = None,
    window: Window | None = None,
    expected: Tensor | None = None,
) -> Region:
    """Where a result (height, width, 3) uint8 differs from the reconstruction of its source by the codec.

    Outside of `window`, if there is one, they are known to be equal. `expected` (n,) bool, the tokens that
    the model's region head expected to change, tells whether the edit is one of the whole picture; without
    it the change itself does.
    """
    height, width = result.shape[:2]
    if expected is not None and edit_mask is None and float(expected.float().mean()) > RULES.whole_share:
        return Region(None)
    if window is None:
        return find_region(change_map(result, codec), (width, height), edit_mask, local=expected is not None)
    soft = np.zeros((height, width), np.float32)
    factor = coarseness((height, width))
    near = window.grown(
        factor * (2 * _radius((height, width), factor) + RULES.surroundings), height, width, factor
    )
    if window.area:
        change = change_map(near.of(result), near.of(codec), factor)
        part = edit_mask and edit_mask.crop(near.box)
        size = near.right - near.left, near.bottom - near.top
        found = find_region(change, size, part, (width, height), local=expected is not None)
        near.of(soft)[:] = 1 if found.soft is None else found.soft
    return Region(soft)


def find_region(
    change: Tensor,
    canvas: Size,
    edit_mask: Image.Image | None = None,
    full_canvas: Size | None = None,
    local: bool = False,
) -> Region:
    """The region of a change map on a canvas.

    `edit_mask`, a soft mask (mode L) as large as the canvas, limits it. The canvas may be part of a
    `full_canvas` that is otherwise unchanged.

    Weak change belongs to the region where it is connected with strong change (hysteresis). Gaps are
    closed, specks dropped, the edge feathered within a margin around it. A change nearly everywhere
    is one of the whole picture, unless the edit is known to be `local`.
    """
    local = local or edit_mask is not None
    share = 1.0 if full_canvas is None else canvas[0] * canvas[1] / (full_canvas[0] * full_canvas[1])
    if not local and share == 1 and _changes_everywhere(change):
        return Region(None)
    size = change.abs().amax(dim=0)[None, None]
    noise_floor = float(np.quantile(size.numpy(), max(0, 1 - 0.7 / share))) if share > 0.7 else 0.0
    if edit_mask is not None:
        size = size * (F.interpolate(_field(edit_mask), size.shape[2:], mode="area") > 0)
    weak = min(
        max(RULES.weak_change, RULES.weak_noise_factor * noise_floor),
        RULES.max_noise_factor * RULES.weak_change,
    )
    strong = min(
        max(RULES.strong_change, RULES.strong_noise_factor * noise_floor),
        RULES.max_noise_factor * RULES.strong_change,
    )
    halo = RULES.halo_share * largest_in_square(size, 4)
    grown = connected((size > weak) & (size > halo), size > strong)
    radius = _radius(full_canvas or canvas, coarseness(full_canvas or canvas))
    grown = erode(dilate(grown, radius), radius)  # gaps closed
    dense = F.avg_pool2d(grown.float(), 7, 1, 3) * 49 >= RULES.min_blob_pixels
    grown = connected(grown, dense & grown)  # specks dropped
    if not local and share * grown.float().mean() > RULES.global_share:
        return Region(None)
    soft = F.interpolate(feather(grown, radius), canvas[::-1], mode="bilinear")
    if edit_mask is not None:
        soft = soft * _field(edit_mask)
    return Region(soft[0, 0].numpy())


def _radius(canvas: Size, factor: int) -> int:
    """Points of the grid that a region reaches beyond the change itself."""
    return max(1, round(-(-min(canvas) // factor) * RULES.margin))


def _changes_everywhere(change: Tensor) -> bool:
    """Whether most blocks changed in the mean: color and light of a whole picture, unlike noise."""
    side = max(1, max(change.shape) // 16)
    blocks = F.avg_pool2d(change, side).abs().amax(dim=0).flatten()
    return any(float(blocks.quantile(1 - share)) > least for share, least in RULES.global_changes)


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
    combined = original.copy()
    combined.paste(Image.fromarray(mixed), box[:2])
    if alpha is None:
        return combined
    change = np.abs(r - o).max(-1) / 255
    painted_share = np.clip(
        (change - RULES.weak_change / 2) / (RULES.strong_change - RULES.weak_change / 2), 0, 1
    )
    opacity = np.array(alpha, np.float32)
    x0, y0, x1, y1 = box
    new = 255 * weight[..., 0] * painted_share  # transparent stays where nothing was painted
    opacity[y0:y1, x0:x1] = np.maximum(opacity[y0:y1, x0:x1], new)
    return Image.merge("RGBA", (*combined.split(), Image.fromarray(np.rint(opacity).astype(np.uint8))))


def enlarge(region: Region, plan: SizePlan) -> Image.Image:
    """The region at the size of the output, mode L; soft edges stay soft, 0 stays 0."""
    assert region.soft is not None
    canvas = Image.fromarray(np.rint(region.soft * 255).astype(np.uint8))
    return plan.restore(canvas, Image.Resampling.BILINEAR)


def changed_fraction(before: Image.Image, after: Image.Image) -> float:
    """Share of the pixels that are not equal."""
    if before.mode != after.mode:
        before, after = before.convert("RGBA"), after.convert("RGBA")
    largest = functools.reduce(ImageChops.lighter, ImageChops.difference(before, after).split())
    return 1 - largest.histogram()[0] / (before.width * before.height)


def select_active_tokens(
    estimate: Tensor, source: Tensor, grid: tuple[int, int], edit_mask: Tensor | None = None
) -> Tensor | None:
    """Tokens of a target to compute further, from an early estimate, as (n,) bool; None: all of them.

    estimate and source (b, n, 64); grid (rows, columns); inside (rows, columns) bool limits the edit. Tokens
    count that differ from the source by more than the estimate's own restlessness, and their neighbors.
    """
    distance = (estimate - source).square().mean(-1).sqrt().amax(0).reshape(1, 1, *grid)
    noise_floor = float(distance.quantile(0.3))
    active = distance > min(
        max(RULES.token_change, RULES.token_noise_factor * noise_floor), 2 * RULES.token_change
    )
    if edit_mask is not None:
        active = active & edit_mask
    return dilate_if_sparse(active)


def expected_region(logits: Tensor) -> Tensor:
    """The tokens of each picture that its region head expects to change: (b, n) logits -> (b, n) bool."""
    return logits.sigmoid() > RULES.min_token_probability


def dilate_if_sparse(active: Tensor) -> Tensor | None:
    """Active tokens (..., rows, columns) bool and their neighbors as (n,) bool; None for too many."""
    wide = F.max_pool2d(active.float().reshape(1, 1, *active.shape[-2:]), 3, 1, 1).flatten() > 0
    return wide if wide.any() and float(wide.float().mean()) <= RULES.max_active_share else None


def token_mask(edit_mask: Image.Image, patch: int = 16) -> Tensor:
    """A mask (mode L) on the canvas as (rows, columns) bool: tokens that more than its soft edge touches."""
    return F.max_pool2d(_field(edit_mask), patch)[0, 0] > RULES.min_token_coverage
