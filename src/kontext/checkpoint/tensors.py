"""Named tensors in files: shape and type are known without reading; conversion is one tensor at a time.

Reads `.safetensors` (single or sharded with an index) and writes it in a stream, so that a 24 GB file is
converted in little memory. Formats that can run code when opened (`.pt`, `.ckpt`, `.bin`, ...) are refused.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kontext.checkpoint.mapped import DTYPES, Damaged, Entry, UnknownType, read_header
from kontext.errors import BadCheckpoint, NotFound
from kontext.model.storage_formats import FP8
from kontext.model.stored import EIGHT_BIT_FLOATS, PLAIN, StoredMatrix, check_finite, joined_dense

HEADER_BYTES = 256
"""Upper bound of a tensor's entry in the header of a file."""
RUNS_CODE = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class LazyTensor:
    """A tensor with known shape and type; `read` loads its numbers, which are read-only."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    kind: str = ""
    """The type in the file, if `dtype` is the type after dequantization."""
    parts: tuple[StoredMatrix, ...] = ()
    """The stored matrices whose rows make up the tensor; () for other tensors."""
    before: LazyTensor | None = None
    """The tensor of the file, if its numbers are changed when read."""
    change: str = ""
    """Description of the change."""

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """As stored."""
        stored = sum(part.bytes for part in self.parts)
        return stored if self.parts else self.count * self.dtype.itemsize


Weights = dict[str, LazyTensor]


def stored(tensors: Mapping[str, Tensor]) -> Weights:
    """The state dict of a module as weights."""
    return {name: _in_memory(name, tensor) for name, tensor in tensors.items()}


def _in_memory(name: str, tensor: Tensor) -> LazyTensor:
    read = partial(_same, tensor)
    parts: tuple[StoredMatrix, ...] = ()
    if tensor.ndim == 2 and tensor.dtype.is_floating_point and tensor.dtype not in EIGHT_BIT_FLOATS:
        parts = (StoredMatrix(tuple(tensor.shape), PLAIN, (read,), tensor.nbytes, name),)
    return LazyTensor(tuple(tensor.shape), tensor.dtype, read, "", parts)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def matrix(part: StoredMatrix, dtype: torch.dtype, kind: str = "") -> LazyTensor:
    """A stored matrix as a tensor of a type."""
    return LazyTensor(part.shape, dtype, partial(part.dequantize, dtype), kind or part.format.name, (part,))


def joined(parts: Sequence[LazyTensor]) -> LazyTensor:
    """Concatenate parts along the first axis."""
    rows = sum(part.shape[0] for part in parts)
    shape = (rows, *parts[0].shape[1:])
    as_stored = tuple(each for part in parts for each in part.parts) if all(p.parts for p in parts) else ()
    kind = parts[0].kind if len({part.kind for part in parts}) == 1 else ""

    def read() -> Tensor:
        return torch.cat([part.read() for part in parts])

    return LazyTensor(shape, parts[0].dtype, read, kind, as_stored)


def cut(tensor: LazyTensor, sizes: Iterable[int]) -> list[LazyTensor]:
    """Consecutive pieces of a tensor along the first axis."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(rows(tensor, start, start + size))
        start += size
    return pieces


def rows(tensor: LazyTensor, start: int, stop: int) -> LazyTensor:
    """Rows of a tensor; of a stored matrix only these are read."""
    shape = (stop - start, *tensor.shape[1:])
    if not tensor.parts:
        return LazyTensor(shape, tensor.dtype, partial(_rows, tensor, start, stop), tensor.kind)
    parts, first = [], 0
    for part in tensor.parts:
        own = max(0, start - first), min(part.shape[0], stop - first)
        if own[0] < own[1]:
            parts.append(part.rows(*own))
        first += part.shape[0]
    return LazyTensor(
        shape, tensor.dtype, partial(joined_dense, parts, tensor.dtype), tensor.kind, tuple(parts)
    )


def _rows(tensor: LazyTensor, start: int, stop: int) -> Tensor:
    return tensor.read()[start:stop]


def reshaped(tensor: LazyTensor, shape: tuple[int, ...]) -> LazyTensor:
    return LazyTensor(shape, tensor.dtype, lambda: tensor.read().reshape(shape))


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """Convert tensors to another float type when they are read."""
    return {
        name: LazyTensor(t.shape, dtype, partial(_as, t, dtype)) if t.dtype.is_floating_point else t
        for name, t in weights.items()
    }


def _as(tensor: LazyTensor, dtype: torch.dtype) -> Tensor:
    return tensor.read().to(dtype)


