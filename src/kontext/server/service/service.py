"""The service behind all routes: accepts jobs, schedules workers, stores results, publishes events.

One asyncio loop; blocking work (database, files, encoding) runs in threads. A crash loses nothing: the queue
is in the database, and every step from there to a stored result is one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from kontext.engine.pointing import edit_mask_of, overlay_of
from kontext.errors import BadRequest, Busy
from kontext.loras import parse as parse_loras
from kontext.pictures import Picture
from kontext.server.jobs.batching import JobShape, output_size
from kontext.server.jobs.queue import Job, Queue, Submission
from kontext.server.jobs.quotas import Quotas
from kontext.server.jobs.requests import JobRequest
from kontext.server.service.background import Background
from kontext.server.service.decoders import Decoders
from kontext.server.service.event_bus import EventBus
from kontext.server.service.expansion import Expansion
from kontext.server.service.housekeeping import Housekeeping
from kontext.server.service.moderation import Moderator, make_moderator
from kontext.server.service.outputs import sample_path, server_secret
from kontext.server.service.positions import POLL_SECONDS, Positions
from kontext.server.service.prefills import Prefills
from kontext.server.service.results import Results
from kontext.server.service.scheduler import Scheduler
from kontext.server.settings import Settings
from kontext.server.workers.executor import Worker, make_workers
from kontext.server.workers.launch import Launched
from kontext.server.workers.worker import ModelInfo
from kontext.session import Store
from kontext.session.signing import own_identity

log = logging.getLogger(__name__)

THREADS = 24  # mostly I/O bound
RESULTS_AT_ONCE = 4  # times the largest picture: maximum output of one request


class Service:
    """Started and stopped by the application (`create_app`)."""

    def __init__(self, settings: Settings, launched: Sequence[Launched] = ()) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self.queue = Queue(
            self.store,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
            length=settings.queue_length,
        )
        self.secret = server_secret(self.store)
        self.identity = own_identity(settings.folder / "signing") if settings.sign else None
        self.decoders = Decoders()
        self.quotas = Quotas(self.store, settings.storage_bytes or None)
        self.event_bus = EventBus(lambda subscribed: self.scheduler.watch(subscribed))
        self.moderator: Moderator = make_moderator(settings)
        self.expansion = Expansion(settings)
        self.workers: list[Worker] = make_workers(settings, launched)
        self.thumbnails: dict[tuple[str, int], bytes] = {}
        self.background = Background()
        self.positions = Positions(self.queue, self.event_bus)
        self.prefills = Prefills(self.store, self.workers, self.background)
        self.results = Results(
            settings,
            self.store,
            self.queue,
            self.event_bus,
            moderator=self.moderator,
            decoders=self.decoders,
            identity=self.identity,
            positions=self.positions,
            prefills=self.prefills,
            background=self.background,
        )
        self.scheduler = Scheduler(
            settings,
            self.store,
            self.queue,
            self.event_bus,
            self.workers,
            results=self.results,
            positions=self.positions,
            prefills=self.prefills,
            background=self.background,
        )
        self.housekeeping = Housekeeping(
            settings, self.store, self.queue, self.secret, scheduler=self.scheduler, results=self.results
        )
        self._loops: list[asyncio.Task[None]] = []

    @property
    def model_info(self) -> ModelInfo | None:
        """The loaded model; None while it is loading."""
        return self.scheduler.model_info

    def model_named(self, name: str | None) -> ModelInfo | None:
        """The model that a request chooses; None while it is loading. Raises BadRequest."""
        return self.model_info.named(name) if self.model_info else None

    @property
    def stopping(self) -> bool:
        return self.scheduler.stopping

    @property
    def ready(self) -> bool:
        return (
            not self.stopping and self.model_info is not None and any(worker.alive for worker in self.workers)
        )

    @property
    def public_load_error(self) -> str | None:
        """Why no model could be loaded, as callers without access to this machine may read it."""
        if self.scheduler.load_error and self.settings.keys_needed:
            return "the model cannot be loaded; see the server's log"
        return self.scheduler.load_error

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="service"))
        loops = [self.scheduler.supervise(place) for place in range(len(self.workers))]
        loops += [*self.housekeeping.loops(), self.positions.run()]
        self._loops = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Let running jobs finish for `grace_seconds`, then requeue them."""
        self.begin_stop()
        running = self._loops[: len(self.workers)]
        if running:
            await asyncio.wait(running, timeout=self.settings.grace_seconds)
        for worker in self.workers:
            await worker.kill()
        if running:
            await asyncio.wait(running, timeout=10.0)
        await self.background.wait(10.0)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self.decoders.close()
        self.expansion.close()
        self.store.close()

    def begin_stop(self) -> None:
        self.scheduler.stopping = True
        self.event_bus.close()
        self.scheduler.wake()

    # API of the routes

    async def submit(
        self,
        requests: Sequence[JobRequest],
        submission: Submission,
        *,
        refused: str | None = None,
        expand: bool = False,
    ) -> list[Job]:
        """`Queue.submit` after validation and moderation of the prompt. `expand`: a short one is expanded.

        Raises Busy while stopping, QueueFull, QuotaFull, NoCredits, NotFound for unknown LoRAs, and
        BadRequest for prompts, canvas and guidance that the loaded model does not take, and for a mask or
        markup that leaves nothing to edit.
        """
        if self.stopping:
            raise Busy("the server is stopping; try again in a moment")
        model_info = self.model_named(requests[0].model)
        if model_info:
            await asyncio.to_thread(model_info.check_request, requests[0])
        for lora in parse_loras(requests[0].loras):
            await asyncio.to_thread(self.settings.loras.find, lora)
        self._check_output(submission.shape, len(requests))
        await self._check_pointers(requests[0], submission.shape)
        await asyncio.to_thread(self.quotas.check, submission.owner)
        reason = refused or self.moderator.prompt(requests[0].prompt)
        if expand and not reason:
            requests = await self.expansion.expand(requests, model_info)
            reason = self.moderator.prompt(requests[0].prompt)
        jobs = await asyncio.to_thread(self.queue.submit, requests, submission, refused=reason)
        if self.settings.log_prompts:
            log.info("job %s: %s", jobs[0].id, requests[0].prompt)
        for job in jobs:
            if reason:
                self.results.publish_end(job)
        self.scheduler.wake()
        self.positions.changed()
        return jobs

    def _check_output(self, shape: JobShape, count: int) -> None:
        """Raises BadRequest for results that would be larger than the input limit."""
        model_info = self.model_named(shape.model)
        size = output_size(str(shape), model_info.sizes if model_info else ((256, 256),))
        if size is None:
            return  # the editor reports the error
        pixels, most = size[0] * size[1], self.settings.picture_pixels
        if pixels > most:
            limit = f"the result must have at most {most / 1e6:.0f} million pixels"
            raise BadRequest(f"{limit}, got {size[0]}x{size[1]}")
        if pixels * count > RESULTS_AT_ONCE * most:
            limit = f"results must have at most {RESULTS_AT_ONCE * most / 1e6:.0f} million pixels in total"
            raise BadRequest(f"{limit}, got {count} of {size[0]}x{size[1]}")

    async def _check_pointers(self, request: JobRequest, shape: JobShape) -> None:
        """Raises BadRequest for a mask or markup that leaves nothing to edit, as the editor would later."""
        files = {role: sha256 for role in ("mask", "markup") if (sha256 := getattr(request, role))}
        if not files or shape.picture is None:
            return
        width, height = shape.picture

        def check() -> None:
            edit = request.edit_request({role: [self.store.blobs.get(files[role])] for role in files})
            blank = Picture(Image.new("RGB", (width, height)))  # of the picture only the size matters
            edit_mask_of(edit, blank, overlay_of(edit, blank))

        self.decoders.check_capacity(width * height)
        try:
            await self.decoders.run(width * height, check)
        except BadRequest as error:
            error.param = error.param or next(iter(files))
            raise

    async def cancel(self, job: Job) -> Job:
        """Cancel a job and return its new state; a job that has ended is not changed."""
        if await asyncio.to_thread(self.queue.cancel, job.id):
            self.positions.discard([job.id])
            self.scheduler.stop_running(job.id)
            job = await asyncio.to_thread(self.queue.get, job.id)
            self.results.publish_end(job)
            self.positions.changed()
        return job

    def active_here(self, job_id: str) -> Any:
        """A queued or running job of this server with the fields `task_view` needs, without a database query.

        Its end will be published as an event. None for other jobs.
        """
        running = self.scheduler.running
        return running[job_id][1] if job_id in running else self.positions.rows.get(job_id)

    async def wait(self, job_id: str, seconds: float) -> Job:
        """Wait until a job has ended, for at most `seconds`; returns its state."""
        end = time.monotonic() + seconds
        with self.event_bus.subscribe(f"job:{job_id}") as inbox:
            while True:
                job = await asyncio.to_thread(self.queue.get, job_id)
                if not job.active or self.event_bus.closed or time.monotonic() >= end:
                    return job
                while (left := end - time.monotonic()) > 0:
                    try:
                        event = await asyncio.wait_for(inbox.get(), min(left, POLL_SECONDS))
                    except TimeoutError:
                        if self.active_here(job_id):
                            continue
                        break
                    if event is None or event.kind in ("done", "failed"):
                        break

    def sample_url(self, job: Job, origin: str) -> str:
        """A temporary URL of the picture of a finished job."""
        return origin + sample_path(self.secret, job, self.settings.sample_seconds)


def open_store(settings: Settings) -> Store:
    """Open the configured store of sessions and jobs. Raises BadConfig."""
    if settings.database:
        return Store(settings.database, settings.blobs or settings.folder / "blobs")
    return Store(settings.folder, settings.blobs)
