"""Rotary positions over three axes: picture index, row, column (FLUX.1 Kontext report, section 3).

Pairs are interleaved (even, odd); pair i of an axis of width d turns by position * theta^(-2i/d). Angles in
float32.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(ids: Tensor, axes: tuple[int, ...], theta: float) -> Tensor:
    """Cosines and sines for every position.

    ids: (n, 3) positions; axes: width of each axis in a head. Returns (2, n, head_width) float32, each angle
    repeated for both members of its pair.
    """
    angles = []
    for axis, width in enumerate(axes):
        exponent = torch.arange(0, width, 2, dtype=torch.float32, device=ids.device) / width
        angles.append(ids[:, axis, None].float() * theta**-exponent)
    angle = torch.cat(angles, dim=-1).repeat_interleave(2, dim=-1)  # (n, head_width)
    return torch.stack((angle.cos(), angle.sin()))


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Turn x (batch, heads, n, head_width) by a table (2, n, head_width), in float32; keeps x's type."""
    cos, sin = table
    y = x.float()
    turned = torch.stack((-y[..., 1::2], y[..., 0::2]), dim=-1).flatten(-2)
    return (y * cos + turned * sin).to(x.dtype)
