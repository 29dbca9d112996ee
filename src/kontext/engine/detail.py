"""Restores the detail of the original that the codec lost, in the colors of the edit.

Around every pixel the edit is modeled as a linear map of colors: the identity where nothing changed, brown to
blue where hair was dyed, toward black at nightfall, zero where new things cover old ones. It is fitted from
the codec's reconstruction of the original to the result (as in the guided filter: He, Sun and Tang, 2010) and
applied to the difference between original and reconstruction, which includes what a smaller canvas cannot
show. Where no such map explains the surroundings of a pixel, the content is new and gets no detail of the
original.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kontext.engine.sizes import Size, SizePlan
from kontext.model.window import Window

Corners = tuple[int, int, int, int]  # (left, top, right, bottom) in pixels


@dataclass(frozen=True, kw_only=True)
class DetailRules:
    """Thresholds of the maps that carry the original's detail. Colors are 0 to 1, shares are 0 to 1."""

    window_share: float = 1 / 64
    """Half the side of a window, as a share of the canvas side."""
    ridge: float = 1e-4
    """Variance of color that counts as flat."""
    same_change: float = 0.02
    """Mean change of color up to which a flat area counts as unchanged."""
    other_change: float = 0.08
    """Mean change of color from which a flat area counts as new."""
    new_explained: float = 0.5
    """Share of the result's variance explained by the map up to which the content is new."""
    recolored_explained: float = 0.8
    """Share of the result's variance explained by the map from which the edit only changes colors."""
    min_coarseness: int = 2
    """Pixels of the canvas a side per point of the grid, at least."""
    max_grid: int = 256
    """Points along the longer side of the grid, at most."""


RULES = DetailRules()


def add_detail(
    result: Image.Image, original: Image.Image, codec: np.ndarray, plan: SizePlan, box: Corners | None = None
) -> Image.Image:
    """The part `box` (None: all) of the result at output size, with the detail of the original.

    result: on the canvas; codec (height, width, 3) uint8: the canvas through the codec alone;
    original: at the size of the output.
    """
    box = box or (0, 0, *plan.output)
    restored = plan.restore(result).crop(box)
    reconstruction = plan.restore(Image.fromarray(codec)).crop(box)
    lost_detail = np.asarray(original.crop(box)).astype(np.int16) - np.asarray(reconstruction)
    channels = []
    # one by one, for large pictures' memory
    for share, channel in zip(_shares(np.asarray(result), codec, plan, box), restored.split()):
        values = np.asarray(channel).astype(np.float32)
        for of, field in enumerate(share):
            values += np.asarray(field) * lost_detail[..., of]
        channels.append(Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8)))
    return Image.merge("RGB", channels)


