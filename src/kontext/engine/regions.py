"""Finds where an edit acts and keeps everything else: change map, clean-up, compositing over the original.

Pixels changed where decode(result) differs from decode(encode(source)): the codec's error is on both sides
and cancels out. Inside the region the picture is the model's output; at its soft edge it blends into the
original; outside, the pixels equal the original bit for bit.
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
    """Change above which a pixel may belong to a region."""
    strong_change: float = 0.10
    """Change above which a pixel starts a region."""
    weak_noise_factor: float = 4.2
    """`weak_change` is at least this many times the noise floor, the change of the least changed third."""
    strong_noise_factor: float = 9.0
    """`strong_change` is at least this many times the noise floor."""
    max_noise_factor: float = 3.0
    """Limit on how far the noise floor raises both thresholds: a change of nearly everything is not noise."""
    halo_share: float = 0.2
    """Share of the strongest change nearby below which change counts as the codec's blur around it."""
    min_blob_pixels: int = 8
    """Pixels of a 7x7 square that must change; smaller blobs are noise."""
    global_share: float = 0.72
    """Share of the canvas above which the edit counts as one of the whole picture."""
    global_changes: tuple[tuple[float, float], ...] = ((0.8, 0.035), (0.95, 0.014))
    """(share of the 8x8 blocks, mean change that each of them exceeds) of an edit of the whole picture.

    97 % (62 of 64) of exact edits of everything reach one of these through the codec of nano. One in three of
    nano's changes of a background, which should keep the person in front of it, does too.
    """
    margin: float = 1 / 64
    """Width of a region's margin for its soft edge, as a share of the canvas side."""
    token_change: float = 0.35
    """Change of a token of an early estimate (root mean square over its channels) that makes it active."""
    token_noise_factor: float = 2.5
    """`token_change` is at least this many times the noise floor of the tokens."""
    min_token_coverage: float = 0.25
    """Mask value above which a token below the mask is always computed."""
    min_token_probability: float = 0.2
    """Probability, by the model's region head, above which a token is expected to change."""
    min_edit_probability: float = 0.9
    """Probability that at least one token must reach; otherwise the prompt is taken to ask for nothing. In
    words that the model knows, all of 148 held-out edits have one of 0.95 and more.
    """
    whole_share: float = 0.9
    """Share of tokens expected to change above which the edit counts as one of the whole picture."""
    max_active_share: float = 0.6
    """Share of the tokens above which skipping the others saves too little."""
    max_window_share: float = 0.6
    """Share of the picture above which decoding only a window saves too little."""
    decoded_margin: int = 8
    """Pixels around changed latents that a decoder reaches."""
    same_latent: float = 1e-3
    """Difference of latents that counts as rounding."""
    surroundings: int = 8
    """Grid points around a window that the filters read."""
    grid: int = 256
    """Grid points along the longer side; regions are found on this grid."""


RULES = RegionRules()


@dataclass(frozen=True)
class Region:
    """`soft` (height, width) float32 on the canvas: 1 inside, 0 outside; None: the whole picture."""

    soft: np.ndarray | None

    @property
    def empty(self) -> bool:
        return self.soft is not None and not self.soft.any()


