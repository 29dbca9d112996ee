"""Changes of a module's weights, from the tensors of an adapter.

LoRA, DoRA, LoHa, LoKr, differences and replaced tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from kontext.checkpoint.tensors import LazyTensor
from kontext.errors import BadCheckpoint
from kontext.model.lora import Change, Delta, FullDelta, Hadamard, Kronecker, LowRank, SwappedHalves

Factor = Callable[[int | None], float]
"""alpha / rank for the rank of a module's matrices, which is None if they have no rank."""


def changes(
    module: str, tensors: Mapping[str, LazyTensor], factor: Factor, swap: bool
) -> Iterator[tuple[str, Change]]:
    """The changes in a module's tensors (by word, see `lora_names`): ("weight" or "bias", change).

    swap: swap the halves of all rows. Raises BadCheckpoint for tensors that do not fit together.
    """
    matrices = {word: _squeezed(tensor.read()) for word, tensor in tensors.items() if word != "alpha"}
    if "mid" in matrices:
        raise BadCheckpoint(f"{module} has a Tucker core, which only convolutions have; not for this model")
    delta, rank = _delta(module, matrices)
    if delta is not None:
        scaled: Delta = replace(delta, factor=factor(rank))
        magnitude = matrices.get("magnitude")
        if magnitude is not None:
            magnitude = _magnitude(module, magnitude, delta.shape, swap)
        yield "weight", Change(_swapped(scaled, swap), magnitude=magnitude)
    if "bias" in matrices:
        yield "bias", _plain(matrices["bias"].float() * (factor(rank) if delta else 1.0), swap)
    for word in ("add weight", "add bias", "set weight", "set bias"):
        if word in matrices:
            kind, _, target = word.partition(" ")
            yield target, _plain(matrices[word], swap, replaces=kind == "set")


def _squeezed(tensor: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix."""
    if tensor.ndim > 2 and set(tensor.shape[2:]) == {1}:
        return tensor.reshape(tensor.shape[:2])
    return tensor


def _plain(value: Tensor, swap: bool, replaces: bool = False) -> Change:
    return Change(FullDelta(_swapped_rows(value.reshape(1) if not value.ndim else value, swap)), replaces)


def _swapped(delta: Delta, swap: bool) -> Delta:
    if swap and isinstance(delta, LowRank):
        return replace(delta, up=_swapped_rows(delta.up, swap))
    return SwappedHalves(delta) if swap else delta


def _swapped_rows(tensor: Tensor, swap: bool) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1]) if swap else tensor


def _magnitude(module: str, magnitude: Tensor, shape: tuple[int, ...], swap: bool) -> Tensor:
    rows, columns = shape
    magnitude = magnitude.float()
    if magnitude.ndim == 1 or magnitude.shape == (rows, 1):
        magnitude = _swapped_rows(magnitude.reshape(-1, 1), swap)
    if magnitude.shape not in ((rows, 1), (1, columns)):
        raise BadCheckpoint(
            f"{module}: DoRA magnitudes of shape {tuple(magnitude.shape)} do not fit {rows}x{columns}"
        )
    return magnitude


def _delta(
    module: str, tensors: Mapping[str, Tensor]
) -> tuple[LowRank | Hadamard | Kronecker | None, int | None]:
    """The delta of the small matrices, before scaling, and their rank."""
    if tensors.keys() & {"down", "up"}:
        _need(module, tensors, "down", "up")
        return _low_rank(module, tensors["up"], tensors["down"]), tensors["down"].shape[0]
    if any(word.startswith("hada_") for word in tensors):
        _need(module, tensors, *(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b")))
        first = _low_rank(module, tensors["hada_w1_a"], tensors["hada_w1_b"])
        second = _low_rank(module, tensors["hada_w2_a"], tensors["hada_w2_b"])
        if first.shape != second.shape:
            raise BadCheckpoint(f"{module}: the two products of its LoHa differ in shape")
        return Hadamard(first, second), tensors["hada_w1_b"].shape[0]
    if any(word.startswith("lokr_") for word in tensors):
        left, rank = _kronecker_part(module, tensors, "w1")
        right, other_rank = _kronecker_part(module, tensors, "w2")
        return Kronecker(left, right), other_rank or rank
    return None, None


def _kronecker_part(
    module: str, tensors: Mapping[str, Tensor], name: str
) -> tuple[LowRank | FullDelta, int | None]:
    if f"lokr_{name}" not in tensors:
        _need(module, tensors, f"lokr_{name}_a", f"lokr_{name}_b")
        a, b = tensors[f"lokr_{name}_a"], tensors[f"lokr_{name}_b"]
        return _low_rank(module, a, b), b.shape[0]
    matrix = tensors[f"lokr_{name}"]
    if matrix.ndim != 2:
        raise BadCheckpoint(f"{module}: lokr_{name} must be a matrix, got shape {tuple(matrix.shape)}")
    return FullDelta(matrix), None


def _low_rank(module: str, up: Tensor, down: Tensor) -> LowRank:
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0] or not math.prod(down.shape):
        raise BadCheckpoint(
            f"{module}: its matrices {_by(up)} and {_by(down)} cannot be multiplied; the file is damaged"
        )
    return LowRank(up, down)


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "of a single number"


def _need(module: str, tensors: Mapping[str, Tensor], *words: str) -> None:
    absent = [word for word in words if word not in tensors]
    if absent:
        raise BadCheckpoint(f"{module} lacks its matrix {' and '.join(absent)}; the file is incomplete")
