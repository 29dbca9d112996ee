"""What the codec lost of the original, given back in the colours of the edit.

Near every pixel the edit is a linear map of colours: the identity where nothing changed, brown to blue where
hair was dyed, towards black at nightfall, zero where new things cover the old. It is fitted between the
original through the codec and the result (as in the guided filter: He, Sun and Tang, 2010), and maps the
difference of original and codec, which also holds what a smaller canvas cannot show.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kontext.engine.sizes import Size, SizePlan

NEAR = 1 / 64  # of the canvas side: half a window's side
RIDGE = 1e-4  # variance of colour (of 1) that counts as none
SAME, OTHER = 0.02, 0.08  # mean change of colour (of 1) up to which a flat area is the same, and another
COARSER, LARGEST = (
    2,
    256,
)  # the maps are fitted on a grid so many times coarser than the canvas, at most so large


def add_detail(painted: Image.Image, original: Image.Image, codec: np.ndarray, plan: SizePlan) -> Image.Image:
    """The result at the size of the output, with the original's own detail.

    painted: the result on the canvas; codec (height, width, 3) uint8: the canvas through the codec alone;
    original: at the size of the output.
    """
    maps = colour_maps(np.asarray(painted), codec)
    views = (original, plan.restore(Image.fromarray(codec)))
    whole, seen = (np.asarray(view).astype(np.int16) for view in views)
    lost = whole - seen
    made = []
    for to, channel in enumerate(
        plan.restore(painted).split()
    ):  # one by one, for the memory of large pictures
        values = np.asarray(channel).astype(np.float32)
        for of in range(3):
            share = plan.restore(_canvas(maps[to, of], painted.size), Image.Resampling.BILINEAR)
            values += np.asarray(share) * lost[..., of]
        made.append(Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8)))
    return Image.merge("RGB", made)


def colour_maps(result: np.ndarray, codec: np.ndarray) -> Tensor:
    """Local linear maps (3 to, 3 of, rows, columns) from the colours of `codec` to those of `result`.

    Least squares in windows, with a ridge towards the identity in flat areas that stay the same, else towards
    zero.
    """
    c, r = _field(codec), _field(result)
    radius = max(1, round(NEAR * max(c.shape[2:])))

    def mean(x: Tensor) -> Tensor:
        side = 2 * radius + 1
        x = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
        return F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)

    def covariance(x: Tensor, y: Tensor) -> Tensor:
        """(rows, columns, 3 of x, 3 of y)"""
        product = mean((x[:, :, None] * y[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
        return (product - mean(x)[:, :, None] * mean(y)[:, None])[0].permute(2, 3, 0, 1)

    change = mean((r - c).abs()).amax(dim=1)[0, :, :, None, None]
    same = ((OTHER - change) / (OTHER - SAME)).clamp(0, 1)
    ridge = RIDGE * torch.eye(3)
    maps = (inverse(covariance(c, c) + ridge) @ (covariance(c, r) + same * ridge)).mT
    return mean(maps.permute(2, 3, 0, 1).flatten(0, 1)[None])[0].unflatten(0, (3, 3))


def inverse(matrices: Tensor) -> Tensor:
    """Of symmetric (..., 3, 3), by cofactors: thousands at once, which a general solver takes one by one."""
    # In double precision: the colours of a window lie nearly on a line, and single would lose the small rest.
    x, y, z = matrices.double().unbind(-2)
    cofactors = torch.stack([torch.linalg.cross(*pair) for pair in ((y, z), (z, x), (x, y))], dim=-2)
    determinant = (x * cofactors[..., 0, :]).sum(-1)
    return (cofactors / determinant[..., None, None]).to(matrices.dtype)


def _field(picture: np.ndarray) -> Tensor:
    field = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    factor = max(COARSER, -(-max(field.shape) // LARGEST))
    return F.avg_pool2d(field, factor, ceil_mode=True, count_include_pad=False)


def _canvas(field: Tensor, size: Size) -> Image.Image:
    return Image.fromarray(field.numpy()).resize(size, Image.Resampling.BILINEAR)
