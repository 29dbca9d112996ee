"""Streams weights to the device: the next block is copied while the current one computes.

At most two blocks are on the device at a time, the current and the next one. On CUDA they are copied on a
separate stream; on a CPU the file is read ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import nn

from kontext.model.linear import StoredWeight

M = TypeVar("M", bound=nn.Module)
PAGE_BYTES = 4096


def whole_module(module: nn.Module) -> Iterable[nn.Module]:
    return (module,)


class WeightStream:
    """Copies streamed weights to a device in the order of their use."""

    def __init__(self, device: torch.device):
        self.device = device
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weights")
        self._side: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["device"])  # type: ignore[misc]

    def in_turn(
        self, modules: Sequence[M], used: Callable[[M], Iterable[nn.Module]] = whole_module
    ) -> Iterator[M]:
        """Iterate over modules, each with its streamed weights on the device until the next is requested.

        used: the parts of a module that are about to be used.
        """
        groups = [_streamed(used(module)) for module in modules]
        order = [i for i, group in enumerate(groups) if group]
        if not order:
            yield from modules
            return
        following = dict(zip(order, order[1:]))
        coming = {order[0]: self._start(groups[order[0]])}
        try:
            for i, module in enumerate(modules):
                if groups[i]:
                    self._wait(groups[i], coming.pop(i))
                    if i in following:
                        coming[following[i]] = self._start(groups[following[i]])
                yield module
                _release(groups[i])
        finally:
            for i, future in coming.items():  # the loop was left early
                future.exception()
                _release(groups[i])
            _release([layer for group in groups for layer in group])

    def _start(self, layers: list[StoredWeight]) -> Future[Any]:
        return self._pool.submit(self._fetch, layers)

    def _fetch(self, layers: list[StoredWeight]) -> Any:
        """Start to copy or read ahead; returns the event of completed copies."""
        if self.device.type == "cpu":
            for layer in layers:
                _read_ahead(layer)
            return None
        if self.device.type != "cuda":
            for layer in layers:
                layer.fetch()
            return None
        if self._side is None:
            self._side = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._side):
            for layer in layers:
                layer.fetch(non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._side)
        return event

    def _wait(self, layers: list[StoredWeight], future: Future[Any]) -> None:
        event = future.result()
        if event is None:
            return
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for layer in layers:
            for raw in layer.raw_tensors():
                raw.record_stream(current)


def _streamed(modules: Iterable[nn.Module]) -> list[StoredWeight]:
    return [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, StoredWeight) and layer.streamed
    ]


def _release(layers: list[StoredWeight]) -> None:
    for layer in layers:
        layer.release()


def _read_ahead(layer: StoredWeight) -> None:
    """Read a file's pages into the system's cache."""
    for part in layer.parts:
        for raw in part.raw():
            if raw.is_contiguous():
                raw.reshape(-1).view(torch.uint8)[::PAGE_BYTES].sum()
