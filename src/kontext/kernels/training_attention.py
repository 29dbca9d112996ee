"""Attention in training as an autograd function on the kernels.

With the norms and rotations of queries and keys, and with the GELU of the MLP that a single-stream block
runs in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kontext.kernels.structures import TRAINING_ATTENTION, MatrixChunks, TrainingAttention
from kontext.kernels.training_passes import Gradients, Layout, Passes, gelu_job


@dataclass(frozen=True)
class HeadLayout:
    """What attention depends on apart from tensors with gradients."""

    passes: Passes
    layout: Layout
    count: int
    rotary: Tensor
    """(rows, head_width / 2, 2), or one table for each item, (items, rows, head_width / 2, 2)."""
    start: int = 0
    """Rows of a sequence before this one only provide keys and values."""
    shares_kv: bool = False
    """Whether keys and values are results, too, as the prefix of others."""


class FusedAttention(torch.autograd.Function):
    """Softmax attention of queries, keys and values as products left them, and GELU of the columns behind.

    h has the rows of both pieces, or of the second if `first_h` has those of the first; its columns are
    queries, keys and values (keys and values where no row is a query), then the hidden layer of an MLP.
    Each bias is that of all columns. scales: (queries and keys, pieces, head_width). Keys and values of the
    prefix: (b, heads, n, head_width), each of the b for as many adjacent sequences.

    Results: for every given h with queries the attended values and the hidden columns behind them; then keys
    and values if they are shared.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        heads: HeadLayout,
        h: Tensor,
        bias: Tensor,
        first_h: Tensor | None,
        first_bias: Tensor | None,
        scales: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
    ) -> tuple[Tensor, ...]:
        layout, width = heads.layout, heads.count * scales.shape[-1]
        results = [
            x.new_empty(x.shape[0], x.shape[1] - 2 * width)
            for x in (first_h, h)
            if x is not None and x.shape[1] > 2 * width
        ]
        softmax = scales.new_empty(layout.items, heads.count, layout.rows, 2)
        job = _job(heads, h, bias, first_h, first_bias, scales, keys, values, results, softmax)
        shared = []
        if heads.shares_kv:
            shape = (layout.items, heads.count, layout.rows, scales.shape[-1])
            shared = [h.new_empty(shape), h.new_empty(shape)]
            job.keys, job.values = (x.data_ptr() for x in shared)
        jobs: list[Any] = [job]
        if h.shape[1] > 3 * width:
            out = results[-1][:, width:]
            jobs.append(gelu_job(heads.passes, _rows_of(heads, h), h[:, 3 * width :], bias[3 * width :], out))
        heads.passes.kernels.run(jobs)
        ctx.heads = heads
        ctx.save_for_backward(h, bias, first_h, first_bias, scales, keys, values, softmax)
        return (*results, *shared)

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Gradients:  # type: ignore[override]
        h, bias, first_h, first_bias, scales, keys, values, softmax = ctx.saved_tensors
        heads: HeadLayout = ctx.heads
        layout, width = heads.layout, heads.count * scales.shape[-1]
        incoming = tuple(gradient.contiguous() for gradient in incoming)
        of_results, of_shared = (incoming[:-2], incoming[-2:]) if heads.shares_kv else (incoming, ())
        h_gradient = torch.empty_like(h)
        first_h_gradient, keys_gradient, values_gradient = (
            None if x is None else torch.empty_like(x) for x in (first_h, keys, values)
        )
        job = _job(heads, h, bias, first_h, first_bias, scales, keys, values, of_results, softmax)
        job.backward = True
        if of_shared:
            job.keys, job.values = (x.data_ptr() for x in of_shared)
        job.qkv_gradient = _pieces(layout, h_gradient, first_h_gradient, width)
        scale_sums = scales.new_empty(layout.items, heads.count, *scales.shape)
        sums = scales.new_empty(layout.items, 2, 3 * width)
        job.scale_sums, job.qkv_sums = scale_sums.data_ptr(), sums.data_ptr()
        if keys_gradient is not None and values_gradient is not None:
            job.prefix_keys_gradient = keys_gradient.data_ptr()
            job.prefix_values_gradient = values_gradient.data_ptr()
        jobs: list[Any] = [job]
        rows, hidden = _rows_of(heads, h), slice(3 * width, None)
        hidden_sums = scales.new_empty(rows.items, max(0, h.shape[1] - 3 * width))
        if hidden_sums.shape[1]:
            out = of_results[-1][:, width:]
            jobs.append(
                gelu_job(
                    heads.passes, rows, h[:, hidden], bias[hidden], out, h_gradient[:, hidden], hidden_sums
                )
            )
        heads.passes.kernels.run(jobs)
        first_sums, other_sums = sums.sum(0)
        if first_h is None:
            other_sums = other_sums + first_sums
        bias_gradient = torch.cat((other_sums, hidden_sums.sum(0)))[-bias.shape[0] :]
        first_bias_gradient = None if first_h is None else first_sums[-first_bias.shape[0] :]
        return (
            None,
            h_gradient,
            bias_gradient,
            first_h_gradient,
            first_bias_gradient,
            scale_sums.sum((0, 1)),
            keys_gradient,
            values_gradient,
        )


def _rows_of(heads: HeadLayout, h: Tensor) -> Layout:
    """The layout of the rows of h."""
    return Layout(heads.layout.items, h.shape[0] // heads.layout.items)


def _job(heads: HeadLayout, h, bias, first_h, first_bias, scales, keys, values, results, softmax):  # type: ignore[no-untyped-def]
    """What both ways have in common; results: or their gradients."""
    layout, width = heads.layout, heads.count * scales.shape[-1]
    job = TrainingAttention(
        **heads.passes.rows(TRAINING_ATTENTION, layout, scales.shape[-1], False),
        heads=heads.count,
        start=heads.start,
        sharing=1,
        qkv=_pieces(layout, h, first_h, width),
        query_scale=scales[0].data_ptr(),
        key_scale=scales[1].data_ptr(),
        rotary=heads.rotary.data_ptr(),
        rotary_item=heads.rotary.stride(0) if heads.rotary.dim() > 3 else 0,
        softmax=softmax.data_ptr(),
    )
    for i, x in enumerate((bias if first_bias is None else first_bias, bias)):
        job.bias[i] = _queries(x, width)
    if results:
        job.out = _pieces(layout, results[-1], results[0] if len(results) > 1 else None)
    if keys is not None:
        job.prefix, job.sharing = keys.shape[2], layout.items // keys.shape[0]
        job.prefix_keys, job.prefix_values = keys.data_ptr(), values.data_ptr()
    return job


def _pieces(layout: Layout, matrix: Tensor, first: Tensor | None, width: int = 0) -> MatrixChunks:
    """Addresses of both pieces: of one matrix, unless the first has its own.

    width: of queries; matrices with twice as many columns have none.
    """
    at = _queries(matrix, width)
    boundary = layout.items * layout.first
    if first is not None or matrix.shape[0] == layout.items * (layout.rows - layout.first):
        first_at, first_row = (0, 0) if first is None else (_queries(first, width), first.stride(0))
        return MatrixChunks((first_at, at), (first_row, matrix.stride(0)))
    row = matrix.stride(0)
    return MatrixChunks((at, at + boundary * row * matrix.element_size()), (row, row))


def _queries(x: Tensor, width: int) -> int:
    """The address of the queries, or where they would be in front of keys and values."""
    missing = width if width and x.shape[-1] == 2 * width else 0
    return x.data_ptr() - missing * x.element_size()
