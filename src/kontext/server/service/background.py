"""Background tasks that are finished before the service stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Keeps references to running tasks, as asyncio itself does not."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self, timeout_seconds: float) -> None:
        """Wait until all tasks have ended, for at most `timeout_seconds`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)