def finite(file: str, name: str, tensor: LazyTensor) -> LazyTensor:
    """The same tensor, which raises BadCheckpoint when read if it contains NaN or infinity."""
    checked = False

    def read() -> Tensor:
        nonlocal checked
        numbers = tensor.read()
        if not checked:
            raws = [raw for part in tensor.parts if part.format is not PLAIN for raw in part.raw()]
            check_finite(f"{file}: {name}", numbers, *raws)
        checked = True
        return numbers

    return replace(tensor, read=read)


def refuse_code(path: Path) -> None:
    """Raise BadCheckpoint for formats that can run code when they are opened."""
    if path.suffix.lower() in RUNS_CODE:
        raise BadCheckpoint(
            f"{path.name}: a {path.suffix} file can run code when opened and is refused; "
            "only .safetensors and .gguf are read, so convert it where you trust it"
        )


def read_safetensors(path: Path) -> tuple[Weights, dict[str, str]]:
    """Tensors and metadata of a file. Raises NotFound, and BadCheckpoint for a damaged or rejected file."""
    refuse_code(path)
    if not path.is_file():
        raise NotFound(f"{path}: no such file")
    try:
        entries, metadata = read_header(path)
    except UnknownType as error:
        raise BadCheckpoint(
            f"{path.name}: numbers of type {error} are not supported; "
            "bring bfloat16, fp8 (plain or scaled) or GGUF"
        ) from None
    except (OSError, Damaged) as error:
        raise BadCheckpoint(f"{path.name}: {_why_not_opened(path, error)}") from None
    return {name: _lazy(path.name, name, entry) for name, entry in entries.items()}, metadata


def _lazy(file: str, name: str, entry: Entry) -> LazyTensor:
    def read() -> Tensor:
        try:
            return entry.read()
        except (OSError, ValueError):
            raise BadCheckpoint(f"{file}: {name} cannot be read; get the file again") from None

    parts: tuple[StoredMatrix, ...] = ()
    if len(entry.shape) == 2 and entry.dtype.is_floating_point:
        format = FP8 if entry.dtype in EIGHT_BIT_FLOATS else PLAIN
        parts = (StoredMatrix(entry.shape, format, (read,), entry.bytes, f"{file}: {name}"),)
    return LazyTensor(entry.shape, entry.dtype, read, "", parts)


def _why_not_opened(path: Path, error: Exception) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(256).lstrip()
    except OSError as reason:
        return f"cannot be opened ({reason.strerror})"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights; fetch the file itself with git lfs pull"
    if start[:1] == b"<":
        return "a web page, not weights; the download asks for a login or a license to be accepted"
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        return "a pickle under another name, which can run code when opened and is refused"
    if start.startswith(b"GGUF"):
        return "a GGUF file; name it .gguf"
    return f"not a safetensors file, or damaged or truncated ({error}); get it again"


def is_index(path: Path) -> bool:
    """Whether a file lists the shards of a model, of a variant (`fp16`) or not."""
    return re.search(r"\.(safetensors|sft)\.index(\.\w+)?\.json$", path.name) is not None


def read_index(index: Path) -> dict[str, str]:
    """Names of tensors to names of files next to the index."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise BadCheckpoint(f"{index.name}: has no weight_map of names to files")
    return weight_map


def read_sharded(index: Path) -> Weights:
    """Tensors of the shards of a `*.safetensors.index.json`.

    Other tensors of the shards are ignored. Raises BadCheckpoint if a file or tensor is missing or invalid.
    """
    weight_map = read_index(index)
    weights: Weights = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard or not (index.parent / shard).is_file():
            raise BadCheckpoint(f"{index.name}: names the file {shard}, which is not next to it")
        tensors, _ = read_safetensors(index.parent / shard)
        assigned = [name for name, file in weight_map.items() if file == shard]
        absent = [name for name in assigned if name not in tensors]
        if absent:
            raise BadCheckpoint(f"{shard}: lacks {summarize(absent)}, which {index.name} expects in it")
        weights.update({name: tensors[name] for name in assigned})
    return weights


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises BadCheckpoint."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise BadCheckpoint(f"{path}: not readable as JSON; get the file again") from None
    if not isinstance(data, dict):
        raise BadCheckpoint(f"{path}: must be a JSON object")
    return data


def write_safetensors(path: Path, weights: Weights, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors atomically, one at a time, widest type first for alignment."""
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
    """Write one file, or if it would exceed `shard_bytes`, several files and an index.

    Tensors are not split: a larger one gets its own file.
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
    """The bytes of a tensor in memory, row by row."""
    contiguous = tensor.detach().cpu().contiguous().reshape(-1)
    return contiguous.view(torch.uint8).numpy().data


def summarize(names: Iterable[str], limit: int = 4) -> str:
    """The first `limit` names, then how many more."""
    names = list(names)
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
