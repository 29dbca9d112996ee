"""Evens out what a small model paints: blotches of recolored surfaces, unrest in flat areas.

Where an edit only changes colors, around every pixel the result is an affine map of the original's colors:
green hair to purple hair, a day's sky to a night's. The map that fits best in a window (as in the guided
filter: He, Sun and Tang, 2010) takes the place of the painted pixels, which keeps every edge of the original.
Where no such map explains the surroundings of a pixel, or a pixel is far from it, the content is new and
stays as painted.

Flat areas, new or not, are averaged with similar ones nearby, at growing distances (the edge-avoiding
wavelets of Dammertz et al., 2010), where both the result and the original are alike.

For models whose preset says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kontext.engine.detail import ColorStatistics, color_field, window_means
from kontext.model.window import Window


@dataclass(frozen=True, kw_only=True)
class RecolorRules:
    """Sizes are shares of the canvas side; colors and shares are 0 to 1."""

    point_share: float = 1 / 32
    """Side of the squares whose mean colors the maps are fitted to: blotches cancel out in them."""
    window_share: float = 1 / 16
    """Half the side of the windows in which maps are fitted."""
    trust_share: float = 1 / 11
    """Half the side of the windows that decide whether an edit is one of colors."""
    new_explained: float = 0.6
    """Share of the result's variance explained by the map up to which the content is new."""
    recolored_explained: float = 0.85
    """Share of the result's variance explained by the map from which the edit only changes colors."""
    recolored_left: float = 0.1
    """Share of the change that the map leaves unexplained up to which the edit only changes colors."""
    new_left: float = 0.3
    """Share of the change that the map leaves unexplained from which the content is new."""
    unchanged: float = 1e-3
    """Mean square of the change, summed over the channels, that counts as none."""
    blotch: float = 0.1
    """Distance from the map, in one channel, up to which a pixel is a blotch."""
    new: float = 0.25
    """Distance from the map, in one channel, from which a pixel is new content."""


@dataclass(frozen=True, kw_only=True)
class FlatRules:
    """Strides are shares of the canvas side; colors are 0 to 1, their distances Euclidean."""

    strides: tuple[float, ...] = (1 / 64, 1 / 32, 1 / 16)
    """Distances of the neighbors that a cell is averaged with, one pass each."""
    cell_pixels: int = 2
    """Side of the cells that are averaged: whole pixels cost four times as much and gain nothing."""
    result_deviation: float = 0.05
    """Distance between colors of the result at which a neighbor still counts much."""
    original_deviation: float = 0.06
    """The same, between colors of the original."""


RULES = RecolorRules()
FLAT_RULES = FlatRules()


