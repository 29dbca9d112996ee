"""Thread pools that decode and encode pictures.

Small, to limit memory, and separate from the pool for database access, so that pictures never delay other
requests.
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
THREADS = 2  # per pool
MAX_PENDING = 64  # large pictures running or waiting, all owners
MAX_IMPORTS_PER_KEY = 4  # imports running or waiting per key; one runs at a time

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


class Decoders:
    """Two pools, so that small pictures do not wait for large ones."""

    def __init__(self) -> None:
        self._small = ThreadPoolExecutor(THREADS, thread_name_prefix="small-picture")
        self._large = ThreadPoolExecutor(THREADS, thread_name_prefix="large-picture")
        self._waiting = 0
        self._imports: Counter[str] = Counter()
        self._import_locks: dict[str, asyncio.Lock] = {}

    def check_capacity(self, pixels: int) -> None:
        """Raises QueueFull if too many large pictures are waiting."""
        if pixels > SMALL_PIXELS and self._waiting >= MAX_PENDING:
            raise QueueFull("too many large pictures at once; try again in a moment")

    async def run(
        self,
        pixels: int,
        work: Callable[Arguments, Outcome],
        *args: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Outcome:
        """Run `work`, which decodes or encodes a picture of `pixels` pixels; returns its result."""
        loop = asyncio.get_running_loop()
        if pixels <= SMALL_PIXELS:
            return await loop.run_in_executor(self._small, lambda: work(*args, **named))

        def large() -> Outcome:
            try:
                return work(*args, **named)
            finally:
                give_back()

        self._waiting += 1
        try:
            return await loop.run_in_executor(self._large, large)
        finally:
            self._waiting -= 1

    async def run_import(self, owner: str, work: Callable[[], Outcome]) -> Outcome:
        """Run `work`, which imports a session file; one at a time per owner. Raises QueueFull."""
        if self._imports[owner] >= MAX_IMPORTS_PER_KEY:
            raise QueueFull(
                f"{MAX_IMPORTS_PER_KEY} imports are running or waiting; try again when one has finished"
            )
        self.check_capacity(SMALL_PIXELS + 1)
        self._imports[owner] += 1
        try:
            async with self._import_locks.setdefault(owner, asyncio.Lock()):
                return await self.run(SMALL_PIXELS + 1, work)
        finally:
            self._imports[owner] -= 1
            if not self._imports[owner]:
                del self._imports[owner], self._import_locks[owner]

    def close(self) -> None:
        self._small.shutdown(wait=False, cancel_futures=True)
        self._large.shutdown(wait=False, cancel_futures=True)
