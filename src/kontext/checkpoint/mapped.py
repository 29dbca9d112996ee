"""Read-only memory maps of parts of files: a file larger than memory can be read, converted and run.

Only the part in use is mapped; its pages belong to the system's file cache, which drops them when memory is
short. The reader of `.safetensors` is based on this and validates the header completely.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import threading
import warnings
import weakref
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_HEADER_BYTES = 100_000_000
"""Maximum bytes of a header; that of a 12 B model has 0.1 % of it."""
MAX_SIZE = 2**48
"""Maximum numbers of a tensor: more means a damaged header."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of the safetensors format."""


class MappedFile:
    """An open file; `tensor` maps a part of it. Raises OSError if it cannot be opened."""

    def __init__(self, path: Path):
        self.path = path
        self._file, self._reading = open(path, "rb"), threading.Lock()
        weakref.finalize(self, self._file.close)
        self.size = os.fstat(self._file.fileno()).st_size

    def bytes(self, start: int, count: int) -> bytes:
        """A copy of bytes; fewer at the end of the file."""
        with self._reading:
            self._file.seek(start)
            return self._file.read(count)

    def tensor(self, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """A tensor at an offset of the file, read-only: writing to it crashes the process."""
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        _expect_read_only_buffers()
        offset = start % mmap.ALLOCATIONGRANULARITY
        length = offset + count * dtype.itemsize
        piece = mmap.mmap(self._file.fileno(), length, access=mmap.ACCESS_READ, offset=start - offset)
        if start % dtype.itemsize:  # not where such numbers can lie
            data = bytearray(memoryview(piece)[offset:])
            return torch.frombuffer(data, dtype=dtype).reshape(shape)
        return torch.frombuffer(piece, dtype=dtype, count=count, offset=offset).reshape(shape)


@cache
def _expect_read_only_buffers() -> None:
    """PyTorch warns once about a read-only buffer; here it is intended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.frombuffer(b"\0", dtype=torch.uint8)


class Entry:
    """A tensor in a header: its type, shape and offset."""

    def __init__(self, file: MappedFile, start: int, dtype: torch.dtype, shape: tuple[int, ...]):
        self.dtype, self.shape = dtype, shape
        self.bytes = math.prod(shape) * dtype.itemsize
        self.read = partial(file.tensor, start, dtype, shape)


class Damaged(ValueError):
    """A header that does not describe its file."""


class UnknownType(ValueError):
    """A type of numbers that is not supported."""


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Tensors and metadata of a `.safetensors` file. Raises OSError, Damaged and UnknownType."""
    file = MappedFile(path)
    length = int.from_bytes(file.bytes(0, 8), "little")
    if file.size < 8 or length > min(file.size - 8, MAX_HEADER_BYTES):
        raise Damaged("its header is not complete")
    try:
        header = json.loads(file.bytes(8, length).decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, Damaged) else "its header is not JSON"
        raise Damaged(reason) from None
    if not isinstance(header, dict):
        raise Damaged("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Damaged("its metadata is not text")
    unknown = sorted({str(e.get("dtype")) for e in header.values() if isinstance(e, dict)} - set(DTYPES))
    if unknown:
        raise UnknownType(", ".join(unknown))
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for name, (_, _, first, last) in sorted(places.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise Damaged(f"the bytes of {name[:80]} do not follow those before")
        end = last
    if 8 + length + end != file.size:
        raise Damaged("it is cut off" if 8 + length + end > file.size else "it has data after its tensors")
    entries = {
        name: Entry(file, 8 + length + first, dtype, shape)
        for name, (dtype, shape, first, _) in places.items()
    }
    return entries, metadata


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Damaged("a name is there twice")
    return found


def _place(name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """Type, shape, first and last byte of a tensor. Raises Damaged."""
    try:
        dtype, shape, (first, last) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise Damaged(f"{name[:80]} has no type, shape and place") from None
    numbers = (*shape, first, last)
    if not all(type(n) is int and 0 <= n <= MAX_SIZE for n in numbers) or math.prod(shape) > MAX_SIZE:
        raise Damaged(f"the shape or place of {name[:80]} is impossible")
    if last - first != math.prod(shape) * dtype.itemsize:
        raise Damaged(f"the bytes of {name[:80]} are not those of its shape")
    return dtype, shape, first, last