def window_of(latents: Tensor, before: Tensor, cell: int = 8) -> Window | None:
    """Pixel window in which latents (b, channels, rows, columns) differ, with the decoder's reach.

    None if it covers nearly all. A latent covers `cell` x `cell` pixels.
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
    """Side of a grid point in pixels."""
    return math.ceil(max(canvas) / RULES.grid)


def change_map(result: np.ndarray, codec: np.ndarray, factor: int | None = None) -> Tensor:
    """Change of each grid point: (3, rows, columns) float32, -1 to 1, of uint8 pictures (height, width, 3).

    Averaged over 3x3 pixels to ignore single pixels; on canvases larger than the grid, over the `factor` x
    `factor` pixels of a grid point.
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
    """The region in which a result (height, width, 3) uint8 differs from the reconstruction of its source.

    Outside of `window`, if given, they are known to be equal. `expected` (n,) bool are the tokens that the
    region head expects to change; they decide whether the edit is one of the whole picture. Without them the
    change itself decides.
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

    `edit_mask`, a soft mask (mode L) of the canvas size, limits it. The canvas may be part of a `full_canvas`
    that is otherwise unchanged.

    Weak change belongs to the region if it is connected with strong change (hysteresis). Gaps are closed,
    specks removed, and the edge is feathered. A change nearly everywhere counts as one of the whole picture,
    unless the edit is known to be `local`.
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
    """Margin of a region around the change, in grid points."""
    return max(1, round(-(-min(canvas) // factor) * RULES.margin))


def _changes_everywhere(change: Tensor) -> bool:
    """Whether the means of most blocks changed: color or light of a whole picture, not noise."""
    side = max(1, max(change.shape) // 16)
    blocks = F.avg_pool2d(change, side).abs().amax(dim=0).flatten()
    return any(float(blocks.quantile(1 - share)) > least for share, least in RULES.global_changes)


def _field(mask: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(mask, np.float32) / 255)[None, None]


def composite(
    original: Image.Image, result: Image.Image, soft: Image.Image, alpha: Image.Image | None
) -> Image.Image:
    """Composite a result over the original.

    `soft` (mode L), of the original's size, is the weight of the result; `result` covers its bounding box.

    Where `soft` is 0, pixels and `alpha` are the original's. New content is opaque.
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
    """The region at output size, mode L; 0 stays 0."""
    assert region.soft is not None
    canvas = Image.fromarray(np.rint(region.soft * 255).astype(np.uint8))
    return plan.restore(canvas, Image.Resampling.BILINEAR)


def changed_fraction(before: Image.Image, after: Image.Image) -> float:
    """Share of pixels that differ."""
    if before.mode != after.mode:
        before, after = before.convert("RGBA"), after.convert("RGBA")
    largest = functools.reduce(ImageChops.lighter, ImageChops.difference(before, after).split())
    return 1 - largest.histogram()[0] / (before.width * before.height)


def select_active_tokens(
    estimate: Tensor, source: Tensor, grid: tuple[int, int], edit_mask: Tensor | None = None
) -> Tensor | None:
    """Tokens to keep computing, from an early estimate, as (n,) bool; None: all.

    estimate and source (b, n, 64); grid (rows, columns); inside (rows, columns) bool limits the edit.
    Selected are tokens that differ from the source by more than the estimate's noise floor, and their
    neighbors.
    """
    distance = (estimate - source).square().mean(-1).sqrt().amax(0).reshape(1, 1, *grid)
    noise_floor = float(distance.quantile(0.3))
    least = min(max(RULES.token_change, RULES.token_noise_factor * noise_floor), 2 * RULES.token_change)
    active = ~(distance <= least)  # NaN is active: it reaches the result, where it is an error
    if edit_mask is not None:
        active = active & edit_mask
    return dilate_if_sparse(active)


def expected_region(logits: Tensor) -> Tensor:
    """Tokens that the region head expects to change: (b, n) logits -> (b, n) bool.

    None of a picture where no token is likely enough. NaN counts as a change: it reaches the result, where it
    is an error.
    """
    probability = logits.sigmoid()
    edits = ~(probability.amax(-1, keepdim=True) < RULES.min_edit_probability)
    return ~(probability <= RULES.min_token_probability) & edits


def dilate_if_sparse(active: Tensor) -> Tensor | None:
    """Active tokens (..., rows, columns) bool and their neighbors as (n,) bool; None for too many."""
    wide = F.max_pool2d(active.float().reshape(1, 1, *active.shape[-2:]), 3, 1, 1).flatten() > 0
    return wide if wide.any() and float(wide.float().mean()) <= RULES.max_active_share else None


def token_mask(edit_mask: Image.Image, patch: int = 16) -> Tensor:
    """A mask (mode L) on the canvas as tokens (rows, columns) bool, without those at its soft edge."""
    return F.max_pool2d(_field(edit_mask), patch)[0, 0] > RULES.min_token_coverage
