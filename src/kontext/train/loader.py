"""Training examples from worker processes through shared memory: no data set on disk, no pickled pictures.

A producer is a picklable callable: seed -> {field: array}, always of the same shapes. Workers fill slots of
shared memory with blocks of examples; the trainer copies a slot and returns it to the free list. Without
workers the examples are produced in the caller's process, in the order of their seeds.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import shared_memory
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

SHARED = Path("/dev/shm")
"""Where Linux keeps shared memory."""

WORKER_NICENESS = 5
"""Workers give way to the trainer, which keeps a GPU busy from a single thread."""

Example = Mapping[str, np.ndarray]
Producer = Callable[[int], Example]
Fields = dict[str, tuple[Any, ...]]
"""The shape of each array of a block, followed by the name of its type."""


class ExampleLoader:
    """Batches of examples, each seed once, from `workers` processes or the caller's own."""

    def __init__(self, producer: Producer, *, workers: int, first_seed: int, block: int = 16, slots: int = 8):
        """first_seed: of the first example; a resumed run passes the saved seed to get new examples.

        block: examples per slot; slots: number of shared-memory slots, reduced to what fits.
        """
        self.producer, self.workers, self.block = producer, workers, block
        self.seed = first_seed
        self._blocks: list[dict[str, np.ndarray]] = []
        if workers:
            self._start(max(slots, 2 * workers))

    def take(self, count: int) -> dict[str, np.ndarray]:
        """`count` examples, stacked by field. Raises RuntimeError when a worker has died."""
        if not self.workers:
            examples = [self.producer(self.seed + i) for i in range(count)]
            self.seed += count
            return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
        while sum(len(next(iter(b.values()))) for b in self._blocks) < count:
            self._blocks.append(self._next_block())
        first, *rest = self._blocks
        joined = {name: np.concatenate([b[name] for b in self._blocks]) for name in first} if rest else first
        left = len(next(iter(joined.values()))) - count
        self._blocks = [{name: value[count:] for name, value in joined.items()}] if left else []
        self.seed += count
        return {name: value[:count] for name, value in joined.items()}

    def blocks_ready(self) -> int:
        """Number of filled blocks; 0 means that the trainer waits for the workers."""
        return self._full.qsize() if self.workers else 1

    def close(self) -> None:
        if self.workers:
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                process.join()
            for memory in self._memories:
                memory.close()
                memory.unlink()
            self.workers = 0

    def _start(self, slots: int) -> None:
        sample = self.producer(self.seed)
        self._fields = {name: (self.block, *value.shape, value.dtype.str) for name, value in sample.items()}
        bytes_needed = sum(_size(field) for field in self._fields.values())
        if SHARED.is_dir():  # containers often have 64 MiB: more than fits kills a worker when it writes
            slots = max(2, min(slots, int(0.9 * shutil.disk_usage(SHARED).free) // bytes_needed))
        context = multiprocessing.get_context("spawn")
        self._memories = [shared_memory.SharedMemory(create=True, size=bytes_needed) for _ in range(slots)]
        self._views = [_views(memory, self._fields) for memory in self._memories]
        self._free, self._full = context.Queue(), context.Queue()
        for slot in range(slots):
            self._free.put(slot)
        names = [memory.name for memory in self._memories]
        self._processes = [
            context.Process(
                target=_produce,
                args=(
                    self.producer,
                    self._fields,
                    names,
                    self._free,
                    self._full,
                    self.seed + i,
                    self.workers,
                ),
                daemon=True,
            )
            for i in range(self.workers)
        ]
        for process in self._processes:
            process.start()

    def _next_block(self) -> dict[str, np.ndarray]:
        while True:
            try:
                slot = self._full.get(timeout=1)
                break
            except queue.Empty:
                dead = [p.exitcode for p in self._processes if not p.is_alive()]
                if dead:
                    raise RuntimeError(
                        f"a worker that produces training examples has died (exit code {dead[0]})"
                    ) from None
        block = {name: view.copy() for name, view in self._views[slot].items()}
        self._free.put(slot)
        return block


T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Prepares blocks of examples in a thread of its own, for a trainer that must not wait for them."""

    def __init__(
        self,
        loader: ExampleLoader,
        prepare: Callable[[dict[str, np.ndarray]], T],
        count: int,
        depth: int = 2,
    ):
        """prepare: applied to every `count` examples of the loader; depth: results that are kept ready."""
        self._loader, self._prepare, self._count = loader, prepare, count
        self._ready: queue.Queue[T] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take_ready(self) -> T | None:
        """The oldest prepared examples; None when there are none yet. Raises what preparing them raised."""
        try:
            return self._ready.get_nowait()
        except queue.Empty:
            if self._error is not None:
                raise self._error from None
            return None

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                prepared = self._prepare(self._loader.take(self._count))
                while not self._stopped.is_set():
                    try:
                        self._ready.put(prepared, timeout=0.2)
                        break
                    except queue.Full:
                        continue
        except Exception as error:  # raised in the trainer's thread
            self._error = error


def _size(field: tuple) -> int:
    *shape, kind = field
    return -(-int(np.prod(shape)) * np.dtype(kind).itemsize // 64) * 64


def _views(memory: shared_memory.SharedMemory, fields: Fields) -> dict[str, np.ndarray]:
    views, start = {}, 0
    for name, field in fields.items():
        *shape, kind = field
        views[name] = np.ndarray(shape, kind, buffer=memory.buf, offset=start)
        start += _size(field)
    return views


def _produce(
    producer: Producer,
    fields: Fields,
    names: Sequence[str],
    free: Queue[int],
    full: Queue[int],
    seed: int,
    stride: int,
) -> None:
    os.nice(WORKER_NICENESS)
    memories = [shared_memory.SharedMemory(name=name) for name in names]
    slots = [_views(memory, fields) for memory in memories]
    while True:
        slot = free.get()
        for i in range(next(iter(fields.values()))[0]):
            for name, value in producer(seed).items():
                slots[slot][name][i] = value
            seed += stride
        full.put(slot)
