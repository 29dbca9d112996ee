"""Quantized forms in which FLUX weights are distributed, other than the blocks of GGUF (`ggml`).

Each is dequantized exactly, in float32, with the formulas of the programs that write the files: scaled 8-bit
floats and integers and NVFP4 of ComfyUI, the 4-bit types of bitsandbytes.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from kontext.model.ggml import BlockFormat
from kontext.model.stored import Raw, StorageFormat, StoredMatrix

FP4_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Values of the codes of 4-bit floats (E2M1)."""


def ggml_format(blocks: BlockFormat) -> StorageFormat:
    """Blocks of GGUF: raw tensor (rows, bytes of a row) uint8."""
    return StorageFormat(blocks.name, partial(_ggml, blocks))


def _ggml(blocks: BlockFormat, data: Tensor) -> Tensor:
    return blocks.expand(data.reshape(-1, blocks.bytes)).view(data.shape[0], -1)


def scaled_format(name: str) -> StorageFormat:
    """Raw tensors: 8-bit floats or integers (rows, columns), and a scale: one number, or (rows, 1)."""
    return StorageFormat(name, _scaled)


def _scaled(data: Tensor, scale: Tensor) -> Tensor:
    numbers = data.to(torch.float32) if data.dtype == torch.int8 else floats_of_fp8(data)
    return numbers.mul_(scale.float())


def floats_of_fp8(data: Tensor) -> Tensor:
    """8-bit floats as float32. On CPUs NaN is lost; check the bits for it.

    A CPU converts such a number in 12 ns; shifting its bits to float16 and converting that takes 0.5 ns.
    """
    if data.device.type == "cuda":
        return data.to(torch.float32)
    bits = data.view(torch.uint8)
    if data.dtype == torch.float8_e5m2:  # a float16 without its lower byte
        return (bits.to(torch.int16) << 8).view(torch.float16).float()
    wide = ((bits & 0x80).to(torch.int16) << 8) | ((bits & 0x7F).to(torch.int16) << 7)
    return wide.view(torch.float16).float().mul_(256.0)  # the exponents' biases are 7 and 15


FP8 = StorageFormat("", floats_of_fp8)
"""8-bit floats without a scale."""


def eight_bit_rows(part: StoredMatrix, raw: Raw) -> tuple[Tensor, Tensor] | None:
    """The numbers (rows, columns) and scales (rows, 1), float32, of a matrix stored as scaled e4m3.

    None for another format. raw: its raw tensors, with one scale, one for each row, or none.
    """
    if part.format.expand not in (floats_of_fp8, _scaled) or raw[0].dtype != torch.float8_e4m3fn:
        return None
    scale = raw[1].float() if len(raw) > 1 else torch.ones((), device=raw[0].device)
    return raw[0], scale.expand(part.shape[0], 1).contiguous()


def rotated_int8_format(group: int) -> StorageFormat:
    """8-bit integers with a scale for each row, of weights that were rotated in groups of columns."""
    return StorageFormat("int8, rotated", partial(_rotated, group))


def _rotated(group: int, data: Tensor, scale: Tensor) -> Tensor:
    numbers = _scaled(data, scale)
    return hadamard(numbers.view(len(data), -1, group)).view(len(data), -1)


def hadamard(x: Tensor) -> Tensor:
    """Product of x (..., 4^n) and the regular Hadamard matrix, normalized.

    The matrix is the n-th Kronecker power of the 4x4 matrix with 1/2 everywhere and -1/2 on the
    antidiagonal. It is its own inverse.
    """
    size = x.shape[-1]
    stages = round(math.log(size, 4))
    if 4**stages != size:
        raise ValueError(f"the size of a regular Hadamard matrix is a power of 4, got {size}")
    for stage in range(stages):
        fours = x.unflatten(-1, (-1, 4, 4**stage))
        x = (fours.sum(-2, keepdim=True).mul_(0.5) - fours.flip(-2)).flatten(-3)
    return x


def table_format(name: str, levels: tuple[float, ...]) -> StorageFormat:
    """The format of bitsandbytes: two codes a byte, and the largest absolute value of each block.

    Raw tensors (rows, columns / 2) with the first code in the upper bits, and values (rows, blocks).
    levels: of the 16 codes.
    """
    return StorageFormat(name, partial(_table, levels))


def _table(levels: tuple[float, ...], codes: Tensor, largest: Tensor) -> Tensor:
    numbers = _levels_of(codes, levels).view(*largest.shape, -1)
    return numbers.mul_(largest[..., None]).flatten(1)


def _levels_of(codes: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Two codes a byte (rows, n) -> their levels (rows, 2n), float32."""
    pairs = torch.stack((codes >> 4, codes & 15), dim=-1).flatten()
    table = torch.tensor(levels, dtype=torch.float32, device=codes.device)
    return table.index_select(0, pairs.int()).view(len(codes), -1)


def _nvfp4(codes: Tensor, block_scales: Tensor, scale: Tensor) -> Tensor:
    factors = floats_of_fp8(block_scales).mul_(scale.float())
    numbers = _levels_of(codes, FP4_LEVELS).view(*factors.shape, -1)
    return numbers.mul_(factors[..., None]).flatten(1)


NVFP4 = StorageFormat("NVFP4", _nvfp4)
"""Raw tensors: two codes a byte (rows, columns / 2), the first in the upper bits; an 8-bit float for each
block of 16 (rows, columns / 16); one scale."""


def from_tiles(scales: Tensor, rows: int, blocks: int) -> Tensor:
    """Scales of blocks (rows, blocks) from the order of cuBLAS.

    Tiles of 128 rows by 4 blocks, in each of which row 32 i + j is the i-th run of line j.
    """
    down, across = -(-rows // 128), -(-blocks // 4)
    tiles = scales.reshape(down, across, 32, 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(128 * down, 4 * across)[:rows, :blocks].contiguous()
