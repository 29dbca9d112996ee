"""What is between the products of a block in training, as autograd functions on the kernels.

Matrices have one row per token. The rows of a batch of sequences lie in two pieces (`Layout`), so that text
and picture are contiguous each, and both together. Streams, modulations and biases are float32; what products
take and give has the type of the products, bfloat16 or float32. Biases of products are added here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kontext.kernels.library import Kernels
from kontext.kernels.structures import (
    GELU,
    NORM,
    RESIDUAL,
    Gelu,
    Norm,
    Residual,
)

Gradients = tuple[Tensor | None, ...]


class Layout(NamedTuple):
    """Sequences of `rows` tokens: first the `first` rows of every sequence, then the other rows of each."""

    items: int
    rows: int
    first: int = 0

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of both pieces in memory."""
        return self.items * self.first, self.items * (self.rows - self.first)


@dataclass(frozen=True)
class Passes:
    """The kernels, and the type of the products: the backend that computes with it."""

    kernels: Kernels
    dtype: torch.dtype

    def rows(self, kind: int, layout: Layout, width: int, backward: bool) -> dict[str, int]:
        """The fields that all jobs share."""
        bfloat16 = self.dtype == torch.bfloat16
        return {
            "kind": kind,
            "bfloat16": bfloat16,
            "backward": backward,
            **layout._asdict(),
            "width": width,
        }


class ModulatedNorm(torch.autograd.Function):
    """x, and shift + factor * layer_norm(x). Modulations are (items or 1, width).

    x is also a result so that the gradient of what is added to it arrives here, too.
    """

    @staticmethod
    def forward(ctx: Any, passes: Passes, layout: Layout, x: Tensor, shift: Tensor, factor: Tensor) -> Any:  # type: ignore[override]
        normed = torch.empty_like(x, dtype=passes.dtype)
        job = Norm(
            **passes.rows(NORM, layout, x.shape[1], False),
            x=x.data_ptr(),
            shift=shift.data_ptr(),
            factor=factor.data_ptr(),
            modulation_item=_step(shift),
            normed=normed.data_ptr(),
        )
        passes.kernels.run([job])
        ctx.inputs = passes, layout
        ctx.save_for_backward(x, factor)
        return x, normed

    @staticmethod
    def backward(ctx: Any, residual_gradient: Tensor, gradient: Tensor) -> Gradients:  # type: ignore[override]
        passes, layout = ctx.inputs
        x, factor = ctx.saved_tensors
        gradient, residual_gradient = gradient.contiguous(), residual_gradient.contiguous()
        x_gradient, sums = torch.empty_like(x), x.new_empty(2, layout.items, x.shape[1])
        job = Norm(
            **passes.rows(NORM, layout, x.shape[1], True),
            x=x.data_ptr(),
            factor=factor.data_ptr(),
            modulation_item=_step(factor),
            normed=gradient.data_ptr(),
            residual_gradient=residual_gradient.data_ptr(),
            x_gradient=x_gradient.data_ptr(),
            shift_sums=sums[0].data_ptr(),
            factor_sums=sums[1].data_ptr(),
        )
        passes.kernels.run([job])
        return None, None, x_gradient, _like(factor, sums[0]), _like(factor, sums[1])


class GatedResidual(torch.autograd.Function):
    """x + gate * (y + bias)."""

    @staticmethod
    def forward(
        ctx: Any, passes: Passes, layout: Layout, x: Tensor, y: Tensor, bias: Tensor, gate: Tensor
    ) -> Tensor:  # type: ignore[override]
        out = torch.empty_like(x)
        job = Residual(
            **passes.rows(RESIDUAL, layout, x.shape[1], False),
            x=x.data_ptr(),
            gate=gate.data_ptr(),
            bias=bias.data_ptr(),
            gate_item=_step(gate),
            y=y.data_ptr(),
            out=out.data_ptr(),
        )
        passes.kernels.run([job])
        ctx.inputs = passes, layout
        ctx.save_for_backward(y, bias, gate)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:  # type: ignore[override]
        passes, layout = ctx.inputs
        y, bias, gate = ctx.saved_tensors
        gradient = gradient.contiguous()
        y_gradient, sums = torch.empty_like(y), gate.new_empty(2, layout.items, y.shape[1])
        job = Residual(
            **passes.rows(RESIDUAL, layout, y.shape[1], True),
            x=gradient.data_ptr(),
            gate=gate.data_ptr(),
            bias=bias.data_ptr(),
            gate_item=_step(gate),
            y=y.data_ptr(),
            y_gradient=y_gradient.data_ptr(),
            gate_sums=sums[0].data_ptr(),
            y_sums=sums[1].data_ptr(),
        )
        passes.kernels.run([job])
        return None, None, gradient, y_gradient, sums[1].sum(0), _like(gate, sums[0])


class BiasedGelu(torch.autograd.Function):
    """gelu(x + bias)."""

    @staticmethod
    def forward(ctx: Any, passes: Passes, layout: Layout, x: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        out = torch.empty_like(x)
        passes.kernels.run([gelu_job(passes, layout, x, bias, out)])
        ctx.inputs = passes, layout
        ctx.save_for_backward(x, bias)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:  # type: ignore[override]
        passes, layout = ctx.inputs
        x, bias = ctx.saved_tensors
        x_gradient, sums = torch.empty_like(x), bias.new_empty(layout.items, x.shape[1])
        passes.kernels.run([gelu_job(passes, layout, x, bias, gradient.contiguous(), x_gradient, sums)])
        return None, None, x_gradient, sums.sum(0)


def gelu_job(
    passes: Passes,
    layout: Layout,
    x: Tensor,
    bias: Tensor,
    out: Tensor,
    x_gradient: Tensor | None = None,
    sums: Tensor | None = None,
) -> Gelu:
    """out = gelu(x + bias), or, with x_gradient, backward: out is its gradient. sums (items, width)."""
    job = Gelu(
        **passes.rows(GELU, layout, x.shape[1], x_gradient is not None),
        x=x.data_ptr(),
        bias=bias.data_ptr(),
        x_row=x.stride(0),
        out=out.data_ptr(),
        out_row=out.stride(0),
    )
    if x_gradient is not None and sums is not None:
        job.x_gradient, job.x_gradient_row = x_gradient.data_ptr(), x_gradient.stride(0)
        job.x_sums = sums.data_ptr()
    return job


def _step(modulation: Tensor) -> int:
    """Numbers from one item to the next; 0 where all share one."""
    return modulation.stride(0) if modulation.shape[0] > 1 else 0


def _like(modulation: Tensor, sums: Tensor) -> Tensor:
    """Sums (items, width), over the items where all share one modulation."""
    return sums if modulation.shape[0] > 1 else sums.sum(0, keepdim=True)
