"""Changes of weights by adapters: merged into a matrix, or computed in a branch of the layer.

LoRA (arXiv:2106.09685), DoRA (arXiv:2402.09353), LoHa and LoKr (arXiv:2309.14859), added differences and
replaced tensors. `AdaptedLinear` wraps a linear layer, plain or quantized, whose own weights do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.model.linear import linear_rows, weight_rows


class Delta(Protocol):
    """A tensor to add, as a few small matrices."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def dense(self) -> Tensor:
        """The tensor, float32 of `shape`."""

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """x (..., columns) times the transpose of some rows: (..., len(rows))."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The small matrices."""

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same rule for the results of a function of each small matrix."""


@dataclass(frozen=True)
class LowRank:
    """factor * up @ down, with up (rows, rank) and down (rank, columns)."""

    up: Tensor
    down: Tensor
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.up.shape[0], self.down.shape[1]

    def dense(self) -> Tensor:
        return self.factor * (self.up.float() @ self.down.float())

    def product(self, x: Tensor, rows: slice) -> Tensor:
        return F.linear(self.factor * F.linear(x, self.down), self.up[rows])

    def tensors(self) -> tuple[Tensor, ...]:
        return self.up, self.down

    def mapped(self, function: Callable[[Tensor], Tensor]) -> LowRank:
        return replace(self, up=function(self.up), down=function(self.down))


@dataclass(frozen=True)
class FullDelta:
    """factor * a tensor of the full shape."""

    value: Tensor
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def dense(self) -> Tensor:
        return self.factor * self.value.float()

    def product(self, x: Tensor, rows: slice) -> Tensor:
        return self.factor * F.linear(x, self.value[rows])

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.value,)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> FullDelta:
        return replace(self, value=function(self.value))


@dataclass(frozen=True)
class Hadamard:
    """factor * left * right, element by element (LoHa)."""

    left: LowRank
    right: LowRank
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.left.shape

    def dense(self) -> Tensor:
        return self.factor * (self.left.dense() * self.right.dense())

    def product(self, x: Tensor, rows: slice) -> Tensor:
        left, right = self.left.up[rows] @ self.left.down, self.right.up[rows] @ self.right.down
        return F.linear(x, left.mul_(right).mul_(self.factor * self.left.factor * self.right.factor))

    def tensors(self) -> tuple[Tensor, ...]:
        return *self.left.tensors(), *self.right.tensors()

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Hadamard:
        return replace(self, left=self.left.mapped(function), right=self.right.mapped(function))


@dataclass(frozen=True)
class Kronecker:
    """factor * the Kronecker product of two matrices (LoKr)."""

    left: LowRank | FullDelta
    right: LowRank | FullDelta
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        (rows, columns), (more_rows, more_columns) = self.left.shape, self.right.shape
        return rows * more_rows, columns * more_columns

    def dense(self) -> Tensor:
        return self.factor * torch.kron(self.left.dense(), self.right.dense())

    def product(self, x: Tensor, rows: slice) -> Tensor:
        blocks = x.unflatten(-1, (self.left.shape[1], self.right.shape[1]))
        inner = self.right.product(blocks, slice(None))  # (..., columns of left, rows of right)
        outer = self.left.product(inner.transpose(-1, -2), slice(None))  # (..., rows of right, rows of left)
        return self.factor * outer.transpose(-1, -2).flatten(-2)[..., rows]

    def tensors(self) -> tuple[Tensor, ...]:
        return *self.left.tensors(), *self.right.tensors()

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Kronecker:
        return replace(self, left=self.left.mapped(function), right=self.right.mapped(function))


@dataclass(frozen=True)
class SwappedHalves:
    """A delta with the second half of its rows first."""

    delta: Delta

    @property
    def shape(self) -> tuple[int, ...]:
        return self.delta.shape

    def dense(self) -> Tensor:
        return torch.cat(self.delta.dense().chunk(2)[::-1])

    def product(self, x: Tensor, rows: slice) -> Tensor:
        product = self.delta.product(x, slice(None))
        return torch.cat(product.chunk(2, dim=-1)[::-1], dim=-1)[..., rows]

    def tensors(self) -> tuple[Tensor, ...]:
        return self.delta.tensors()

    def mapped(self, function: Callable[[Tensor], Tensor]) -> SwappedHalves:
        return SwappedHalves(self.delta.mapped(function))


@dataclass(frozen=True)
class Change:
    """A change of consecutive rows of a tensor."""

    delta: Delta
    """The rows to add, or with `replaces` the rows to interpolate to."""
    replaces: bool = False
    magnitude: Tensor | None = None
    """DoRA: the norms of the rows (rows, 1) or columns (1, columns) after the change, float32."""
    first_row: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.delta.shape

    @property
    def bytes(self) -> int:
        magnitude = () if self.magnitude is None else (self.magnitude,)
        return sum(tensor.nbytes for tensor in (*self.delta.tensors(), *magnitude))

    def cloned(self) -> Change:
        """A copy that does not depend on the file that it was read from."""
        magnitude = None if self.magnitude is None else self.magnitude.clone()
        return replace(self, delta=self.delta.mapped(torch.clone), magnitude=magnitude)

    def to(self, device: torch.device, dtype: torch.dtype) -> Change:
        """The change on a device, its matrices in the type of the computation."""
        return replace(self, delta=self.delta.mapped(lambda tensor: tensor.to(device, dtype)))

    def applied(self, weight: Tensor, scale: float) -> Tensor:
        """Apply the change to a float32 tensor in place."""
        rows = weight[self.first_row : self.first_row + self.shape[0]]
        value = self.delta.dense().to(weight.device)
        if self.magnitude is not None:
            changed = rows + value
            rows.copy_(torch.lerp(rows, changed * self._gain(changed), scale))
        elif self.replaces:
            rows.copy_(torch.lerp(rows, value, scale))
        else:
            rows += scale * value
        return weight

    def gain(self, rows: Tensor) -> Tensor:
        """DoRA: the factor of the changed rows or columns; `rows` are the rows before the change."""
        return self._gain(rows.float() + self.delta.dense().to(rows.device))

    def _gain(self, changed: Tensor) -> Tensor:
        assert self.magnitude is not None
        magnitude = self.magnitude.to(changed.device)
        return magnitude / changed.norm(dim=1 if magnitude.shape[1] == 1 else 0, keepdim=True)


Gain = Callable[[int, Callable[[], Tensor]], Tensor]
"""The gain of the i-th change of a layer, computed by the callable unless it is cached."""


class AdaptedLinear(nn.Module):
    """A linear layer with changes in a branch: y = x (W + s1 D1 + s2 D2 + ...)^T + b.

    base: an `nn.Linear` or a `StoredLinear`, which does not change. changes: applied in this order, each with
    its scale. bias: the changed bias.
    """

    def __init__(
        self,
        base: nn.Module,
        changes: Sequence[tuple[Change, float]],
        bias: Tensor | None,
        gain: Gain = lambda index, compute: compute(),
    ):
        super().__init__()
        self.base, self.changes = base, tuple(changes)
        layer: Any = base
        self.in_features: int = layer.in_features
        self.out_features: int = layer.out_features
        self._base_bias: Tensor | None = layer.bias
        self._bias, self._gain = bias, gain

    @property
    def bias(self) -> Tensor | None:
        return self._bias

    @property
    def weight(self) -> Tensor:
        """The matrix with all changes, in the type of the base."""
        return self.weight_rows(slice(None))

    def weight_rows(self, rows: slice) -> Tensor:
        """Some rows of `weight`."""
        dtype = weight_rows(self.base, slice(0, 1)).dtype
        return self._dense(len(self.changes))[rows].to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_rows(x, slice(None))

    def output_rows(self, x: Tensor, rows: slice) -> Tensor:
        """Some of the outputs, (..., len(rows))."""
        y = self._after(x, rows, len(self.changes))
        if self._bias is not None and self._bias is not self._base_bias:
            assert self._base_bias is not None
            y += self._bias[rows] - self._base_bias[rows]
        return y

    def _after(self, x: Tensor, rows: slice, count: int) -> Tensor:
        """Outputs after the first `count` changes, with the base's bias."""
        if not count:
            return linear_rows(self.base, x, rows)
        change, scale = self.changes[count - 1]
        y = self._after(x, rows, count - 1)
        start, stop, _ = rows.indices(self.out_features)
        first, last = change.first_row, change.first_row + change.shape[0]
        own = slice(max(start, first), min(stop, last))
        if own.start >= own.stop:
            return y
        own_y = y[..., own.start - start : own.stop - start]
        own_rows = slice(own.start - first, own.stop - first)  # of the change
        if change.magnitude is not None:
            gain = self._gain(count - 1, lambda: change.gain(self._dense(count - 1)[first:last])).to(x.dtype)
            product = self._without_bias(own_y, own)
            if gain.shape[1] == 1:
                changed = gain[own_rows, 0] * (product + change.delta.product(x, own_rows))
            else:
                scaled = gain[0] * x
                changed = self._without_bias(self._after(scaled, own, count - 1), own)
                changed = changed + change.delta.product(scaled, own_rows)
            own_y.add_(changed - product, alpha=scale)
        elif change.replaces:
            product = self._without_bias(own_y, own)
            own_y.add_(change.delta.product(x, own_rows) - product, alpha=scale)
        else:
            own_y.add_(change.delta.product(x, own_rows), alpha=scale)
        return y

    def _without_bias(self, y: Tensor, rows: slice) -> Tensor:
        return y.clone() if self._base_bias is None else y - self._base_bias[rows]

    def _dense(self, count: int) -> Tensor:
        """The matrix after the first `count` changes, float32."""
        weight = weight_rows(self.base, slice(None)).float().clone()
        for change, scale in self.changes[:count]:
            weight = change.applied(weight, scale)
        return weight
