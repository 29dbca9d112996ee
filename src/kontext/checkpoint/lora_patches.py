"""Changes of a matrix by an adapter.

LoRA (arXiv:2106.09685), DoRA (arXiv:2402.09353), LoHa and LoKr (arXiv:2309.14859), added differences, and
replaced tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kontext.checkpoint.tensors import LazyTensor
from kontext.errors import BadCheckpoint

Factor = Callable[[int | None], float]
"""alpha / rank for the rank of a module's matrices, which is None if they have no rank."""


@dataclass(frozen=True)
class Patch:
    """A change of consecutive rows of one of our tensors."""

    shape: tuple[int, ...]
    value: Callable[[], Tensor]
    """The rows to add, or to replace with: float32 of `shape`."""
    replaces: bool = False
    magnitude: Tensor | None = None
    """DoRA: the norms that the rows (rows, 1) or columns (1, columns) have after the change."""
    first_row: int = 0

    def applied(self, weight: Tensor, scale: float) -> Tensor:
        """Apply the change to a float32 tensor in place."""
        rows = weight[self.first_row : self.first_row + self.shape[0]]
        value = self.value().to(weight.device)
        if self.magnitude is not None:
            magnitude = self.magnitude.to(weight.device)
            changed = rows + value
            norm = changed.norm(dim=1 if len(magnitude) == len(rows) else 0, keepdim=True)
            rows.copy_(torch.lerp(rows, changed * (magnitude / norm), scale))
        elif self.replaces:
            rows.copy_(torch.lerp(rows, value, scale))
        else:
            rows += scale * value
        return weight


def patches(
    module: str, tensors: Mapping[str, LazyTensor], factor: Factor, swap: bool
) -> Iterator[tuple[str, Patch]]:
    """The changes in a module's tensors (by word, see `lora_names`): ("weight" or "bias", patch).

    swap: swap the halves of all rows. Raises BadCheckpoint for tensors that do not fit together.
    """
    matrices = {word: _squeezed(tensor.read()) for word, tensor in tensors.items() if word != "alpha"}
    if "mid" in matrices:
        raise BadCheckpoint(f"{module} has a Tucker core, which only convolutions have; not for this model")
    delta, rank = _delta(module, matrices)
    if delta is not None:
        shape, product = delta
        scale = factor(rank)
        magnitude = matrices.get("magnitude")
        if magnitude is not None:
            magnitude = _magnitude(module, magnitude, shape, swap)

        def change() -> Tensor:
            return _swapped(scale * product(), swap)

        yield "weight", Patch(shape, change, magnitude=magnitude)
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


def _plain(value: Tensor, swap: bool, replaces: bool = False) -> Patch:
    if not value.ndim:
        value = value.reshape(1)
    return Patch(tuple(value.shape), lambda: _swapped(value.float(), swap), replaces)


def _swapped(tensor: Tensor, swap: bool) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1]) if swap else tensor


def _magnitude(module: str, magnitude: Tensor, shape: tuple[int, ...], swap: bool) -> Tensor:
    rows, columns = shape
    magnitude = magnitude.float()
    if magnitude.ndim == 1 or magnitude.shape == (rows, 1):
        magnitude = _swapped(magnitude.reshape(-1, 1), swap)
    if magnitude.shape not in ((rows, 1), (1, columns)):
        raise BadCheckpoint(
            f"{module}: DoRA magnitudes of shape {tuple(magnitude.shape)} do not fit {rows}x{columns}"
        )
    return magnitude


Product = tuple[tuple[int, ...], Callable[[], Tensor]]


def _delta(module: str, tensors: Mapping[str, Tensor]) -> tuple[Product | None, int | None]:
    """Shape and product of the small matrices before scaling, and their rank."""
    if tensors.keys() & {"down", "up"}:
        _need(module, tensors, "down", "up")
        return _product(module, tensors["up"], tensors["down"]), tensors["down"].shape[0]
    if any(word.startswith("hada_") for word in tensors):
        _need(module, tensors, *(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b")))
        shape, first = _product(module, tensors["hada_w1_a"], tensors["hada_w1_b"])
        other_shape, second = _product(module, tensors["hada_w2_a"], tensors["hada_w2_b"])
        if other_shape != shape:
            raise BadCheckpoint(f"{module}: the two products of its LoHa differ in shape")
        return (shape, lambda: first() * second()), tensors["hada_w1_b"].shape[0]
    if any(word.startswith("lokr_") for word in tensors):
        (shape, first), rank = _kronecker(module, tensors, "w1")
        (other, second), other_rank = _kronecker(module, tensors, "w2")
        shape_of_product = (shape[0] * other[0], shape[1] * other[1])
        return (shape_of_product, lambda: torch.kron(first(), second())), other_rank or rank
    return None, None


def _kronecker(module: str, tensors: Mapping[str, Tensor], name: str) -> tuple[Product, int | None]:
    if f"lokr_{name}" not in tensors:
        _need(module, tensors, f"lokr_{name}_a", f"lokr_{name}_b")
        a, b = tensors[f"lokr_{name}_a"], tensors[f"lokr_{name}_b"]
        return _product(module, a, b), b.shape[0]
    matrix = tensors[f"lokr_{name}"]
    if matrix.ndim != 2:
        raise BadCheckpoint(f"{module}: lokr_{name} must be a matrix, got shape {tuple(matrix.shape)}")
    return (tuple(matrix.shape), lambda: matrix.float()), None


def _product(module: str, up: Tensor, down: Tensor) -> Product:
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0] or not math.prod(down.shape):
        raise BadCheckpoint(
            f"{module}: its matrices {_by(up)} and {_by(down)} cannot be multiplied; the file is damaged"
        )
    return (up.shape[0], down.shape[1]), lambda: up.float() @ down.float()


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "of a single number"


def _need(module: str, tensors: Mapping[str, Tensor], *words: str) -> None:
    absent = [word for word in words if word not in tensors]
    if absent:
        raise BadCheckpoint(f"{module} lacks its matrix {' and '.join(absent)}; the file is incomplete")
