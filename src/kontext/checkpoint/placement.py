"""Placement of a model's matrices: device and type, decided before any is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kontext.checkpoint.layouts import empty_module
from kontext.checkpoint.names import PARTS
from kontext.checkpoint.tensors import LazyTensor, Weights
from kontext.model.fp8 import Fp8Linear, multiplies_in_fp8
from kontext.model.linear import StoredEmbedding, StoredLinear, StoredWeight
from kontext.model.stored import EIGHT_BIT_FLOATS, PLAIN, StoredMatrix, check_finite, joined_dense
from kontext.model.streaming import WeightStream


@dataclass(frozen=True)
class Placement:
    """How the networks of a model are placed on a device."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    """Type of computation, by part. Default: that of the file, with 8-bit floats and float16 as bfloat16."""
    expanded: bool = True
    """Whether matrices are converted to the type of computation when loaded. False: when used."""
    streamed: frozenset[str] = frozenset()
    """Modules, such as `transformer.double_blocks.3` or `t5`, whose matrices stay in their file and are read
    at each use.
    """

    pinned_bytes: int = 0
    """Page-locked memory of the host for what is streamed to a GPU."""
    fp8: bool = False
    """Whether the linear layers of the transformer's blocks multiply in 8-bit floats."""

    @classmethod
    def of(cls, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Placement:
        """Everything on one device in one type, except T5: bfloat16 instead of float16, which overflows."""
        dtypes = {} if dtype is None else dict.fromkeys(PARTS, dtype)
        if dtype == torch.float16:
            dtypes["t5"] = torch.bfloat16
        return cls(torch.device(device), dtypes)

    def streams(self, module: str) -> bool:
        """Whether a module, by its dotted path from the part on, is streamed."""
        names = module.split(".")
        return any(".".join(names[: i + 1]) in self.streamed for i in range(len(names)))


def build(part: str, config: Any, weights: Weights, placement: Placement | None = None) -> Any:
    """Build a network from weights, tensor by tensor, according to a placement.

    Raises BadCheckpoint if weights that are read now contain NaN or infinity.
    """
    placement = placement or Placement()
    dtype = placement.dtypes.get(part)
    module = empty_module(part, config)
    in_fp8 = fp8_weights(weights) if part == "transformer" and placement.fp8 else frozenset()
    stored = {
        stem: tensor
        for name, tensor in weights.items()
        for stem, _, word in [name.rpartition(".")]
        if word == "weight"
        and (
            name in in_fp8 or _is_kept(module.get_submodule(stem), tensor, f"{part}.{stem}", dtype, placement)
        )
    }
    for stem in stored:
        module.get_submodule(stem).register_parameter("weight", None)
    rest = {
        name: _read(tensor, _type(tensor, dtype), placement.device)
        for name, tensor in weights.items()
        if not (name.endswith(".weight") and name.removesuffix(".weight") in stored)
    }
    module.load_state_dict(rest, strict=True, assign=True)
    for stem, tensor in stored.items():
        kind = Fp8Linear if f"{stem}.weight" in in_fp8 else StoredLinear
        layer = _stored_layer(
            module.get_submodule(stem), stem, tensor, _type(tensor, dtype), placement.device, kind
        )
        if isinstance(layer, StoredLinear):
            layer.streamed = bool(tensor.parts) and placement.streams(f"{part}.{stem}")
            if not layer.streamed:
                layer.make_resident()
        module.set_submodule(stem, layer)
    if any(layer.streamed for layer in module.modules() if isinstance(layer, StoredLinear)):
        holder: Any = module.encoder if part == "t5" else module
        holder.stream = WeightStream(placement.device, placement.pinned_bytes)
    return module.eval().requires_grad_(False)


def fp8_weights(transformer: Weights) -> frozenset[str]:
    """Names of the transformer's weights that can be multiplied in 8-bit floats."""
    return frozenset(name for name, tensor in transformer.items() if multiplies_in_fp8(name, tensor.shape))


def _type(tensor: LazyTensor, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is not None:
        return dtype
    return torch.bfloat16 if tensor.dtype in (*EIGHT_BIT_FLOATS, torch.float16) else tensor.dtype


def _is_kept(
    layer: nn.Module, tensor: LazyTensor, path: str, dtype: torch.dtype | None, placement: Placement
) -> bool:
    """Whether a layer's matrix stays as stored in the file."""
    if not tensor.parts or not isinstance(layer, nn.Linear | nn.Embedding):
        return False
    if isinstance(layer, nn.Embedding):  # few of its rows are used
        return placement.streams(path) and len(tensor.parts) == 1
    if placement.streams(path):
        return True
    same = all(part.format is PLAIN for part in tensor.parts) and tensor.dtype == _type(tensor, dtype)
    return not placement.expanded and not same


def _stored_layer(
    layer: nn.Module,
    name: str,
    tensor: LazyTensor,
    dtype: torch.dtype,
    device: torch.device,
    kind: type[StoredLinear],
) -> StoredWeight:
    if isinstance(layer, nn.Embedding):
        return StoredEmbedding(tensor.parts, dtype, device)
    assert isinstance(layer, nn.Linear)
    # A tensor whose numbers change when it is read, as by a merged LoRA, is not a matrix of a file.
    whole = StoredMatrix(tensor.shape, PLAIN, (tensor.read,), tensor.bytes, f"{name}.weight")
    return kind(tensor.parts or (whole,), layer.bias, dtype, device)


def _read(tensor: LazyTensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A copy of a tensor in the type of computation, on the device."""
    if not tensor.parts or all(part.format is PLAIN for part in tensor.parts):
        return tensor.read().to(device, dtype, copy=True)
    raws = [tuple(raw.to(device) for raw in part.raw()) for part in tensor.parts]
    numbers = joined_dense(tensor.parts, dtype, raws)  # dequantizing on the device is faster than on the CPU
    for part, raw in zip(tensor.parts, raws):
        check_finite(part.name, *raw)
    check_finite(tensor.parts[0].name, numbers)
    return numbers
