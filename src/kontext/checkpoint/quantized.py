"""Weights in fewer bits: GGUF files (through the `gguf` package) and 8-bit floats with a scale beside them.

Both are expanded to bfloat16 at load: they save disk, not memory.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kontext.checkpoint.tensors import EIGHT_BIT_FLOATS, Stored, Weights
from kontext.errors import BadCheckpoint, BadRequest, NotFound

METADATA_KEY = "kontext.preset"
GGUF_TYPES = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16")
"""Types that `write_gguf` makes; every type that the `gguf` package expands can be read."""


def unscaled(weights: Weights) -> Weights:
    """Multiply 8-bit floats by the scale stored beside them; other 8-bit forms raise BadCheckpoint."""
    scales = {
        name.removesuffix(end) + ".weight": scale
        for end in (".scale_weight", ".weight_scale")
        for name, scale in weights.items()
        if name.endswith(end)
    }
    notes = (".scale_weight", ".weight_scale", ".scale_input", ".input_scale", "scaled_fp8", ".comfy_quant")
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith(notes)}
    for name, scale in scales.items():
        weight = plain.get(name)
        if weight is None or weight.dtype not in EIGHT_BIT_FLOATS or scale.count != 1:
            raise BadCheckpoint(
                f"{name}: stored in a quantized form that is not supported; "
                "bring bfloat16, fp8 (plain or scaled) or GGUF"
            )
        plain[name] = Stored(weight.shape, torch.bfloat16, partial(_expanded, weight, scale), "scaled fp8")
    return plain


def _expanded(weight: Stored, scale: Stored) -> Tensor:
    return (weight.read().float() * scale.read().float().reshape(())).to(torch.bfloat16)


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
    except Exception as error:  # the package raises whatever it meets in a damaged file
        raise BadCheckpoint(f"{path.name}: not a GGUF file, or damaged or truncated ({error})") from None
    weights = {tensor.name: _gguf_tensor(gguf, tensor) for tensor in reader.tensors}
    field = reader.get_field(METADATA_KEY)
    return weights, {} if field is None else {"kontext": str(field.contents())}


def _gguf_tensor(gguf: Any, tensor: Any) -> Stored:
    shape = tuple(int(n) for n in reversed(tensor.shape))
    exact = {"F32": torch.float32, "F16": torch.float16}.get(tensor.tensor_type.name)

    def read() -> Tensor:
        if exact is not None:
            return torch.tensor(tensor.data).reshape(shape)
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(numbers).reshape(shape).to(torch.bfloat16)

    return Stored(shape, exact or torch.bfloat16, read, "" if exact else tensor.tensor_type.name)


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