def _shares(
    result: np.ndarray, codec: np.ndarray, plan: SizePlan, box: Corners
) -> Iterator[Iterator[Image.Image]]:
    """Color maps of a canvas, fitted below `box` of the output and resized to it."""
    height, width = result.shape[:2]
    left, top = plan.inner[:2]
    across, down = plan.inner[2] / plan.output[0], plan.inner[3] / plan.output[1]
    x0, y0, x1, y1 = box
    part = (left + across * x0, top + down * y0, left + across * x1, top + down * y1)
    factor = coarseness((width, height))
    radius = max(1, round(RULES.window_share * -(-max(width, height) // factor)))
    under = Window(math.floor(part[1]), math.ceil(part[3]), math.floor(part[0]), math.ceil(part[2]))
    near = under.grown(factor * (4 * radius + 3), height, width, 2 * factor)
    maps = color_maps(near.of(result), near.of(codec), factor, radius)
    x, y = near.left, near.top
    part = (
        (part[0] - x) / factor,
        (part[1] - y) / factor,
        (part[2] - x) / factor,
        (part[3] - y) / factor,
    )
    for share in maps.numpy():
        yield (
            Image.fromarray(field).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, part)
            for field in share
        )


def color_maps(
    result: np.ndarray, codec: np.ndarray, factor: int | None = None, radius: int | None = None
) -> Tensor:
    """Local linear maps (3 output, 3 input, rows, columns) from the colors of `codec` to those of `result`.

    Least squares in windows, with a ridge toward the identity in flat areas that stay the same, otherwise
    toward zero. For parts of a canvas, pass the `factor` (pixels per grid point) and `radius` (grid points)
    of the whole canvas.
    """
    factor = factor or coarseness(codec.shape[:2])
    c, r = color_field(codec, factor), color_field(result, factor)
    radius = radius or max(1, round(RULES.window_share * max(c.shape[2:])))

    near = ColorStatistics(c, r, radius)
    same = ((RULES.other_change - near.change.amax(-1)) / (RULES.other_change - RULES.same_change)).clamp(
        0, 1
    )[..., None, None]
    maps = window_means(near.maps(same).permute(3, 2, 0, 1).flatten(0, 1)[None], radius)
    # Whether the edit is one of colors is asked in wider windows, on a grid twice as coarse.
    wide = ColorStatistics(c, r, radius, pooling=2)
    trust = (
        (wide.explained() - RULES.new_explained) / (RULES.recolored_explained - RULES.new_explained)
    ).clamp(0, 1)[None, None]
    trust = F.interpolate(trust, scale_factor=2, mode="bilinear")[..., : maps.shape[2], : maps.shape[3]]
    return (maps * trust)[0].unflatten(0, (3, 3))


class ColorStatistics:
    """Moments of the colors of codec and result in the windows around grid points: (rows, columns, ...)."""

    def __init__(self, codec: Tensor, result: Tensor, radius: int, pooling: int = 1):
        """codec, result (1, 3, rows, columns), 0 to 1.

        radius: grid points on each side of a window; pooling: grid points per point of a coarser grid.
        """
        pairs = (codec[:, :, None] * torch.cat((codec, result), 1)[:, None]).flatten(1, 2)
        fields = torch.cat((codec, result, (result - codec).abs(), result * result, pairs), 1)
        if pooling > 1:
            fields = F.avg_pool2d(fields, pooling, ceil_mode=True, count_include_pad=False)
        means = window_means(fields, radius)[0].permute(1, 2, 0)
        self.codec, self.result, self.change, squares, products = means.split((3, 3, 3, 3, 18), -1)
        # 3 of codec, 3 of codec and 3 of result
        own = torch.cat((self.codec, self.result), -1)
        both = products.unflatten(-1, (3, 6)) - self.codec[..., None] * own[..., None, :]
        self.within, self.across = both.split((3, 3), -1)
        self.variance = (squares - self.result * self.result).sum(-1)

    def maps(self, identity: Tensor | float = 0.0) -> Tensor:
        """(rows, columns, 3 of, 3 to); flat windows tend to `identity` times the identity matrix."""
        ridge = RULES.ridge * torch.eye(3, dtype=self.within.dtype, device=self.within.device)
        return inverse(self.within + ridge) @ (self.across + identity * ridge)

    def explained(self) -> Tensor:
        """Share of the result's variance that the map of its window explains."""
        left = self.variance - (self.maps() * self.across).sum((-1, -2))
        return 1 - left.clamp_min(0) / (self.variance + 2 * RULES.ridge)


def window_means(x: Tensor, radius: int) -> Tensor:
    """Means of (1, channels, rows, columns) within `radius` along both axes."""
    return _means(_means(x, radius, -1), radius, -2)


def _means(x: Tensor, radius: int, dim: int) -> Tensor:
    """Means within `radius` along one axis."""
    length = x.shape[dim]
    total, count = x.clone(), torch.ones(length, dtype=x.dtype, device=x.device)
    for shift in range(1, min(radius, length - 1) + 1):
        for into, of in ((shift, 0), (0, shift)):
            total.narrow(dim, into, length - shift).add_(x.narrow(dim, of, length - shift))
            count.narrow(0, into, length - shift).add_(1)
    return total.div_(count.view(-1, *[1] * (-1 - dim)))


def inverse(matrices: Tensor) -> Tensor:
    """Inverse of symmetric (..., 3, 3) by cofactors.

    Much faster than a general solver for many small matrices.
    """
    # In double precision: the colors of a window lie nearly on a line, and single would lose the small rest.
    x, y, z = matrices.double().unbind(-2)
    cofactors = torch.stack([torch.linalg.cross(*pair) for pair in ((y, z), (z, x), (x, y))], dim=-2)
    determinant = (x * cofactors[..., 0, :]).sum(-1)
    return (cofactors / determinant[..., None, None]).to(matrices.dtype)


def coarseness(canvas: Size) -> int:
    """Pixels of a canvas per point of the grid on which color maps are fitted."""
    return max(RULES.min_coarseness, -(-max(canvas) // RULES.max_grid))


def color_field(picture: np.ndarray, factor: int) -> Tensor:
    """Colors (1, 3, rows, columns), 0 to 1, of a picture (height, width, 3) uint8 on that grid."""
    field = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return F.avg_pool2d(field, factor, ceil_mode=True, count_include_pad=False)
