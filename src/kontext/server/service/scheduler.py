"""Gives batches of jobs to workers, and restarts workers that die."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Sequence
from typing import Any

from kontext.engine.batching import BatchShape
from kontext.errors import BadRequest, KontextError
from kontext.server.errors import CannotLoad, WorkerDied
from kontext.server.jobs.batching import JobShape, batch_key, output_size
from kontext.server.jobs.queue import Job, Queue
from kontext.server.service.background import Background
from kontext.server.service.event_bus import EventBus, topics
from kontext.server.service.positions import POLL_SECONDS, Positions
from kontext.server.service.prefills import Prefills
from kontext.server.service.results import Results
from kontext.server.settings import Settings
from kontext.server.workers.executor import Worker
from kontext.server.workers.worker import JobPayload, ModelInfo
from kontext.session import Store

log = logging.getLogger(__name__)

BATCH_PIXELS = 64 * 2**20  # maximum output pixels of a batch


class Scheduler:
    """One loop per worker: claim a batch, load its pictures, run it."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        queue: Queue,
        event_bus: EventBus,
        workers: Sequence[Worker],
        *,
        results: Results,
        positions: Positions,
        prefills: Prefills,
        background: Background,
    ) -> None:
        self.settings, self.store, self.queue, self.event_bus = settings, store, queue, event_bus
        self.workers, self.results, self.positions = workers, results, positions
        self.prefills, self.background = prefills, background
        self.model_info: ModelInfo | None = None
        self.load_error: str | None = None  # why no model could be loaded; may contain local paths
        self.stopping = False
        self.busy_seconds = 0.0
        self.running: dict[str, tuple[Worker, Job]] = {}
        self._wakers = [asyncio.Event() for _ in workers]

    def stop_running(self, job_id: str) -> None:
        """Stop a job on its worker; no effect if it does not run here."""
        if job_id in self.running:
            worker, _ = self.running.pop(job_id)
            worker.cancel(job_id)

    def watch(self, subscribed: set[str]) -> None:
        """Ask for previews of the running jobs with these topics."""
        for worker, job in self.running.values():
            if subscribed.intersection(topics(job)):
                worker.watch(job.id)

    async def supervise(self, place: int) -> None:
        """Supervise one worker: start it, run batches, restart it when it dies."""
        worker, pause = self.workers[place], 0.1
        while not self.stopping:
            try:
                self.model_info = await worker.start()
                self.prefills.clear()
                log.info("worker %d is ready with %s", place, self.model_info.name)
                pause = 0.1
                await self._run_batches(place)
            except CannotLoad as error:
                self.load_error = str(error)
                log.error("the model cannot be loaded: %s", error)
                return
            except WorkerDied as error:
                if not self.stopping:
                    log.warning("worker %d: %s; starting another", place, error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 10.0)
            except Exception:
                log.exception("worker %d: the loop failed; starting over", place)
                await asyncio.sleep(1.0)

    async def _run_batches(self, place: int) -> None:
        """Run batches; while the worker decodes one, the next is claimed and its pictures are loaded."""
        worker = self.workers[place]
        ahead: list[tuple[Job, JobPayload]] = []
        try:
            while not self.stopping:
                if not worker.alive:
                    raise WorkerDied("it died while idle")
                batch, ahead = ahead or await self._claim(worker), []
                if not batch:
                    await self._wait_for_jobs(place)
                    continue
                finishing = asyncio.Event()
                running = asyncio.create_task(self._run(worker, batch, finishing))
                try:
                    await finishing.wait()
                    if not running.done() and not self.stopping:
                        ahead = await self._claim(worker)
                finally:
                    await running
        finally:
            await self._requeue([job for job, _ in ahead], count_attempt=False)

    async def _claim(self, worker: Worker) -> list[tuple[Job, JobPayload]]:
        """Claim the next batch and load its pictures; empty if the queue is empty."""
        batch = await asyncio.to_thread(
            self.queue.claim, self.settings.max_batch, self._batch_key, self._batch_room
        )
        self.running.update({job.id: (worker, job) for job in batch})
        self.positions.discard(job.id for job in batch)
        loaded = []
        try:
            for job in batch:
                try:
                    loaded.append((job, await asyncio.to_thread(self._load, job)))
                except KontextError as error:
                    self.running.pop(job.id, None)
                    await self.results.end(job, "failed", str(error))
        except BaseException:
            await self._requeue(batch, count_attempt=True)
            raise
        if batch:
            self.positions.changed()
        return loaded

    async def _requeue(self, batch: list[Job], *, count_attempt: bool) -> None:
        """Return claimed jobs to the queue; with `count_attempt`, jobs without attempts left fail."""
        for job in batch:
            self.running.pop(job.id, None)
        if batch:
            for job in await asyncio.to_thread(self.queue.requeue, batch, count_attempt=count_attempt):
                self.results.publish_end(await asyncio.to_thread(self.queue.get, job.id))

    async def _wait_for_jobs(self, place: int) -> None:
        try:
            await asyncio.wait_for(self._wakers[place].wait(), POLL_SECONDS)
        except TimeoutError:
            pass
        self._wakers[place].clear()

    def wake(self) -> None:
        """Look for new jobs now."""
        for waker in self._wakers:
            waker.set()

    def _batch_key(self, row: Any) -> tuple[str, BatchShape | str]:
        """Jobs of different models are never in one batch."""
        model = self._model_of(row)
        if model is None:
            return "", row.shape
        return model.name, batch_key(row.shape, model.sizes, model.steps, model.guidance)

    def _model_of(self, row: Any) -> ModelInfo | None:
        """The model of a queued job; the default where it is not served any more."""
        try:
            return self.model_info and self.model_info.named(JobShape.parse(row.shape).model)
        except (BadRequest, ValueError):
            return self.model_info

    def _batch_room(self, row: Any) -> int:
        """Maximum number of jobs like this one in a batch, limited by memory."""
        model = self._model_of(row)
        size = output_size(row.shape, model.sizes) if model else None
        pixels = size[0] * size[1] if size else 1
        return max(1, BATCH_PIXELS // pixels)

    async def _run(
        self, worker: Worker, loaded: list[tuple[Job, JobPayload]], finishing: asyncio.Event
    ) -> None:
        """Run one batch on a worker. `finishing` is set after its last step, or when it ends early."""
        loaded = [pair for pair in loaded if pair[0].id in self.running]  # the others were cancelled
        batch = [job for job, _ in loaded]
        of_job = {job.id: topics(job) for job in batch}

        def on_progress(job_id: str, step: int, steps: int, preview: bytes | None) -> None:
            if step == steps:
                finishing.set()
            self.event_bus.steps[job_id] = step, steps
            image = "data:image/jpeg;base64," + base64.b64encode(preview).decode() if preview else None
            for topic in of_job.get(job_id, ()):
                self.event_bus.publish(topic, "step", job=job_id, step=step, steps=steps, preview=image)

        started = time.monotonic()
        try:
            results = []
            if batch:
                payloads = [payload for _, payload in loaded]
                results = await asyncio.wait_for(worker.run(payloads, on_progress), self.settings.job_seconds)
            self.results.concluding.update(job.id for job in batch)
        except TimeoutError:
            await worker.kill()
            for job in batch:
                await self.results.end(
                    job, "failed", f"the job took longer than {self.settings.job_seconds:g} seconds"
                )
            raise WorkerDied("a batch took too long") from None
        except BaseException:
            await self._requeue(batch, count_attempt=not self.stopping)
            raise
        finally:
            finishing.set()
            self.busy_seconds += time.monotonic() - started
            for job in batch:
                self.running.pop(job.id, None)
                self.event_bus.steps.pop(job.id, None)
        model = self._model_of(batch[0]) if batch else None
        fingerprint = model.fingerprint if model else None
        # concurrently with the next batch
        self.background.start(self.results.conclude_all(batch, results, fingerprint))

    def _load(self, job: Job) -> JobPayload:
        get = self.store.blobs.get
        pictures = {role: [get(sha256) for sha256 in hashes] for role, hashes in job.request.pictures.items()}
        return JobPayload(
            job.id, job.request, pictures, any(map(self.event_bus.has_subscribers, topics(job)))
        )
