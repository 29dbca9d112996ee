"""Streams weights to the device: the next block is copied while the current one computes.

At most two blocks are on the device at a time, the current and the next one. On CUDA they are copied on a
separate stream; on a CPU the file is read ahead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import nn

from kontext.model.linear import StoredLinear

log = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)
PAGE_BYTES = 4096


def whole_module(module: nn.Module) -> Iterable[nn.Module]:
    return (module,)


class WeightStream:
    """Copies streamed weights to a device in the order of their use.

    pinned_bytes: page-locked host memory for copies of the weights, which are transferred to a GPU faster
    than from a file.
    """

    def __init__(self, device: torch.device, pinned_bytes: int = 0):
        self.device, self.pinned_bytes = device, pinned_bytes
        self._pinned: set[int] = set()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weights")
        self._side: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"device": self.device, "pinned_bytes": self.pinned_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

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

    def settle(self) -> None:
        """Wait until copies that were started are complete."""
        self._pool.submit(int).result()

    def _start(self, layers: list[StoredLinear]) -> Future[Any]:
        return self._pool.submit(self._fetch, layers)

    def _fetch(self, layers: list[StoredLinear]) -> Any:
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
                self._pin(layer)
                layer.fetch(non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._side)
        return event

    def _pin(self, layer: StoredLinear) -> None:
        """Keep a layer in page-locked memory if there is room."""
        if id(layer) in self._pinned or layer.bytes > self.pinned_bytes:
            return
        try:
            layer.pin()
        except RuntimeError as error:  # the system does not lock that much
            log.info("no more page-locked memory: %s", str(error))
            self.pinned_bytes = 0
            return
        self._pinned.add(id(layer))
        self.pinned_bytes -= layer.bytes

    def _wait(self, layers: list[StoredLinear], future: Future[Any]) -> None:
        event = future.result()
        if event is None:
            return
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for layer in layers:
            for raw in layer.raw_tensors():
                raw.record_stream(current)


def _streamed(modules: Iterable[nn.Module]) -> list[StoredLinear]:
    return [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, StoredLinear) and layer.streamed
    ]


def _release(layers: list[StoredLinear]) -> None:
    for layer in layers:
        layer.release()


def _read_ahead(layer: StoredLinear) -> None:
    """Read a file's pages into the system's cache."""
    for part in layer.parts:
        for raw in part.raw():
            if raw.is_contiguous():
                raw.reshape(-1).view(torch.uint8)[::PAGE_BYTES].sum()
