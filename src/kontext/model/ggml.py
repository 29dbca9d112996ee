"""Dequantization of the block formats of GGUF files, on any device.

A format stores runs of 32 or 256 consecutive numbers of a row in blocks of bytes: small integers, and their
shared scales and offsets in float16. Formulas and byte orders are those of ggml (`ggml-quants.c`), computed
in float32 in the same order, which gives bit-identical results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LARGE = 256
"""Numbers in a block of the K formats."""
NONLINEAR_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""Values of the 16 codes of the IQ4 formats."""


@dataclass(frozen=True)
class BlockFormat:
    """One block format."""

    name: str
    number: int
    """Number of the type in a file."""
    numbers: int
    """Numbers per block."""
    bytes: int
    """Bytes per block."""
    expand: Callable[[Tensor], Tensor]
    """Blocks (n, bytes) uint8 -> (n, numbers) float32."""


def _half(data: Tensor) -> Tensor:
    """Pairs of bytes (n, 2k) as float16, then float32 (n, k)."""
    return data.contiguous().view(torch.float16).float()


def _nibbles(data: Tensor) -> Tensor:
    """Bytes (n, g, b) -> (n, g, 2, b): the lower, then the upper four bits of each group."""
    data = data.contiguous()  # the next operations are several times faster on contiguous memory
    return torch.stack((data & 15, data >> 4), dim=2)


def _split_bits(data: Tensor, shifts: tuple[int, ...], mask: int) -> Tensor:
    """Bytes (n, g, b) -> (n, g, len(shifts), b): the bits at each shift."""
    data = data.contiguous()
    return torch.stack([(data >> shift) & mask for shift in shifts], dim=2)


def _scaled(codes: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * codes (- offset) of codes (n, groups, b), scale and offset (n, groups) -> (n, groups * b)."""
    numbers = codes.to(torch.float32).mul_(scale[..., None])
    return (numbers if offset is None else numbers.sub_(offset[..., None])).flatten(1)


def _q4_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, None, 2:]).view(torch.int8) - 8
    return _scaled(codes.flatten(2), _half(blocks[:, :2]))


def _q4_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, None, 4:])
    return _scaled(codes.flatten(2), _half(blocks[:, :2]), -_half(blocks[:, 2:4]))


def _fifth_bits(data: Tensor) -> Tensor:
    """Bytes (n, 4) -> (n, 32): bit i of the 32, as 0 or 16."""
    return (_split_bits(data[..., None], tuple(range(8)), 1) << 4).flatten(1)


def _q5_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, None, 6:]).flatten(1) | _fifth_bits(blocks[:, 2:6])
    return _scaled(codes[:, None].view(torch.int8) - 16, _half(blocks[:, :2]))


def _q5_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, None, 8:]).flatten(1) | _fifth_bits(blocks[:, 4:8])
    return _scaled(codes[:, None], _half(blocks[:, :2]), -_half(blocks[:, 2:4]))


def _q8_0(blocks: Tensor) -> Tensor:
    return _scaled(blocks[:, None, 2:].view(torch.int8), _half(blocks[:, :2]))


def _q2_k(blocks: Tensor) -> Tensor:
    scales, codes = blocks[:, :16], blocks[:, 16:80].unflatten(1, (2, 32))
    d, least = _half(blocks[:, 80:82]), _half(blocks[:, 82:84])
    codes = _split_bits(codes, (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    return _scaled(codes, d * (scales & 15).float(), least * (scales >> 4).float())


def _q3_k(blocks: Tensor) -> Tensor:
    high, low = blocks[:, None, :32], blocks[:, 32:96].unflatten(1, (2, 32))
    scales, d = blocks[:, 96:108], _half(blocks[:, 108:110])
    lower = torch.cat((scales[:, :8] & 15, scales[:, :8] >> 4), dim=1)
    upper = _split_bits(scales[:, None, 8:], (0, 2, 4, 6), 3).flatten(1)
    factors = (lower | (upper << 4)).view(torch.int8) - 32
    codes = _split_bits(low, (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    unset = _split_bits(high, tuple(range(8)), 1).reshape(-1, 16, 16) ^ 1
    return _scaled(codes.view(torch.int8) - (unset << 2).view(torch.int8), d * factors.float())


def _scales_and_offsets(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The eight scales and eight offsets of six bits in 12 bytes (n, 12), each (n, 8) float32."""
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat((first & 63, (rest & 15) | ((first >> 2) & 48)), dim=1)
    offsets = torch.cat((second & 63, (rest >> 4) | ((second >> 2) & 48)), dim=1)
    return scales.float(), offsets.float()


def _q4_k(blocks: Tensor) -> Tensor:
    scales, offsets = _scales_and_offsets(blocks[:, 4:16])
    codes = _nibbles(blocks[:, 16:].unflatten(1, (4, 32))).flatten(1, 2)
    return _scaled(codes, _half(blocks[:, :2]) * scales, _half(blocks[:, 2:4]) * offsets)


def _q5_k(blocks: Tensor) -> Tensor:
    scales, offsets = _scales_and_offsets(blocks[:, 4:16])
    low = _nibbles(blocks[:, 48:].unflatten(1, (4, 32))).flatten(1, 2)
    high = _split_bits(blocks[:, None, 16:48], tuple(range(8)), 1)[:, 0]
    return _scaled(low | (high << 4), _half(blocks[:, :2]) * scales, _half(blocks[:, 2:4]) * offsets)


def _q6_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[:, :128].unflatten(1, (2, 64))).reshape(-1, 8, 32)
    high = _split_bits(blocks[:, 128:192].unflatten(1, (2, 32)), (0, 2, 4, 6), 3).flatten(1, 2)
    codes = (low | (high << 4)).view(torch.int8) - 32
    scales = blocks[:, 192:208].view(torch.int8).float()
    return _scaled(codes.reshape(-1, 16, 16), _half(blocks[:, 208:]) * scales)


