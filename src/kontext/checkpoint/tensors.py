"""Named tensors in files: known by shape and type without being read, and converted one at a time.

Reads `.safetensors` (single or sharded with an index) and writes it in a stream, so that a 24 GB file is
converted in little memory. Formats that can run code when opened (`.pt`, `.ckpt`, `.bin`, ...) are refused.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kontext.errors import BadCheckpoint, NotFound

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

EIGHT_BIT_FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2)
HEADER_BYTES = 256
"""More than one tensor takes in the header of a file."""
RUNS_CODE = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class Stored:
    """A tensor that is somewhere: its shape and type are known, `read` brings its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    kind: str = ""
    """What it is in the file, where `dtype` is only what it is read as."""

    @property
    def count(self) -> int:
        return math.prod(self.shape)


Weights = dict[str, Stored]


def stored(tensors: Mapping[str, Tensor]) -> Weights:
    """The tensors of a module's state dict, as weights."""
    return {name: Stored(tuple(t.shape), t.dtype, partial(_same, t)) for name, t in tensors.items()}


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _rows(whole: Stored, start: int, stop: int) -> Tensor:
    return whole.read()[start:stop]


def joined(parts: Sequence[Stored]) -> Stored:
    """The parts put together along the first axis."""
    rows = sum(part.shape[0] for part in parts)
    shape = (rows, *parts[0].shape[1:])
    return Stored(shape, parts[0].dtype, lambda: torch.cat([part.read() for part in parts]))


def cut(whole: Stored, sizes: Iterable[int]) -> list[Stored]:
    """Consecutive pieces of a tensor along the first axis."""
    pieces, start = [], 0
    for size in sizes:
        read = partial(_rows, whole, start, start + size)
        pieces.append(Stored((size, *whole.shape[1:]), whole.dtype, read))
        start += size
    return pieces


def reshaped(whole: Stored, shape: tuple[int, ...]) -> Stored:
    return Stored(shape, whole.dtype, lambda: whole.read().reshape(shape))


def typed(weights: Weights, dtype: torch.dtype) -> Weights:
    """The tensors in another type of floats, converted when they are read."""
    return {
        name: Stored(t.shape, dtype, partial(_as, t, dtype)) if t.dtype.is_floating_point else t
        for name, t in weights.items()
    }


def _as(tensor: Stored, dtype: torch.dtype) -> Tensor:
    return tensor.read().to(dtype)


def refuse_code(path: Path) -> None:
    """Raise BadCheckpoint for formats that can run code when they are opened."""
    if path.suffix.lower() in RUNS_CODE:
        raise BadCheckpoint(
            f"{path.name}: a {path.suffix} file can run code when opened and is refused; "
            "only .safetensors and .gguf are read, so convert it where you trust it"
        )


def read_safetensors(path: Path) -> tuple[Weights, dict[str, str]]:
    """Tensors and metadata of one file. Raises NotFound, or BadCheckpoint for a damaged or refused file."""
    refuse_code(path)
    if not path.is_file():
        raise NotFound(f"{path}: no such file")
    try:
        file = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(
            f"{path.name}: not a safetensors file, or damaged or truncated ({error}); get it again"
        ) from None
    unknown = sorted({s.get_dtype() for s in slices.values()} - set(DTYPES))
    if unknown:
        raise BadCheckpoint(f"{path.name}: numbers of type {', '.join(unknown)} are not supported")
    weights = {
        name: Stored(tuple(s.get_shape()), DTYPES[s.get_dtype()], partial(file.get_tensor, name))
        for name, s in slices.items()
    }
    return weights, dict(file.metadata() or {})


def read_sharded(index: Path) -> Weights:
    """Tensors of the files that a `*.safetensors.index.json` names. Raises BadCheckpoint if one is missing or
    bad."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise BadCheckpoint(f"{index.name}: has no weight_map of names to files")
    weights: Weights = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard or not (index.parent / shard).is_file():
            raise BadCheckpoint(f"{index.name}: names the file {shard}, which is not beside it")
        held, _ = read_safetensors(index.parent / shard)
        absent = [name for name, file in weight_map.items() if file == shard and name not in held]
        if absent:
            raise BadCheckpoint(f"{shard}: lacks {few(absent)}, which {index.name} expects in it")
        weights.update(held)
    return weights


def read_json(path: Path) -> dict:
    """A JSON object. Raises BadCheckpoint if it is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(data, dict):
        raise BadCheckpoint(f"{path}: must be a JSON object")
    return data


def write_safetensors(path: Path, weights: Weights, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors one after the other, widest type first (which keeps them aligned); complete or not at
    all."""
    order = sorted(weights, key=lambda name: (-weights[name].dtype.itemsize, name))
    codes = {dtype: code for code, dtype in DTYPES.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name in order:
        tensor = weights[name]
        start, end = end, end + tensor.count * tensor.dtype.itemsize
        entry = {"dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                file.write(raw_bytes(weights[name].read()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_sharded(path: Path, weights: Weights, shard_bytes: int | None) -> None:
    """Write one file, or where it would be larger than `shard_bytes`, several and their index beside them.

    A tensor is never cut: one that is larger by itself fills a file of its own.
    """
    groups: list[list[str]] = []
    filled = 0
    for name, tensor in weights.items():
        size = tensor.count * tensor.dtype.itemsize + HEADER_BYTES
        if not groups or (shard_bytes is not None and filled + size > shard_bytes):
            groups.append([])
            filled = HEADER_BYTES
        groups[-1].append(name)
        filled += size
    if len(groups) < 2:
        write_safetensors(path, weights)
        return
    files = [f"{path.stem}-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    for file, group in zip(files, groups):
        write_safetensors(path.with_name(file), {name: weights[name] for name in group})
    places = {name: file for file, group in zip(files, groups) for name in group}
    total = sum(tensor.count * tensor.dtype.itemsize for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index, indent=1), "utf-8")


def raw_bytes(tensor: Tensor) -> memoryview:
    """The numbers as they lie in memory, row by row."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def few(names: Iterable[str], limit: int = 4) -> str:
    """A handful of names, then how many more."""
    names = list(names)
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
