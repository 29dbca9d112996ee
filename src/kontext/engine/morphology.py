"""Morphology of masks and fields, tensors (..., rows, columns), with separable filters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _largest(x: Tensor, radius: int, dim: int) -> Tensor:
    """The largest value within `radius` along one axis."""
    for _ in range(radius):
        wide = x.clone()
        for into, of in ((1, 0), (0, 1)):
            part = wide.narrow(dim, into, x.shape[dim] - 1)
            torch.maximum(part, x.narrow(dim, of, x.shape[dim] - 1), out=part)
        x = wide
    return x


def largest_in_square(x: Tensor, radius: int) -> Tensor:
    """The largest value within `radius` rows and columns."""
    return _largest(_largest(x, radius, -1), radius, -2)


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Dilation by a disc-like shape: a square and a diamond in turn."""
    for i in range(radius):
        mask = largest_in_square(mask, 1) if i % 2 else _largest(mask, 1, -1) | _largest(mask, 1, -2)
    return mask


def erode(mask: Tensor, radius: int) -> Tensor:
    """Erosion by the shape of `dilate`; positions outside of the field count as set."""
    return ~dilate(~mask, radius)


def connected(allowed: Tensor, seeds: Tensor) -> Tensor:
    """The part of `allowed` that is connected with a seed; gaps of up to 2 pixels count as connected."""
    where, field, before = _halved(allowed), _halved(seeds & allowed), None
    while before is None or not torch.equal(field, before):
        before = field
        for _ in range(8):
            field = largest_in_square(field, 1) & where
    rows, columns = allowed.shape[-2:]
    return allowed & field.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :rows, :columns]


def _halved(mask: Tensor) -> Tensor:
    """Whether any of 2x2 is set."""
    rows, columns = mask.shape[-2:]
    even = F.pad(mask, (0, columns % 2, 0, rows % 2))
    pairs = even[..., ::2] | even[..., 1::2]
    return pairs[..., ::2, :] | pairs[..., 1::2, :]


def feather(mask: Tensor, radius: int) -> Tensor:
    """1 in the mask, falling evenly to 0 at `radius` + 1 pixels outside it."""
    soft = mask.float()
    for i in range(1, radius + 1):
        mask = dilate(mask, 1)
        soft = torch.maximum(soft, mask * (1 - i / (radius + 1)))
    return soft
