"""Latents to tokens and back, and the positions of a picture's tokens. A token is a 2x2 patch of latents."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """Latents (batch, channels, height, width) to tokens (batch, height/2 * width/2, channels * 4)."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `pack` for latents of the given height and width."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=height // 2, w=width // 2, p=2, q=2)


def picture_ids(
    index: int,
    rows: int,
    columns: int,
    device: torch.device | str = "cpu",
    first_row: int = 0,
    first_column: int = 0,
) -> Tensor:
    """Positions (rows * columns, 3) float32 of one picture: (index, row, column); index 0 is the target."""
    ids = torch.zeros(rows, columns, 3, device=device, dtype=torch.float32)
    ids[..., 0] = index
    ids[..., 1] = first_row + torch.arange(rows, device=device)[:, None]
    ids[..., 2] = first_column + torch.arange(columns, device=device)[None, :]
    return ids.reshape(-1, 3)
