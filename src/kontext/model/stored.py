"""Matrices in the type of their file, and their dequantization.

A `StoredMatrix` describes where its raw tensors are (a mapped file, memory) and how they are dequantized. It
does not load them: a model larger than memory can be described, placed and used matrix by matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from kontext.errors import BadCheckpoint

EIGHT_BIT_FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2)
Source = Callable[[], Tensor]
"""Reads a raw tensor, in host memory and read-only."""
Raw = tuple[Tensor, ...]
"""The raw tensors of a matrix on one device. Each has the matrix's rows as its first axis, or is a scalar."""

CHUNK_NUMBERS = {"cpu": 2**20}
"""Numbers that are dequantized at a time, to fit into the CPU's cache."""
DEVICE_CHUNK_NUMBERS = 2**24


@dataclass(frozen=True)
class StorageFormat:
    """How raw tensors are dequantized."""

    name: str
    """Name for users; "" for plain numbers."""
    expand: Callable[..., Tensor]
    """Dequantizes raw tensors of some rows to (rows, columns), in any float type that is exact."""


def _as_it_is(numbers: Tensor) -> Tensor:
    return numbers


PLAIN = StorageFormat("", _as_it_is)
"""Numbers of a PyTorch type."""


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix of a file."""

    shape: tuple[int, ...]
    """(rows, columns)."""
    format: StorageFormat
    sources: tuple[Source, ...]
    bytes: int
    """Size of all raw tensors."""
    name: str = ""
    """File and tensor, for messages."""

    def raw(self) -> Raw:
        """The raw tensors, on the host."""
        return tuple(source() for source in self.sources)

    def rows(self, start: int, stop: int) -> StoredMatrix:
        """Consecutive rows, which can be read separately."""
        share = (stop - start) / max(1, self.shape[0])
        sources = tuple(partial(_rows, source, start, stop) for source in self.sources)
        shape = (stop - start, *self.shape[1:])
        return replace(self, shape=shape, sources=sources, bytes=math.ceil(share * self.bytes))

    def pinned(self) -> StoredMatrix:
        """The same matrix from page-locked memory, which a GPU reads while it computes."""
        raws = [raw.pin_memory() for raw in self.raw()]
        return replace(self, sources=tuple(partial(_same, raw) for raw in raws))

    def dequantize(self, dtype: torch.dtype, raw: Raw | None = None) -> Tensor:
        """The dequantized matrix (rows, columns), on the device of `raw` (None: read on the host).

        Plain numbers of that type are not copied.
        """
        return joined_dense([self], dtype, None if raw is None else [raw])


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _rows(source: Source, start: int, stop: int) -> Tensor:
    tensor = source()
    return tensor[start:stop] if tensor.ndim else tensor


def joined_dense(
    parts: Sequence[StoredMatrix], dtype: torch.dtype, raws: Sequence[Raw] | None = None
) -> Tensor:
    """Several dequantized matrices, stacked."""
    out: Tensor | None = None
    first = 0
    for i, part in enumerate(parts):
        raw = part.raw() if raws is None else raws[i]  # read one after the other
        if len(parts) == 1 and part.format is PLAIN and raw[0].dtype == dtype:
            return raw[0]
        if out is None:
            shape = (sum(each.shape[0] for each in parts), *part.shape[1:])
            out = torch.empty(shape, dtype=dtype, device=raw[0].device)
        _expand_into(out[first : first + part.shape[0]], part.format, raw)
        first += part.shape[0]
    assert out is not None
    return out


def _expand_into(out: Tensor, format: StorageFormat, raw: Raw) -> None:
    if format is PLAIN:
        out.copy_(raw[0])
        return
    numbers = CHUNK_NUMBERS.get(out.device.type, DEVICE_CHUNK_NUMBERS)
    step = max(1, numbers // max(1, math.prod(out.shape[1:])))
    for start in range(0, out.shape[0], step):
        part = tuple(each[start : start + step] if each.ndim else each for each in raw)
        out[start : start + step].copy_(format.expand(*part))


def all_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are finite.

    One pass without a copy: a finite sum proves it, and only a sum that overflows needs a second pass.
    """
    if tensor.dtype in EIGHT_BIT_FLOATS:  # without arithmetic: test the bits
        largest = (tensor.contiguous().view(torch.uint8) & 0x7F).amax().item() if tensor.numel() else 0
        return largest < (0x7F if tensor.dtype == torch.float8_e4m3fn else 0x7C)
    if not tensor.dtype.is_floating_point:
        return True
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def check_finite(name: str, *tensors: Tensor) -> None:
    """Raise BadCheckpoint if a number of the tensors is NaN or infinite. `name`: file and tensor."""
    for tensor in tensors:
        if not all_finite(tensor):
            count = int((~tensor.float().isfinite()).sum())
            raise BadCheckpoint(f"{name} holds {count} numbers that are NaN or infinite; get the file again")
