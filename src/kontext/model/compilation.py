"""The transformer's blocks compiled by torch.compile, for fixed shapes.

Equal blocks share one graph, whose inputs include their weights. A graph is compiled at the first use of a
shape: of canvas, contexts, length of text and batch. CUDA graphs (mode "reduce-overhead") would overwrite
keys and values that are kept from step to step.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from kontext.errors import DeviceUnavailable
from kontext.model.attention_guidance import AttentionGuidance
from kontext.model.blocks import (
    ContextKVRecorder,
    DoubleStreamBlock,
    KeysValues,
    Modulated,
    Modulation,
    SingleStreamBlock,
)
from kontext.model.fp8 import Fp8Linear
from kontext.model.linear import StoredWeight

RECOMPILE_LIMIT = 32
"""Graphs of one function, of all shapes and uses together; torch's default is 8. Further ones run eagerly."""


def compile_failure(device: torch.device) -> str | None:
    """Why a sum cannot be compiled on this device, in one line; None: it can.

    It needs a C++ compiler on a CPU, and Triton and a C compiler on a GPU.
    """
    number = secrets.randbelow(2**30)  # part of the source, so that no cache of an earlier process answers
    try:
        torch.compile(lambda x: x + number, dynamic=False)(torch.ones(16, device=device))
    except Exception as error:  # of any part of the compiler's tool chain
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None


def check_compile(device: torch.device) -> None:
    """Raise DeviceUnavailable if blocks cannot be compiled on a device."""
    advice = "load the model without compile"
    if device.type not in ("cuda", "cpu"):
        raise DeviceUnavailable(f"compile needs CUDA or a CPU; got {device.type}: {advice}")
    failure = compile_failure(device)
    if failure is not None:
        raise DeviceUnavailable(f"torch.compile does not work on {device} ({failure}); {advice}")


def raise_recompile_limit() -> None:
    """Allow torch to compile as many graphs of one function as blocks need."""
    import torch._dynamo  # takes seconds to import

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)


class BlockCalls:
    """Calls blocks: some of them compiled, all others eagerly."""

    def __init__(self, compiled: Iterable[nn.Module] = ()) -> None:
        self.compiled = frozenset(compiled)
        self._double, self._single = _double, _single
        self._double_context, self._single_context = _double_context, _single_context
        if self.compiled:
            raise_recompile_limit()
            self._double, self._single = _compiled(_double), _compiled(_single)
            self._double_context = _compiled(_double_context)
            self._single_context = _compiled(_single_context)

    def double(
        self,
        block: DoubleStreamBlock,
        picture: Tensor,
        text: Tensor,
        picture_mod: tuple[Modulated, ...],
        text_mod: tuple[Modulated, ...],
        rotary: Tensor,
        prefix: KeysValues | None = None,
        recorder: ContextKVRecorder | None = None,
        guidance: AttentionGuidance | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The forward pass of a double block; with guidance it runs eagerly."""
        if block not in self.compiled or guidance is not None:
            return block(picture, text, picture_mod, text_mod, rotary, prefix, recorder, guidance)
        start = None if recorder is None else recorder.start
        picture, text, *recorded = self._double(
            block, picture, text, picture_mod, text_mod, rotary, prefix, start
        )
        if recorder is not None:
            recorder.blocks += recorded
        return picture, text

    def single(
        self,
        block: SingleStreamBlock,
        x: Tensor,
        mod: tuple[Modulated, ...],
        rotary: Tensor,
        prefix: KeysValues | None = None,
        query_rows: slice | None = None,
        recorder: ContextKVRecorder | None = None,
        guide: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The forward pass of a single block; with guidance it runs eagerly."""
        if block not in self.compiled or guide is not None:
            return block(x, mod, rotary, prefix, query_rows, recorder, guide)
        rows = None if query_rows is None else (query_rows.start, query_rows.stop)
        start = None if recorder is None else recorder.start
        x, *recorded = self._single(block, x, mod, rotary, prefix, rows, start)
        if recorder is not None:
            recorder.blocks += recorded
        return x

    def double_context(
        self, block: DoubleStreamBlock, picture: Tensor, picture_mod: tuple[Modulated, ...], rotary: Tensor
    ) -> tuple[Tensor, KeysValues]:
        """The context of a double block."""
        run = self._double_context if block in self.compiled else _double_context
        return run(block, picture, picture_mod, rotary)

    def single_context(
        self,
        block: SingleStreamBlock,
        x: Tensor,
        mod: tuple[Modulated, ...],
        rotary: Tensor,
        last: bool = False,
    ) -> tuple[Tensor, KeysValues]:
        """The context of a single block."""
        run = self._single_context if block in self.compiled else _single_context
        return run(block, x, mod, rotary, last)


def can_be_compiled(block: nn.Module) -> bool:
    """Whether no weight is streamed, or expanded from its file's type at each use."""
    return not any(
        isinstance(layer, StoredWeight) and not (isinstance(layer, Fp8Linear) and layer.resident)
        for part in block.children()
        if not isinstance(part, Modulation)  # it is computed before the blocks
        for layer in part.modules()
    )


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)


# What is compiled: functions of a block, numbers and tensors. A recorder, which changes, is made inside.


def _double(
    block: DoubleStreamBlock,
    picture: Tensor,
    text: Tensor,
    picture_mod: tuple[Modulated, ...],
    text_mod: tuple[Modulated, ...],
    rotary: Tensor,
    prefix: KeysValues | None,
    start: int | None,
) -> tuple[Any, ...]:
    recorder = None if start is None else ContextKVRecorder(start)
    updated = block.forward(picture, text, picture_mod, text_mod, rotary, prefix, recorder)
    return updated if recorder is None else (*updated, recorder.blocks[0])


def _single(
    block: SingleStreamBlock,
    x: Tensor,
    mod: tuple[Modulated, ...],
    rotary: Tensor,
    prefix: KeysValues | None,
    rows: tuple[int, int] | None,
    start: int | None,
) -> tuple[Any, ...]:
    recorder = None if start is None else ContextKVRecorder(start)
    query_rows = None if rows is None else slice(*rows)
    x = block.forward(x, mod, rotary, prefix, query_rows, recorder)
    return (x,) if recorder is None else (x, recorder.blocks[0])


def _double_context(
    block: DoubleStreamBlock, picture: Tensor, picture_mod: tuple[Modulated, ...], rotary: Tensor
) -> tuple[Tensor, KeysValues]:
    return block.context(picture, picture_mod, rotary)


def _single_context(
    block: SingleStreamBlock, x: Tensor, mod: tuple[Modulated, ...], rotary: Tensor, last: bool
) -> tuple[Tensor, KeysValues]:
    return block.context(x, mod, rotary, last)


EAGER = BlockCalls()
