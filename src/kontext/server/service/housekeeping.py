"""What the service does besides edits: leases, storage checks, webhooks, cleanup."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from kontext.errors import Unavailable
from kontext.server.jobs.queue import Job, Queue
from kontext.server.jobs.views import task_view
from kontext.server.service.outputs import sample_path
from kontext.server.service.results import Results
from kontext.server.service.scheduler import Scheduler
from kontext.server.service.webhooks import deliver
from kontext.server.settings import Settings
from kontext.session import Store

log = logging.getLogger(__name__)

WEBHOOK_SECONDS = 1.0  # between polls for due webhooks
CLEAN_UP_SECONDS = 3600.0
STORAGE_SECONDS = 3.0  # between two storage checks
STORAGE_ANSWER_SECONDS = 3.0  # timeout of a storage check


class Housekeeping:
    """Loops that run as long as the service."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        queue: Queue,
        secret: bytes,
        *,
        scheduler: Scheduler,
        results: Results,
    ) -> None:
        self.settings, self.store, self.queue, self.secret = settings, store, queue, secret
        self.scheduler, self.results = scheduler, results
        self.storage_error: str | None = None

    def loops(self) -> list[Coroutine[None, None, None]]:
        return [self._heartbeat(), self._webhooks(), self._clean_up(), self._watch_storage()]

    async def _heartbeat(self) -> None:
        while True:
            try:
                before = set(self.scheduler.running)
                failed, still_held = await asyncio.to_thread(
                    self.queue.heartbeat, before | self.results.concluding
                )
                for job_id in before - still_held:
                    self.scheduler.stop_running(job_id)  # cancelled by another server
                for job_id in failed:
                    await self.results.publish_stored_end(job_id)
            except Exception:
                log.exception("the heartbeat failed")
            await asyncio.sleep(self.settings.lease_seconds / 4)

    async def _watch_storage(self) -> None:
        """Keep `storage_error` up to date."""
        while True:
            probe = asyncio.create_task(asyncio.to_thread(self.store.probe))
            if not (await asyncio.wait([probe], timeout=STORAGE_ANSWER_SECONDS))[0]:
                self.storage_error = "the database does not answer"
            try:
                await probe
                self.storage_error = None
            except Unavailable as error:
                self.storage_error = str(error)
            except Exception:
                log.exception("the storage check failed")
                self.storage_error = "the storage is not available"
            await asyncio.sleep(STORAGE_SECONDS)

    async def _webhooks(self) -> None:
        while True:
            try:
                due = await asyncio.to_thread(self.queue.due_webhooks)
                await asyncio.gather(*(self._deliver_webhook(job) for job in due))
            except Exception:
                log.exception("webhooks failed")
            await asyncio.sleep(WEBHOOK_SECONDS)

    async def _deliver_webhook(self, job: Job) -> None:
        origin = self.settings.public_base or job.request.output.origin
        sample = origin + sample_path(self.secret, job, self.settings.sample_seconds)
        if await deliver(job, task_view(job, sample), self.settings):
            await asyncio.to_thread(self.queue.delivered, job)

    async def _clean_up(self) -> None:
        while True:
            await asyncio.sleep(CLEAN_UP_SECONDS)
            try:
                days = dict(job_days=self.settings.job_days, upload_days=self.settings.upload_days)
                await asyncio.to_thread(self.queue.expire, **days)
            except Exception:
                log.exception("the cleanup failed")