def _nonlinear(codes: Tensor) -> Tensor:
    """Codes of four bits -> float32 levels."""
    levels = torch.tensor(NONLINEAR_LEVELS, dtype=torch.float32, device=codes.device)
    return levels.index_select(0, codes.flatten().int()).view(codes.shape)


def _iq4_nl(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, None, 2:]).flatten(2)
    return _scaled(_nonlinear(codes), _half(blocks[:, :2]))


def _iq4_xs(blocks: Tensor) -> Tensor:
    low = torch.stack((blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4), dim=2).flatten(1)
    high = torch.stack([(blocks[:, 2:4] >> shift) & 3 for shift in (0, 2, 4, 6)], dim=2).flatten(1)
    factors = (low | (high << 4)).view(torch.int8) - 32
    codes = _nibbles(blocks[:, 8:].unflatten(1, (8, 16))).flatten(2)
    return _scaled(_nonlinear(codes), _half(blocks[:, :2]) * factors.float())


FORMATS: dict[str, BlockFormat] = {
    format.name: format
    for format in (
        BlockFormat("Q4_0", 2, 32, 18, _q4_0),
        BlockFormat("Q4_1", 3, 32, 20, _q4_1),
        BlockFormat("Q5_0", 6, 32, 22, _q5_0),
        BlockFormat("Q5_1", 7, 32, 24, _q5_1),
        BlockFormat("Q8_0", 8, 32, 34, _q8_0),
        BlockFormat("Q2_K", 10, LARGE, 84, _q2_k),
        BlockFormat("Q3_K", 11, LARGE, 110, _q3_k),
        BlockFormat("Q4_K", 12, LARGE, 144, _q4_k),
        BlockFormat("Q5_K", 13, LARGE, 176, _q5_k),
        BlockFormat("Q6_K", 14, LARGE, 210, _q6_k),
        BlockFormat("IQ4_NL", 20, 32, 18, _iq4_nl),
        BlockFormat("IQ4_XS", 23, LARGE, 136, _iq4_xs),
    )
}
"""By name."""
