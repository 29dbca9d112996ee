"""GGUF files: read through a memory map, tensor by tensor, and written by the `gguf` package.

Layout (github.com/ggml-org/ggml, docs/gguf.md): magic, version, counts, pairs of keys and values, names and
places of tensors, and their data, aligned. The common block types are dequantized on any device
(`model.ggml`), the others by the package on the CPU.
"""

from __future__ import annotations

import math
import os
import struct
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kontext.checkpoint.mapped import MappedFile
from kontext.checkpoint.tensors import LazyTensor, Weights, matrix
from kontext.errors import BadCheckpoint, BadRequest, NotFound
from kontext.model.ggml import FORMATS
from kontext.model.storage_formats import ggml_format
from kontext.model.stored import PLAIN, StorageFormat, StoredMatrix

PRESET_KEY = "kontext.preset"
WRITABLE_TYPES = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16")
"""Types that `write_gguf` supports."""

_PLAIN_TYPES = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}
_BLOCK_TYPES = {format.number: format for format in FORMATS.values()}
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""Types of values, as `struct` names them."""
_TEXT, _LIST = 8, 9
_MAX_COUNT = 2**24
"""Limit of entries and characters in a header: more means damage."""
_SHAPE_KEY = "comfy.gguf.orig_shape."
"""Key of ComfyUI-GGUF for the original shape of a reshaped tensor."""


class _Damaged(ValueError):
    """An invalid GGUF file."""


class _Reader:
    """Reads a header sequentially."""

    def __init__(self, file: MappedFile):
        self.file, self.place = file, 0
        self._window, self._window_start = b"", 0

    def bytes(self, count: int) -> bytes:
        start = self.place - self._window_start
        if start + count > len(self._window):
            self._window, self._window_start = self.file.bytes(self.place, max(count, 1 << 20)), self.place
            start = 0
        data = self._window[start : start + count]
        if len(data) != count:
            raise _Damaged("cut off")
        self.place += count
        return data

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack(code, self.bytes(struct.calcsize(code)))
        return value

    def count(self) -> int:
        value = self.scalar("<Q")
        if value > _MAX_COUNT:
            raise _Damaged(f"a count of {value}")
        return value

    def text(self) -> str:
        return self.bytes(self.count()).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            inner, count = self.scalar("<I"), self.count()
            if inner in _SCALARS:
                size = struct.calcsize(_SCALARS[inner])
                return [v for (v,) in struct.iter_unpack(_SCALARS[inner], self.bytes(count * size))]
            if inner != _TEXT:
                raise _Damaged(f"a list of type {inner}")
            return [self.text() for _ in range(count)]
        if kind not in _SCALARS:
            raise _Damaged(f"a value of type {kind}")
        return self.scalar(_SCALARS[kind])


def read_gguf(path: Path) -> tuple[Weights, dict[str, Any]]:
    """Tensors and values of a file. Raises NotFound, BadCheckpoint."""
    if not path.is_file():
        raise NotFound(f"{path}: no such file")
    try:
        file = MappedFile(path)
        values, places, start = _header(_Reader(file))
        shapes = {k.removeprefix(_SHAPE_KEY): v for k, v in values.items() if k.startswith(_SHAPE_KEY)}
        return {
            name: _tensor(file, name, shape, kind, start + offset, shapes.get(name))
            for name, (shape, kind, offset) in places.items()
        }, values
    except (_Damaged, OSError, ValueError, TypeError, OverflowError, struct.error):
        raise BadCheckpoint(f"{path.name}: not a GGUF file, or damaged or truncated; get it again") from None


def _header(reader: _Reader) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], int, int]], int]:
    """Values; shape, type and offset of each tensor; and the start of the data."""
    if reader.bytes(4) != b"GGUF":
        raise _Damaged("no GGUF")
    version = reader.scalar("<I")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
        found = "a big-endian GGUF" if swapped else f"GGUF of version {version}"
        raise BadCheckpoint(f"{reader.file.path.name}: {found}; version 2 and 3, little-endian, are read")
    tensor_count, value_count = reader.count(), reader.count()
    values: dict[str, Any] = {}
    for _ in range(value_count):
        key = reader.text()
        values[key] = reader.value(reader.scalar("<I"))
    places = {}
    for _ in range(tensor_count):
        name = reader.text()
        axes = reader.scalar("<I")
        if axes > 8 or name in places:
            raise _Damaged(f"tensor {name}")
        shape = tuple(reader.scalar("<Q") for _ in range(axes))[::-1]
        places[name] = shape, reader.scalar("<I"), reader.scalar("<Q")
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment < 2**20:
        raise _Damaged("alignment")
    return values, places, -(-reader.place // alignment) * alignment


def _tensor(
    file: MappedFile, name: str, shape: tuple[int, ...], kind: int, start: int, other: list[int] | None
) -> LazyTensor:
    where = f"{file.path.name}: {name}"
    count = math.prod(shape)
    columns = shape[-1] if shape else 1
    if kind in _PLAIN_TYPES:
        size = count * _PLAIN_TYPES[kind].itemsize
        as_rows, data_type, dtype, format = shape, _PLAIN_TYPES[kind], _PLAIN_TYPES[kind], PLAIN
    else:
        format, numbers, block_bytes = _block_format(kind, where)
        if columns % numbers:
            raise _Damaged(f"{name} has rows of {columns}")
        size = count // numbers * block_bytes
        as_rows = (count // max(1, columns), columns // numbers * block_bytes)
        data_type, dtype = torch.uint8, torch.bfloat16
    if start + size > file.size:
        raise _Damaged("cut off")
    source = partial(file.tensor, start, data_type, as_rows)
    if len(shape) == 2:
        found = matrix(StoredMatrix(shape, format, (source,), size, where), dtype)
    elif format is PLAIN:
        found = LazyTensor(shape, dtype, source)
    else:
        rows = StoredMatrix((count // max(1, columns), columns), format, (source,), size, where)
        found = LazyTensor(shape, dtype, lambda: rows.dequantize(dtype).reshape(shape), format.name)
    if other is None or tuple(other) == shape:
        return found
    changed = tuple(int(n) for n in other)
    if math.prod(changed) != count:
        raise _Damaged(f"{name} was {changed}")
    return LazyTensor(changed, dtype, lambda: found.read().reshape(changed), format.name)


def _block_format(kind: int, where: str) -> tuple[StorageFormat, int, int]:
    """The format of a block type, and numbers and bytes per block. Raises BadCheckpoint."""
    known = _BLOCK_TYPES.get(kind)
    if known is not None:
        return ggml_format(known), known.numbers, known.bytes
    try:
        gguf = _package()
        type_ = gguf.GGMLQuantizationType(kind)
        numbers, block_bytes = gguf.GGML_QUANT_SIZES[type_]
        gguf.quants.dequantize(torch.zeros(1, block_bytes, dtype=torch.uint8).numpy(), type_)
    except (ValueError, KeyError, NotImplementedError, BadRequest):
        raise BadCheckpoint(f"{where} is of type {_type_name(kind)}, which is not supported") from None

    def expand(data: Tensor) -> Tensor:
        values = torch.from_numpy(gguf.quants.dequantize(data.cpu().numpy(), type_))
        return values.to(data.device)

    return StorageFormat(type_.name, expand), numbers, block_bytes


def _type_name(kind: int) -> str:
    try:
        return _package().GGMLQuantizationType(kind).name
    except (ValueError, BadRequest):
        return f"number {kind}"


def _package() -> Any:
    try:
        import gguf
    except ImportError:
        raise BadRequest("this needs the gguf package: pip install 'openkontext[gguf]'") from None
    return gguf


def write_gguf(path: Path, weights: Weights, kind: str, preset: str) -> None:
    """Write a transformer's weights (BFL names), its matrices as `kind`, everything else as float32.

    Matrices whose rows are not multiples of the block stay float16. Raises BadRequest for another `kind`, or
    if the package is missing.
    """
    gguf = _package()
    if kind not in WRITABLE_TYPES:
        raise BadRequest(f"cannot quantize to {kind}; possible: {', '.join(WRITABLE_TYPES)}")
    kind_type = gguf.GGMLQuantizationType[kind]
    block = gguf.GGML_QUANT_SIZES[kind_type][0]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    writer = gguf.GGUFWriter(partial, "flux", use_temp_file=True)
    try:
        writer.add_string(PRESET_KEY, preset)
        for name, tensor in weights.items():
            numbers = tensor.read().float().cpu().numpy()
            if len(tensor.shape) < 2:
                writer.add_tensor(name, numbers)
                continue
            to = kind_type if tensor.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16
            writer.add_tensor(name, gguf.quants.quantize(numbers, to), raw_dtype=to)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
