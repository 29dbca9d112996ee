"""Weights in fewer bits: GGUF files (through the `gguf` package) and 8-bit floats with separate scales.

Both are expanded to bfloat16 at load: they save disk, not memory.
"""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kontext.checkpoint.tensors import EIGHT_BIT_FLOATS, LazyTensor, Weights
from kontext.errors import BadCheckpoint, BadRequest, NotFound

METADATA_KEY = "kontext.preset"
GGUF_TYPES = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16")
"""Types that `write_gguf` makes; every type that the `gguf` package expands can be read."""


_FORMS = (
    ("bitsandbytes NF4", r"\.quant_state\.bitsandbytes__nf4$"),
    ("bitsandbytes FP4", r"\.quant_state\.bitsandbytes__fp4$"),
    ("bitsandbytes 4-bit", r"\.(absmax|quant_map)$"),
    ("bitsandbytes int8", r"\.SCB$"),
    ("SVDQuant of nunchaku", r"\.(qweight|wscales|wcscales|wtscale|smooth_factor)$"),
    ("NVFP4", r"\.weight_scale_2$"),
    ("quanto", r"\.weight\._(data|scale)$"),
    ("fp8 with one scale for each block", r"\.weight_scale_inv$"),
)
"""Names that only files of these forms have."""
_SCALES = (".scale_weight", ".weight_scale")
_NOTES = (*_SCALES, ".scale_input", ".input_scale", "scaled_fp8", ".comfy_quant")
_ADVICE = "bring bfloat16, fp8 (plain or scaled) or GGUF"


def dequantize_fp8(weights: Weights, where: str) -> Weights:
    """Multiply 8-bit floats by their stored scales, one for each tensor or for each row.

    where: the file, for messages. Raises BadCheckpoint for other quantized forms, by their name.
    """
    for form, pattern in _FORMS:
        name = next((name for name in weights if re.search(pattern, name)), None)
        if name is not None:
            raise BadCheckpoint(f"{where}: stored as {form} ({name}), which is not supported; {_ADVICE}")
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith(_NOTES)}
    for note, scale in weights.items():
        end = next((end for end in _SCALES if note.endswith(end)), None)
        if end is None:
            continue
        name = note.removesuffix(end) + ".weight"
        weight = plain.get(name)
        form = _noted_form(weights.get(note.removesuffix(end) + ".comfy_quant"))
        if (
            weight is None
            or weight.dtype not in EIGHT_BIT_FLOATS
            or not scale.dtype.is_floating_point
            or (scale.count != 1 and scale.shape not in (weight.shape[:1], (*weight.shape[:1], 1)))
            or not form.startswith("float8")
        ):
            stored_as = "absent" if weight is None else str(weight.dtype).removeprefix("torch.")
            raise BadCheckpoint(
                f"{where}: {name}: stored in a quantized form that is not supported ({form}, {stored_as}, "
                f"scales of shape {scale.shape}); {_ADVICE}"
            )
        plain[name] = LazyTensor(
            weight.shape, torch.bfloat16, partial(_expanded, weight, scale), "scaled fp8"
        )
    return plain


def _noted_form(note: LazyTensor | None) -> str:
    """The form that ComfyUI stores with a tensor, as JSON in bytes."""
    if note is None:
        return "float8"
    try:
        form = json.loads(bytes(note.read().to(torch.uint8).flatten().tolist()))["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "an unreadable note"
    return str(form)


def _expanded(weight: LazyTensor, scale: LazyTensor) -> Tensor:
    numbers = scale.read().float().reshape(-1, *[1] * (len(weight.shape) - 1))
    return (weight.read().float() * numbers).to(torch.bfloat16)


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise BadRequest("GGUF files need the gguf package: pip install 'openkontext[gguf]'") from None
    return gguf


def read_gguf(path: Path) -> tuple[Weights, dict[str, str]]:
    """Tensors and our metadata of a GGUF file of a transformer (names of the BFL layout)."""
    gguf = _gguf()
    if not path.is_file():
        raise NotFound(f"{path}: no such file")
    try:
        reader = gguf.GGUFReader(path)
        weights = {tensor.name: _gguf_tensor(gguf, tensor, path.name) for tensor in reader.tensors}
        field = reader.get_field(METADATA_KEY)
        metadata = {} if field is None else {"kontext": str(field.contents())}
    except Exception:  # the package raises whatever it meets in a damaged file
        raise BadCheckpoint(f"{path.name}: not a GGUF file, or damaged or truncated; get it again") from None
    return weights, metadata


def _gguf_tensor(gguf: Any, tensor: Any, where: str) -> LazyTensor:
    shape = tuple(int(n) for n in reversed(tensor.shape))
    exact = {"F32": torch.float32, "F16": torch.float16}.get(tensor.tensor_type.name)

    def read() -> Tensor:
        if exact is not None:
            return torch.tensor(tensor.data).reshape(shape)
        try:
            numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError, KeyError):
            raise BadCheckpoint(
                f"{where}: {tensor.name} is of type {tensor.tensor_type.name}, which is not supported"
            ) from None
        return torch.from_numpy(numbers).reshape(shape).to(torch.bfloat16)

    return LazyTensor(shape, exact or torch.bfloat16, read, "" if exact else tensor.tensor_type.name)


def write_gguf(path: Path, weights: Weights, kind: str, metadata: str) -> None:
    """Write a transformer's weights (BFL names), its matrices as `kind`, everything else as float32.

    A matrix whose rows do not fill whole blocks of the type is kept as float16. Raises BadRequest for another
    `kind`.
    """
    gguf = _gguf()
    if kind not in GGUF_TYPES:
        raise BadRequest(f"cannot quantize to {kind}; possible: {', '.join(GGUF_TYPES)}")
    wanted = gguf.GGMLQuantizationType[kind]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    writer = gguf.GGUFWriter(partial, "flux", use_temp_file=True)
    try:
        writer.add_string(METADATA_KEY, metadata)
        for name, tensor in weights.items():
            numbers = tensor.read().float().cpu().numpy()
            if len(tensor.shape) < 2:
                writer.add_tensor(name, numbers)
                continue
            to = wanted if tensor.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16
            writer.add_tensor(name, gguf.quants.quantize(numbers, to), raw_dtype=to)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
