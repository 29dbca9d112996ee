"""Contexts computed ahead: an edit of a picture starts sooner when the workers know the picture."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from kontext.errors import NotFound, Unavailable
from kontext.server.errors import WorkerDied
from kontext.server.jobs.queue import Job
from kontext.server.service.background import Background
from kontext.server.workers.executor import Worker
from kontext.server.workers.worker import Failure
from kontext.session import Store

MAX_PREFILLS = 512


class Prefills:
    """Prefilled pictures by sha256; a picture is computed once."""

    def __init__(self, store: Store, workers: Sequence[Worker], background: Background) -> None:
        self.store, self.workers, self.background = store, workers, background
        self._tasks: OrderedDict[str, asyncio.Task[float | None]] = OrderedDict()

    def clear(self) -> None:
        """Forget all: a worker was started."""
        self._tasks.clear()

    async def prefill(self, sha256: str) -> asyncio.Task:
        """Precompute the context of a stored picture in all workers; the task returns the seconds it took."""
        task = self._tasks.get(sha256)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result() is None)):
            self._tasks[sha256] = task = self.background.start(self._prefill(sha256))
            while len(self._tasks) > MAX_PREFILLS:
                self._tasks.popitem(last=False)
        return task

    async def _prefill(self, sha256: str) -> float | None:
        try:
            data = await asyncio.to_thread(self.store.blobs.get, sha256)
            replies = await asyncio.gather(*(worker.prefill(data) for worker in self.workers if worker.alive))
        except (WorkerDied, Unavailable):
            return None
        seconds = [reply for reply in replies if not isinstance(reply, Failure)]
        return max(seconds, default=None)

    async def prefill_turn(self, job: Job) -> None:
        """Prefill the picture of the turn that a job created."""
        try:
            session = await asyncio.to_thread(self.store.open, job.session_id or "")
            await self.prefill(session.tree.find(job.id).blobs["picture"][0])
        except (NotFound, Unavailable):
            pass  # deleted already, or the storage failed, which the next edit reports