def smooth_recolored(result: np.ndarray, codec: np.ndarray, window: Window | None = None) -> np.ndarray:
    """The result (height, width, 3) uint8 on the canvas with recolored surfaces evened out.

    codec (height, width, 3) uint8: the original on the canvas, through the codec alone. Only pixels of
    `window` (None: all) change.
    """
    height, width = codec.shape[:2]
    window = window or Window(0, height, 0, width)
    if not window.area:
        return result
    factor = max(1, round(RULES.point_share * max(height, width)))
    radius = round(RULES.window_share / RULES.point_share)
    trust_radius = round(RULES.trust_share / RULES.point_share)
    near = window.grown(factor * (2 * max(radius, trust_radius) + 2), height, width, factor)
    c, r = color_field(near.of(codec), factor), color_field(near.of(result), factor)

    statistics = ColorStatistics(c, r, radius)
    maps = statistics.maps(identity=1.0)
    offsets = statistics.result - (statistics.codec[..., None, :] @ maps)[..., 0, :]
    affine = torch.cat((maps.flatten(-2), offsets), -1).permute(2, 0, 1)[None]
    affine = _enlarged(window_means(affine, radius), factor, near)

    colors, pixels = (torch.from_numpy(near.of(x).astype(np.float32) / 255) for x in (codec, result))
    colors = colors.permute(2, 0, 1)
    pixels = pixels.permute(2, 0, 1)
    mapped = affine[9:]
    for of in range(3):
        mapped = torch.addcmul(mapped, affine[3 * of : 3 * of + 3], colors[of])
    distance = (mapped - pixels).abs()
    left, change = (
        window_means(F.avg_pool2d(x.square().sum(0)[None, None], factor, ceil_mode=True), trust_radius)
        for x in (distance, pixels - colors)
    )
    trust = _ramp(left / (change + RULES.unchanged), RULES.new_left, RULES.recolored_left)
    explained = ColorStatistics(c, r, trust_radius).explained()
    trust = trust * _ramp(explained, RULES.new_explained, RULES.recolored_explained)
    trust = -F.max_pool2d(-trust, 3, 1, 1)
    distance = F.avg_pool2d(distance.amax(0)[None, None], factor, ceil_mode=True)
    trust = trust * _ramp(window_means(distance, 1), RULES.new, RULES.blotch)
    smoothed = torch.lerp(pixels, mapped, _enlarged(trust, factor, near))
    rounded = (smoothed.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    changed = result.copy()
    window.of(changed)[:] = window.relative_to(near).of(rounded)
    return changed


def smooth_flat(
    result: np.ndarray, codec: np.ndarray, window: Window | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Result and codec, both (height, width, 3) uint8 on the canvas, with their flat areas evened out.

    Both are averaged with the same weights, so that their difference is that of the edit. Only pixels of
    `window` (None: all) change.
    """
    height, width = codec.shape[:2]
    window = window or Window(0, height, 0, width)
    if not window.area:
        return result, codec
    cell = FLAT_RULES.cell_pixels
    strides = [max(1, round(share * max(height, width) / cell)) for share in FLAT_RULES.strides]
    near = window.grown(cell * sum(strides), height, width, cell)
    both = np.concatenate((near.of(result), near.of(codec)), -1).astype(np.float32)
    deviations = [FLAT_RULES.result_deviation] * 3 + [FLAT_RULES.original_deviation] * 3
    scale = 255 * torch.tensor(deviations)[:, None, None]
    x = torch.from_numpy(both).permute(2, 0, 1) / scale
    cells = F.avg_pool2d(x[None], cell, ceil_mode=True, count_include_pad=False)[0]
    averaged = cells
    for stride in strides:
        averaged = _averaged(averaged, stride)
    change = (averaged - cells).repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    x += change[:, : x.shape[1], : x.shape[2]]
    rounded = (x * scale).clamp_(0, 255).round_().byte().permute(1, 2, 0).numpy()
    evened = []
    for picture, channels in ((result, slice(3)), (codec, slice(3, 6))):
        picture = picture.copy()
        window.of(picture)[:] = window.relative_to(near).of(rounded)[..., channels]
        evened.append(picture)
    return evened[0], evened[1]


def _averaged(x: Tensor, stride: int) -> Tensor:
    """Average x (channels, height, width), in deviations, with similar ones of 8 neighbors at `stride`."""
    height, width = x.shape[1:]
    change, weights = torch.zeros_like(x), torch.ones_like(x[0])
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        y, z, across = stride * down, stride * max(0, -right), stride * max(0, right)
        if y >= height or z + across >= width:
            continue
        here = (..., slice(0, height - y), slice(z, width - across))
        there = (..., slice(y, height), slice(across, width - z))
        difference = x[there] - x[here]
        exponent = difference.square().sum(0).add_(down**2 + right**2).mul_(-0.5)
        weight = exponent.clamp_(min=-30).exp_()  # smaller weights are slow to compute and count nothing
        difference *= weight
        change[here] += difference  # each pair once
        change[there] -= difference
        weights[here] += weight
        weights[there] += weight
    return change.div_(weights).add_(x)


def _ramp(value: Tensor, low: float, high: float) -> Tensor:
    """0 at `low`, 1 at `high`, linear between; `low` may be the larger."""
    return ((value - low) / (high - low)).clamp(0, 1)


def _enlarged(field: Tensor, factor: int, near: Window) -> Tensor:
    """A field (1, channels, rows, columns) of the grid at the pixels of `near`: (channels, height, width)."""
    pixels = F.interpolate(field, scale_factor=factor, mode="bilinear")
    return pixels[0, :, : near.bottom - near.top, : near.right - near.left]
