"""Linear layers and embeddings that keep weights in the type of their file and expand them when used.

They replace `nn.Linear` and `nn.Embedding`: `in_features`, `out_features`, `bias`, `weight` and the call have
the same meaning, but `weight` is computed each time it is read. Code that needs only a part of it uses
`weight_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.model.stored import PLAIN, Raw, StoredMatrix, check_finite, joined_dense


class StoredWeight(nn.Module):
    """A matrix of one or several stacked parts (queries, keys and values in separate tensors).

    The raw tensors are read from the host at each use and copied to the device, unless `fetch` has placed
    them there until `release`.
    """

    def __init__(self, parts: Sequence[StoredMatrix], dtype: torch.dtype, device: torch.device | str = "cpu"):
        super().__init__()
        self.parts = tuple(parts)
        self.dtype, self.device = dtype, torch.device(device)
        """Type and device of the computation."""
        self._raws: tuple[Raw, ...] | None = None
        self._checked = False

    @property
    def shape(self) -> tuple[int, int]:
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    @property
    def bytes(self) -> int:
        """Size of the raw tensors."""
        return sum(part.bytes for part in self.parts)

    @property
    def is_fetched(self) -> bool:
        return self._raws is not None

    @property
    def weight(self) -> Tensor:
        """The whole matrix (rows, columns). Raises BadCheckpoint for NaN and infinity."""
        return self.exact_weight

    @property
    def exact_weight(self) -> Tensor:
        """The matrix as its file has it, also where the layer computes with rounded numbers."""
        pieces = self._pieces()
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def weight_rows(self, rows: slice) -> Tensor:
        """Some rows of `weight`."""
        parts, raws = self._cut(rows)
        return joined_dense(parts, self.dtype, raws)

    def _cut(self, rows: slice) -> tuple[list[StoredMatrix], list[Raw] | None]:
        """The parts of some rows, and their raw tensors on the device; None for the host."""
        start, stop, _ = rows.indices(self.shape[0])
        parts: list[StoredMatrix] = []
        raws: list[Raw] = []
        first = 0
        for i, part in enumerate(self.parts):
            own = max(0, start - first), min(part.shape[0], stop - first)
            first += part.shape[0]
            if own[0] >= own[1]:
                continue
            parts.append(part.rows(*own))
            if self._raws is not None:
                raws.append(tuple(raw[own[0] : own[1]] if raw.ndim else raw for raw in self._raws[i]))
        return parts, raws or self._read(parts)

    def fetch(self, non_blocking: bool = False) -> None:
        """Copy the raw tensors to the device and keep them there."""
        self._raws = tuple(
            tuple(raw.to(self.device, non_blocking=non_blocking) for raw in part.raw()) for part in self.parts
        )

    def release(self) -> None:
        """Free the copies of `fetch`."""
        self._raws = None

    def raw_tensors(self) -> list[Tensor]:
        """The copies of `fetch`."""
        return [raw for raws in self._raws or () for raw in raws]

    def _read(self, parts: Sequence[StoredMatrix]) -> list[Raw] | None:
        """The raw tensors on the device; None for the host, where they are read part by part."""
        if self.device.type == "cpu":
            return None
        return [tuple(raw.to(self.device) for raw in part.raw()) for part in parts]

    def _pieces(self) -> list[Tensor]:
        """`weight`, or its parts if those can be used without a copy."""
        raws = self._read(self.parts) if self._raws is None else self._raws
        if all(part.format is PLAIN for part in self.parts) and len(self.parts) > 1:
            each = [part.raw() for part in self.parts] if raws is None else raws
            if all(raw[0].dtype == self.dtype for raw in each):
                return self._checked_pieces([raw[0] for raw in each], raws)
        return self._checked_pieces([joined_dense(self.parts, self.dtype, raws)], raws)

    def _checked_pieces(self, pieces: list[Tensor], raws: Sequence[Raw] | None) -> list[Tensor]:
        if not self._checked:
            first = 0
            for i, part in enumerate(self.parts):
                if len(pieces) > 1:
                    numbers = pieces[i]
                else:
                    numbers = pieces[0][first : first + part.shape[0]]
                check_finite(part.name, numbers, *(part.raw() if raws is None else raws[i]))
                first += part.shape[0]
            self._checked = True
        return pieces


class StoredLinear(StoredWeight):
    """y = x W^T + b."""

    def __init__(
        self,
        parts: Sequence[StoredMatrix],
        bias: Tensor | None,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ):
        super().__init__(parts, dtype, device)
        self.out_features, self.in_features = self.shape
        self.streamed = False
        """Whether the raw tensors stay on the host, and visit the device when they are used."""
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def make_resident(self) -> None:
        """Keep the weight on the device, to stay there."""
        self.fetch()

    def pin(self) -> None:
        """Read the raw tensors into page-locked memory of the host, to stay there."""
        self.parts = tuple(part.pinned() for part in self.parts)

    def forward(self, x: Tensor) -> Tensor:
        pieces = self._pieces()
        if len(pieces) == 1:
            return F.linear(x, pieces[0], self.bias)
        rows = [len(piece) for piece in pieces]
        biases = [None] * len(pieces) if self.bias is None else self.bias.split(rows)
        return torch.cat([F.linear(x, piece, bias) for piece, bias in zip(pieces, biases)], dim=-1)

    def output_rows(self, x: Tensor, rows: slice) -> Tensor:
        """Some of the outputs, (..., len(rows))."""
        if rows == slice(None):
            return self(x)
        bias = None if self.bias is None else self.bias[rows]
        return F.linear(x, self.weight_rows(rows), bias)


class StoredEmbedding(StoredWeight):
    """Rows of a matrix by index. The matrix stays on the host; only the requested rows are copied."""

    def forward(self, ids: Tensor) -> Tensor:
        (part,) = self.parts
        index = ids.flatten().cpu()
        raw = tuple(each[index] if each.ndim else each for each in part.raw())
        numbers = joined_dense([part.rows(0, len(index))], self.dtype, [raw])
        check_finite(part.name, numbers, *raw)
        return numbers.to(self.device).view(*ids.shape, -1)


@runtime_checkable
class RowLayer(Protocol):
    """A linear layer that gives some rows of its weight, or of its output, alone."""

    def weight_rows(self, rows: slice) -> Tensor: ...
    def output_rows(self, x: Tensor, rows: slice) -> Tensor: ...


def weight_rows(layer: nn.Module, rows: slice) -> Tensor:
    """Some rows of the weight of a linear layer: plain, stored or adapted."""
    if isinstance(layer, RowLayer):
        return layer.weight_rows(rows)
    assert isinstance(layer.weight, Tensor)
    return layer.weight[rows]


def linear_rows(layer: nn.Module, x: Tensor, rows: slice) -> Tensor:
    """Some of the outputs of a linear layer, (..., len(rows)): plain, stored or adapted."""
    if rows == slice(None):
        output: Tensor = layer(x)
        return output
    if isinstance(layer, RowLayer):
        return layer.output_rows(x, rows)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    return F.linear(x, weight[rows], bias[rows] if isinstance(bias, Tensor) else None)
