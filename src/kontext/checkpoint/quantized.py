"""Quantized safetensors files: codes with separate scales, as written by ComfyUI and bitsandbytes.

Tensors that belong together (a weight, its scales, a note on the format) become one matrix, which stays as
stored and is dequantized when used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from kontext.checkpoint.tensors import LazyTensor, Weights, matrix
from kontext.errors import BadCheckpoint
from kontext.model.storage_formats import NVFP4, from_tiles, rotated_int8_format, scaled_format, table_format
from kontext.model.stored import EIGHT_BIT_FLOATS, Source, StorageFormat, StoredMatrix

_REFUSED = (
    ("SVDQuant of nunchaku", r"\.(qweight|wscales|wcscales|wtscale|smooth_factor)$"),
    ("quanto", r"\.weight\._(data|scale)$"),
    ("fp8 with one scale for each block", r"\.weight_scale_inv$"),
)
"""Unsupported formats, by names that only their files contain."""
ADVICE = "bring bfloat16, fp8 (plain or scaled) or GGUF"

_NOTE = re.compile(
    r"(?P<stem>.*)\.(?P<word>weight_scale_2|scale_weight|weight_scale|scale_input|input_scale|comfy_quant|SCB"
    r"|weight_format|weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map"
    r"|quant_state\.bitsandbytes__(?:nf4|fp4)))"
)
"""Names of tensors stored with a weight: its layer, and the kind."""
_OF_THE_FILE = ("scaled_fp8",)
"""Endings of names that belong to no layer."""
_SCALES = ("weight_scale", "scale_weight")


class _Unfit(ValueError):
    """Tensors that do not fit the format that they claim."""


def unpack(weights: Weights, where: str) -> Weights:
    """The weights of a file, each with its scales; where: the file, for messages.

    Raises BadCheckpoint for unknown formats and for parts that do not fit together.
    """
    for format, pattern in _REFUSED:
        name = next((name for name in weights if re.search(pattern, name)), None)
        if name is not None:
            raise BadCheckpoint(f"{where}: stored as {format} ({name}), which is not supported; {ADVICE}")
    notes: dict[str, dict[str, LazyTensor]] = {}
    plain: Weights = {}
    for name, tensor in weights.items():
        if found := _NOTE.fullmatch(name):
            notes.setdefault(found["stem"], {})[found["word"]] = tensor
        elif not name.endswith(_OF_THE_FILE):
            plain[name] = tensor
    for stem, own in notes.items():
        if own.keys() <= {
            "scale_input",
            "input_scale",
        }:  # of the activations: not needed for products in bf16
            continue
        name = f"{stem}.weight"
        weight, format = plain.get(name), _format(own)
        try:
            if weight is None:
                raise _Unfit("the weight itself is absent")
            if format not in _READERS:
                raise _Unfit("unknown")
            plain[name] = _READERS[format](weight, own, f"{where}: {name}")
        except (_Unfit, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            reason = str(error) if isinstance(error, _Unfit) else "its parts do not fit together"
            stored_as = "absent" if weight is None else _by(weight)
            raise BadCheckpoint(
                f"{where}: {name}: stored in a quantized format that is not supported "
                f"({format}, {stored_as}; {reason}); {ADVICE}"
            ) from None
    return plain


def _format(notes: Mapping[str, LazyTensor]) -> str:
    """The format according to the notes of a layer."""
    for word in notes:
        if "quant_state" in word or "quant_map" in word or "absmax" in word:
            return "bitsandbytes NF4" if any(w.endswith("nf4") for w in notes) else "bitsandbytes FP4"
    if "SCB" in notes:
        return "bitsandbytes int8"
    if "comfy_quant" in notes:
        try:
            format = str(_json(notes["comfy_quant"])["format"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return "an unreadable note"
        return "float8" if format.startswith("float8") else format
    return "NVFP4" if "weight_scale_2" in notes else "float8"


def _json(note: LazyTensor) -> dict[str, Any]:
    """JSON stored as the bytes of a tensor."""
    data = json.loads(bytes(note.read().to(torch.uint8).flatten().tolist()))
    if not isinstance(data, dict):
        raise TypeError
    return data


def _by(tensor: LazyTensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "one number"
    return f"{str(tensor.dtype).removeprefix('torch.')} {shape}"


def _need(condition: bool, reason: str) -> None:
    if not condition:
        raise _Unfit(reason)


def _stored(shape: tuple[int, ...], format: StorageFormat, name: str, *raw: tuple[Source, int]) -> LazyTensor:
    """A matrix of raw tensors, each with its size in bytes."""
    part = StoredMatrix(shape, format, tuple(source for source, _ in raw), sum(size for _, size in raw), name)
    return matrix(part, torch.bfloat16)


def _scale(notes: Mapping[str, LazyTensor], rows: int) -> tuple[Source, int]:
    """One scale, or one for each row."""
    scale = next(notes[word] for word in (*_SCALES, "SCB") if word in notes)
    _need(scale.dtype.is_floating_point, f"its scale is {_by(scale)}")
    each = scale.shape in ((rows,), (rows, 1))
    _need(each or scale.count == 1, f"its scale is {_by(scale)}")
    shape = (rows, 1) if each and scale.count > 1 else ()
    return partial(_reshaped, scale.read, shape), scale.bytes


def _reshaped(read: Source, shape: tuple[int, ...]) -> Tensor:
    return read().reshape(shape)


def _fp8(weight: LazyTensor, notes: Mapping[str, LazyTensor], name: str) -> LazyTensor:
    _need(weight.dtype in EIGHT_BIT_FLOATS and len(weight.shape) == 2, "fp8 is expected")
    scale = _scale(notes, weight.shape[0])
    return _stored(weight.shape, scaled_format("scaled fp8"), name, (weight.read, weight.bytes), scale)


def _int8(weight: LazyTensor, notes: Mapping[str, LazyTensor], name: str) -> LazyTensor:
    _need(weight.dtype == torch.int8 and len(weight.shape) == 2, "int8 is expected")
    note = _json(notes["comfy_quant"])
    format = scaled_format("int8")
    if note.get("convrot"):
        group = int(note.get("convrot_groupsize", 256))
        _need(
            group in (4, 16, 64, 256, 1024) and weight.shape[1] % group == 0, f"rotated in groups of {group}"
        )
        format = rotated_int8_format(group)
    scale = _scale(notes, weight.shape[0])
    return _stored(weight.shape, format, name, (weight.read, weight.bytes), scale)


def _bitsandbytes_int8(weight: LazyTensor, notes: Mapping[str, LazyTensor], name: str) -> LazyTensor:
    _need(weight.dtype == torch.int8 and len(weight.shape) == 2, "int8 is expected")
    read, size = _scale(notes, weight.shape[0])
    scale = (lambda: read().float() / 127), size
    return _stored(weight.shape, scaled_format("int8"), name, (weight.read, weight.bytes), scale)


def _nvfp4(weight: LazyTensor, notes: Mapping[str, LazyTensor], name: str) -> LazyTensor:
    _need(
        weight.dtype in (torch.uint8, torch.int8) and len(weight.shape) == 2, "two codes a byte are expected"
    )
    rows, columns = weight.shape[0], 2 * weight.shape[1]
    blocks, scale, global_scale = columns // 16, notes["weight_scale"], notes["weight_scale_2"]
    _need(
        scale.dtype in (torch.float8_e4m3fn, torch.uint8) and global_scale.count == 1, f"scales {_by(scale)}"
    )
    tiled = "comfy_quant" in notes  # in the order of the matrix units; others store them row by row
    tiles = (128 * -(-rows // 128), 4 * -(-blocks // 4))
    _need(scale.count == (prod(tiles) if tiled else rows * blocks), f"its scales are {_by(scale)}")

    def scales() -> Tensor:
        bits = scale.read().view(torch.uint8)
        ordered = from_tiles(bits, rows, blocks) if tiled else bits.reshape(rows, blocks)
        return ordered.view(torch.float8_e4m3fn)

    codes = partial(_as_bytes, weight.read)
    return _stored(
        (rows, columns),
        NVFP4,
        name,
        (codes, weight.bytes),
        (scales, rows * blocks),
        (partial(_reshaped, global_scale.read, ()), global_scale.bytes),
    )


def _as_bytes(read: Source) -> Tensor:
    return read().view(torch.uint8)


def _four_bit(weight: LazyTensor, notes: Mapping[str, LazyTensor], name: str) -> LazyTensor:
    """bitsandbytes: codes in one column of bytes, the shape in the note; the scales may be codes too."""
    note, state = next((word, t) for word, t in notes.items() if "quant_state" in word)
    data = _json(state)
    rows, columns = map(int, data["shape"])
    block = int(data["blocksize"])
    largest = notes["weight.absmax"]
    _need(weight.dtype == torch.uint8 and 2 * weight.count == rows * columns, f"{rows}x{columns} is expected")
    _need(columns % block == 0 and largest.count * block == rows * columns, f"in blocks of {block}")
    levels = tuple(notes["weight.quant_map"].read().float().flatten().tolist())
    _need(len(levels) == 16, f"{len(levels)} levels")

    def scales() -> Tensor:
        numbers = largest.read().flatten()
        if "weight.nested_absmax" in notes:
            table, outer = (notes[f"weight.nested_{word}"].read().float() for word in ("quant_map", "absmax"))
            inner = table[numbers.int()]
            every = outer.repeat_interleave(int(data["nested_blocksize"]))[: len(inner)]
            numbers = inner * every + float(data["nested_offset"])
        return numbers.float().reshape(rows, columns // block)

    format = table_format("NF4" if note.endswith("nf4") else "FP4", levels)
    codes = partial(_reshaped, weight.read, (rows, columns // 2))
    return _stored((rows, columns), format, name, (codes, weight.bytes), (scales, 4 * largest.count))


_READERS: dict[str, Callable[[LazyTensor, Mapping[str, LazyTensor], str], LazyTensor]] = {
    "float8": _fp8,
    "int8_tensorwise": _int8,
    "nvfp4": _nvfp4,
    "NVFP4": _nvfp4,
    "bitsandbytes int8": _bitsandbytes_int8,
    "bitsandbytes NF4": _four_bit,
    "bitsandbytes FP4": _four_bit,
}
"""Functions that build a matrix from a weight and its notes, by format."""
