"""Positions of queued jobs, published as events when they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from kontext.server.jobs.queue import Queue
from kontext.server.service.event_bus import EventBus, topics

log = logging.getLogger(__name__)

POSITION_SECONDS = 0.1  # between two updates of the queue positions
POSITION_DELAY = 0.02  # before an update: a job that starts immediately needs no position
POLL_SECONDS = 1.0  # between polls for jobs submitted or requeued by other servers


class Positions:
    """Where each queued job stands."""

    def __init__(self, queue: Queue, event_bus: EventBus) -> None:
        self.queue, self.event_bus = queue, event_bus
        self.by_job: dict[str, int] = {}  # by job id; 1 is next
        self.rows: dict[str, Any] = {}  # rows of the same jobs
        self._left: set[str] = set()  # jobs that left the queue since its last update began
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Publish new queue positions soon; many changes are published together."""
        self._changed.set()

    def discard(self, job_ids: Iterable[str]) -> None:
        """These jobs were started or cancelled: they have no position any more."""
        for job_id in job_ids:
            self._left.add(job_id)
            self.rows.pop(job_id, None)

    async def run(self) -> None:
        while True:
            with suppress(TimeoutError):  # other servers change the queue as well
                async with asyncio.timeout(POLL_SECONDS if self.by_job else None):
                    await self._changed.wait()
            await asyncio.sleep(POSITION_DELAY)
            self._changed.clear()
            self._left.clear()
            try:
                waiting = await asyncio.to_thread(self.queue.waiting)
            except Exception:
                log.exception("the queue could not be read")
                waiting = []
            # A job that has left the queue in the meantime gets no event after its terminal one.
            waiting = [row for row in waiting if row.id not in self._left]
            positions = {row.id: position for position, row in enumerate(waiting, start=1)}
            before, self.by_job = self.by_job, positions
            self.rows = {row.id: row for row in waiting}
            for row in waiting:
                if before.get(row.id) != positions[row.id]:
                    for topic in topics(row):
                        self.event_bus.publish(topic, "queued", job=row.id, position=positions[row.id])
            await asyncio.sleep(POSITION_SECONDS)
