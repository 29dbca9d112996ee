"""The threads in which pictures are decoded and encoded: few, for the sake of memory, and apart from those
that look up keys and rows, so that no picture makes another request wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from kontext.memory import give_back
from kontext.server.errors import QueueFull

SMALL_PIXELS = 4 * 2**20
THREADS = 2  # for small pictures, and as many again for large ones
WAITING = 64  # large pictures at work or waiting, of everybody
WAITING_OF_ONE = 4  # imports at work or waiting, of one key; one at a time is at work

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class Decoders:
    """Two lanes, so that a small picture does not wait for large ones."""

    def __init__(self) -> None:
        self._small = ThreadPoolExecutor(THREADS, thread_name_prefix="small-picture")
        self._large = ThreadPoolExecutor(THREADS, thread_name_prefix="large-picture")
        self._waiting = 0
        self._imports: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Lock] = {}

    def check_room(self, pixels: int) -> None:
        """Raises QueueFull where too many large pictures wait already."""
        if pixels > SMALL_PIXELS and self._waiting >= WAITING:
            raise QueueFull("too many large pictures at a time; try again in a moment")

    async def run(
        self,
        pixels: int,
        work: Callable[Arguments, Answer],
        *given: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Answer:
        """What `work` answers, which decodes or encodes a picture of so many pixels."""
        loop = asyncio.get_running_loop()
        if pixels <= SMALL_PIXELS:
            return await loop.run_in_executor(self._small, lambda: work(*given, **named))

        def large() -> Answer:
            try:
                return work(*given, **named)
            finally:
                give_back()

        self._waiting += 1
        try:
            return await loop.run_in_executor(self._large, large)
        finally:
            self._waiting -= 1

    async def run_import(self, owner: str, work: Callable[[], Answer]) -> Answer:
        """What `work` answers, which reads a whole file of sessions: one at a time for each owner.

        Raises QueueFull.
        """
        if self._imports[owner] >= WAITING_OF_ONE:
            raise QueueFull(f"{WAITING_OF_ONE} imports are at work or waiting; try again when one is done")
        self.check_room(SMALL_PIXELS + 1)
        self._imports[owner] += 1
        try:
            async with self._turns.setdefault(owner, asyncio.Lock()):
                return await self.run(SMALL_PIXELS + 1, work)
        finally:
            self._imports[owner] -= 1
            if not self._imports[owner]:
                del self._imports[owner], self._turns[owner]

    def close(self) -> None:
        self._small.shutdown(wait=False, cancel_futures=True)
        self._large.shutdown(wait=False, cancel_futures=True)
