"""The service behind all routes: accepts jobs, schedules workers, stores results, publishes events.

One asyncio loop; blocking work (database, files, encoding) runs in threads. A crash loses nothing: the queue
is in the database, and every step from there to a stored result is one transaction.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType, SimpleNamespace
from typing import Any

from kontext.engine.requests import Result
from kontext.engine.sizes import plan_edit, plan_generate
from kontext.errors import BadRequest, Busy, Cancelled, KontextError, NotFound, Unavailable
from kontext.server.errors import CannotLoad, WorkerDied
from kontext.server.jobs.queue import Job, Queue
from kontext.server.jobs.quotas import Quotas
from kontext.server.jobs.views import task_view, turn_view
from kontext.server.service.decoders import Decoders
from kontext.server.service.event_bus import EventBus
from kontext.server.service.moderation import Moderator, make_moderator
from kontext.server.service.outputs import encoded, sample_path, server_secret
from kontext.server.service.webhooks import deliver
from kontext.server.settings import Settings
from kontext.server.workers.executor import Worker, make_workers
from kontext.server.workers.launch import Launched
from kontext.server.workers.worker import Failure, JobPayload, ModelInfo
from kontext.session import Session, Store, Turn
from kontext.session.signing import own_identity

log = logging.getLogger(__name__)

THREADS = 24  # mostly I/O bound
POSITION_SECONDS = 0.1  # between two updates of the queue positions
POSITION_DELAY = 0.02  # before an update: a job that starts immediately needs no position
POLL_SECONDS = 1.0  # between polls for jobs submitted or requeued by other servers
PREFILLS_KEPT = 512
TIDY_SECONDS = 3600.0
RESULTS_AT_ONCE = 4  # times the largest picture: maximum output of one request
BATCH_PIXELS = 64 * 2**20  # maximum output pixels of a batch
STORAGE_SECONDS = 3.0  # between two storage checks
STORAGE_ANSWER_SECONDS = 3.0  # timeout of a storage check


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
        self.quotas = Quotas(self.store, settings.storage_bytes)
        self.event_bus = EventBus(self._watch)
        self.moderator: Moderator = make_moderator(settings)
        self.workers: list[Worker] = make_workers(settings, launched)
        self.model_info: ModelInfo | None = None
        self.load_error: str | None = None  # why no model could be loaded; may contain local paths
        self.storage_error: str | None = None
        self.stopping = False
        self.ended: Counter[str] = Counter()  # jobs by final state, for the metrics
        self.busy_seconds = 0.0
        self._wakers = [asyncio.Event() for _ in self.workers]
        self._running: dict[str, tuple[Worker, Job]] = {}
        self._left_queue: set[str] = set()  # jobs that left the queue since its last update began
        self._concluding: set[str] = set()  # jobs whose results are being stored
        self._loops: list[asyncio.Task] = []
        self._tasks: set[asyncio.Task] = set()
        self._prefills: OrderedDict[str, asyncio.Task] = OrderedDict()
        self.queue_positions: dict[str, int] = {}  # by job id; 1 is next
        self._queued: dict[str, Any] = {}  # rows of the same jobs
        self._queue_changed = asyncio.Event()
        self.thumbnails: dict[tuple[str, int], bytes] = {}

    @property
    def ready(self) -> bool:
        return (
            not self.stopping and self.model_info is not None and any(worker.alive for worker in self.workers)
        )

    @property
    def public_load_error(self) -> str | None:
        """`load_error` as callers without access to this machine may read it."""
        if self.load_error and self.settings.keys_needed:
            return "the model cannot be loaded; see the server's log"
        return self.load_error

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="service"))
        self._loops = [asyncio.create_task(self._supervise(place)) for place in range(len(self.workers))]
        self._loops += [
            asyncio.create_task(loop())
            for loop in (
                self._heartbeat,
                self._webhooks,
                self._tidy,
                self._publish_positions,
                self._watch_storage,
            )
        ]

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
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10.0)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self.decoders.close()
        self.store.close()

    def begin_stop(self) -> None:
        self.stopping = True
        self.event_bus.close()
        self._wake()

    # API of the routes

    async def submit(
        self, requests: Sequence[dict[str, Any]], *, refused: str | None = None, **about: Any
    ) -> list[Job]:
        """`Queue.submit` after validation and moderation of the prompt.

        Raises Busy while stopping, QueueFull, QuotaFull, NoCredits, and BadRequest for a prompt that is too
        long for the loaded model.
        """
        if self.stopping:
            raise Busy("the server is stopping; try again in a moment")
        if self.model_info:
            await asyncio.to_thread(self.model_info.check_prompt, requests[0]["edit"]["prompt"])
        self._check_output(about["shape"], len(requests))
        await asyncio.to_thread(self.quotas.check, about["owner"])
        reason = refused or self.moderator.prompt(requests[0]["edit"]["prompt"])
        jobs = await asyncio.to_thread(self.queue.submit, requests, refused=reason, **about)
        if self.settings.log_prompts:
            log.info("job %s: %s", jobs[0].id, requests[0]["edit"]["prompt"])
        for job in jobs:
            if reason:
                self._publish_end(job)
        self._wake()
        self.notify_queue_changed()
        return jobs

    def _check_output(self, shape: str, count: int) -> None:
        """Raises BadRequest for results that would be larger than the input limit."""
        size = output_size(shape, self.model_info.sizes if self.model_info else ((256, 256),))
        if size is None:
            return  # the editor reports the error
        pixels, most = size[0] * size[1], self.settings.picture_pixels
        if pixels > most:
            limit = f"the result must have at most {most / 1e6:.0f} million pixels"
            raise BadRequest(f"{limit}, got {size[0]}x{size[1]}")
        if pixels * count > RESULTS_AT_ONCE * most:
            limit = f"results must have at most {RESULTS_AT_ONCE * most / 1e6:.0f} million pixels in total"
            raise BadRequest(f"{limit}, got {count} of {size[0]}x{size[1]}")

    async def cancel(self, job: Job) -> Job:
        """Cancel a job and return its new state; a job that has ended is not changed."""
        if await asyncio.to_thread(self.queue.cancel, job.id):
            self._left_queue.add(job.id)
            self._queued.pop(job.id, None)
            self._stop_running(job.id)
            job = await asyncio.to_thread(self.queue.get, job.id)
            self._publish_end(job)
            self.notify_queue_changed()
        return job

    def _stop_running(self, job_id: str) -> None:
        if held := self._running.pop(job_id, None):
            held[0].cancel(job_id)

    def _watch(self, subscribed: set[str]) -> None:
        for worker, job in self._running.values():
            if subscribed.intersection(topics(job)):
                worker.watch(job.id)

    def active_here(self, job_id: str) -> Any:
        """A queued or running job of this server with the fields `task_view` needs, without a database query.

        Its end will be published as an event. None for other jobs.
        """
        return self._running[job_id][1] if job_id in self._running else self._queued.get(job_id)

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

    async def prefill(self, sha256: str) -> asyncio.Task:
        """Precompute the context of a stored picture in all workers; the task returns the seconds it took."""
        task = self._prefills.get(sha256)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result() is None)):
            self._prefills[sha256] = task = self._keep(self._prefill(sha256))
            while len(self._prefills) > PREFILLS_KEPT:
                self._prefills.popitem(last=False)
        return task

    async def _prefill(self, sha256: str) -> float | None:
        try:
            data = await asyncio.to_thread(self.store.blobs.get, sha256)
            replies = await asyncio.gather(*(worker.prefill(data) for worker in self.workers if worker.alive))
        except (WorkerDied, Unavailable):
            return None
        seconds = [one for one in replies if not isinstance(one, Failure)]
        return max(seconds, default=None)

    def sample_url(self, job: Job, origin: str) -> str:
        """A temporary URL of the picture of a finished job."""
        return origin + sample_path(self.secret, job, self.settings.sample_seconds)

    # Scheduling

    async def _supervise(self, place: int) -> None:
        """Supervise one worker: start it, run batches, restart it when it dies."""
        worker, pause = self.workers[place], 0.1
        while not self.stopping:
            try:
                self.model_info = await worker.start()
                self._prefills.clear()
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
            self.queue.claim, self.settings.max_batch, self._shape, self._batch_room
        )
        self._running.update({job.id: (worker, job) for job in batch})
        self._left_queue.update(job.id for job in batch)
        loaded = []
        try:
            for job in batch:
                try:
                    loaded.append((job, await asyncio.to_thread(self._load, job)))
                except KontextError as error:
                    self._running.pop(job.id, None)
                    await self._end(job, "failed", str(error))
        except BaseException:
            await self._requeue(batch, count_attempt=True)
            raise
        if batch:
            self.notify_queue_changed()
        return loaded

    async def _requeue(self, batch: list[Job], *, count_attempt: bool) -> None:
        """Return claimed jobs to the queue; with `count_attempt`, jobs without attempts left fail."""
        for job in batch:
            self._running.pop(job.id, None)
        if batch:
            for job in await asyncio.to_thread(self.queue.requeue, batch, count_attempt=count_attempt):
                self._publish_end(await asyncio.to_thread(self.queue.get, job.id))

    async def _wait_for_jobs(self, place: int) -> None:
        try:
            await asyncio.wait_for(self._wakers[place].wait(), POLL_SECONDS)
        except TimeoutError:
            pass
        self._wakers[place].clear()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    def _shape(self, row: Any) -> Any:
        return canvas_shape(row.shape, self.model_info.sizes) if self.model_info else row.shape

    def _batch_room(self, row: Any) -> int:
        """Maximum number of jobs like this one in a batch, limited by memory."""
        size = output_size(row.shape, self.model_info.sizes) if self.model_info else None
        pixels = size[0] * size[1] if size else 1
        return max(1, BATCH_PIXELS // pixels)

    async def _run(
        self, worker: Worker, loaded: list[tuple[Job, JobPayload]], finishing: asyncio.Event
    ) -> None:
        """Run one batch on a worker. `finishing` is set after its last step, or when it ends early."""
        loaded = [pair for pair in loaded if pair[0].id in self._running]  # the others were cancelled
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
            self._concluding.update(job.id for job in batch)
        except TimeoutError:
            await worker.kill()
            for job in batch:
                await self._end(
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
                self._running.pop(job.id, None)
                self.event_bus.steps.pop(job.id, None)
        self._keep(self._conclude_all(batch, results))  # concurrently with the next batch

    def _load(self, job: Job) -> JobPayload:
        get = self.store.blobs.get
        pictures = {
            role: [get(sha256) for sha256 in given] for role, given in job.request["pictures"].items()
        }
        return JobPayload(job.id, job.request, pictures, any(map(self.event_bus.watched, topics(job))))

    async def _conclude_all(self, batch: list[Job], results: list[Result | Failure]) -> None:
        for job, result in zip(batch, results, strict=True):
            try:
                await self._conclude(job, result)
            finally:
                self._concluding.discard(job.id)

    async def _conclude(self, job: Job, result: Result | Failure) -> None:
        if isinstance(result, Failure):
            await self._end(job, "cancelled" if result.cancelled else "failed", result.message)
            return
        try:
            tolerance = job.request.get("output", {}).get("safety_tolerance", 2)
            pixels = result.size[0] * result.size[1]
            if reason := await asyncio.to_thread(self.moderator.output, result.picture, tolerance):
                await self._end(job, "refused", reason)
            elif job.session_id:
                self._publish_end(*await self.decoders.run(pixels, self._keep_turn, job, result))
            else:
                kept = await self.decoders.run(pixels, encoded, self.store, job, result, self.identity)
                await self._end(job, "done", result=kept)
                return
        except Cancelled:
            return  # the job was cancelled after its last step
        except KontextError as error:
            await self._end(job, "failed", str(error))
        except Exception:
            log.exception("the result of job %s could not be stored", job.id)
            await self._end(job, "failed", "the result could not be stored; see the server's log")

    def _keep_turn(self, job: Job, result: Result) -> tuple[Job, dict[str, Any]]:
        """Store a result as a turn; returns the finished job and its turn payload."""
        editor = SimpleNamespace(
            model=SimpleNamespace(fingerprint=self.model_info.fingerprint if self.model_info else None)
        )
        session = self.store.open(job.session_id or "", editor=editor)
        given = job.request["pictures"]
        settings = {key: value for key, value in job.request["edit"].items() if key != "prompt"}
        for role in ("mask", "markup"):
            if given.get(role):
                settings[role] = self.store.blobs.get(given[role][0])
        if given.get("references"):
            settings["references"] = [self.store.blobs.get(sha256) for sha256 in given["references"]]
        head = session.tree.current
        turn = session.add(
            result,
            prompt=job.request["edit"]["prompt"],
            parent=job.parent_id,
            kind=job.kind,
            settings=settings,
            turn_id=job.id,
            current=head is None or head.id == job.parent_id,
            in_transaction=lambda db: self.queue.done_within(db, job, {"seed": str(result.seed)}),
        )
        return replace(job, state="done"), turn_payload(session, turn, self.settings.base_path)

    async def _end(self, job: Job, state: str, error: str | None = None, result: dict | None = None) -> None:
        if await asyncio.to_thread(self.queue.finish, job, state, error=error, result=result):
            await self._publish_stored_end(job.id)

    async def _publish_stored_end(self, job_id: str) -> None:
        def load() -> tuple[Job, dict[str, Any]]:
            job = self.queue.get(job_id)
            return job, self._created_turn(job)

        self._publish_end(*await asyncio.to_thread(load))

    async def terminal_event(self, job: Job) -> tuple[str, dict[str, Any]]:
        """The last event of a job that has ended."""
        return terminal_event(job, await asyncio.to_thread(self._created_turn, job))

    def _created_turn(self, job: Job) -> dict[str, Any]:
        """The turn payload of a finished job; empty if the turn was deleted."""
        if job.state != "done" or not job.session_id:
            return {}
        try:
            session = self.store.open(job.session_id)
            turn = session.tree.find(job.id)
        except NotFound:
            return {}
        return turn_payload(session, turn, self.settings.base_path)

    def _publish_end(self, job: Job, created: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.ended[job.state] += 1
        kind, data = terminal_event(job, created)
        for topic in topics(job):
            self.event_bus.publish(topic, kind, **data)
        # The next edit most likely starts here; other jobs that wait for the worker go first.
        if created and created["head"] == job.id and not self.queue_positions:
            self._keep(self._prefill_turn(job))

    async def _prefill_turn(self, job: Job) -> None:
        try:
            session = await asyncio.to_thread(self.store.open, job.session_id or "")
            await self.prefill(session.tree.find(job.id).blobs["picture"][0])
        except (NotFound, Unavailable):
            pass  # deleted already, or the storage failed, which the next edit reports

    def notify_queue_changed(self) -> None:
        """Publish new queue positions soon; many changes are published together."""
        self._queue_changed.set()

    async def _publish_positions(self) -> None:
        while True:
            with suppress(TimeoutError):  # other servers change the queue as well
                async with asyncio.timeout(POLL_SECONDS if self.queue_positions else None):
                    await self._queue_changed.wait()
            await asyncio.sleep(POSITION_DELAY)
            self._queue_changed.clear()
            self._left_queue.clear()
            try:
                waiting = await asyncio.to_thread(self.queue.waiting)
            except Exception:
                log.exception("the queue could not be read")
                waiting = []
            # A job that has left the queue in the meantime gets no event after its terminal one.
            waiting = [row for row in waiting if row.id not in self._left_queue]
            positions = {row.id: position for position, row in enumerate(waiting, start=1)}
            before, self.queue_positions = self.queue_positions, positions
            self._queued = {row.id: row for row in waiting}
            for row in waiting:
                if before.get(row.id) != positions[row.id]:
                    for topic in topics(row):
                        self.event_bus.publish(topic, "queued", job=row.id, position=positions[row.id])
            await asyncio.sleep(POSITION_SECONDS)

    # Housekeeping

    async def _heartbeat(self) -> None:
        while True:
            try:
                before = set(self._running)
                failed, held = await asyncio.to_thread(self.queue.heartbeat, before | self._concluding)
                for job_id in before - held:
                    self._stop_running(job_id)  # cancelled by another server
                for job_id in failed:
                    await self._publish_stored_end(job_id)
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
            await asyncio.sleep(POLL_SECONDS)

    async def _deliver_webhook(self, job: Job) -> None:
        origin = self.settings.public_base or job.request["output"].get("origin") or ""
        if await deliver(job, task_view(job, self.sample_url(job, origin)), self.settings):
            await asyncio.to_thread(self.queue.delivered, job)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            try:
                days = dict(job_days=self.settings.job_days, upload_days=self.settings.upload_days)
                await asyncio.to_thread(self.queue.expire, **days)
            except Exception:
                log.exception("the cleanup failed")

    def _keep(self, work: Coroutine) -> asyncio.Task:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def open_store(settings: Settings) -> Store:
    """Open the configured store of sessions and jobs. Raises BadConfig."""
    if settings.database:
        return Store(settings.database, settings.blobs or settings.folder / "blobs")
    return Store(settings.folder, settings.blobs)


def turn_payload(session: Session, turn: Turn, base_path: str) -> dict[str, Any]:
    return {"turn": turn_view(turn, base_path), "head": session.current.id, "revision": session.revision}


def terminal_event(job: Job, created: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if job.state == "done":
        return "done", {"job": job.id, **created}
    return "failed", {"job": job.id, "state": job.state, "message": job.error}


def topics(job: Any) -> list[str]:
    """The topics on which events of a job (or of a row with its `id` and `session_id`) are published."""
    return [f"job:{job.id}"] + ([f"session:{job.session_id}"] if job.session_id else [])


def shape_of(
    edit: dict[str, Any], size: tuple[int, int] | None, references: Sequence[tuple[int, int]]
) -> str:
    """The batching key of a request as text: picture size, size spec, reference sizes, steps, guidance."""
    sizes = ",".join(f"{width}x{height}" for width, height in references)
    own = f"{size[0]}x{size[1]}" if size else ""
    size_spec = "" if edit.get("size") is None else edit["size"]
    return f"{own}|{size_spec}|{sizes}|{edit.get('steps')}|{edit.get('guidance')}"


@lru_cache(4096)
def output_size(shape: str, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    """(width, height) of the result of a shape (see `shape_of`); None if it is invalid."""
    own, size_spec, *_ = shape.split("|")
    try:
        width, height = own.split("x") if own else ("0", "0")
        size = int(width), int(height)
        plan = (
            plan_edit(size, size_spec or "match", sizes) if own else plan_generate(size_spec or None, sizes)
        )
    except (BadRequest, ValueError):
        return None
    return plan.output


@lru_cache(4096)
def canvas_shape(shape: str, sizes: tuple[tuple[int, int], ...]) -> tuple:
    """A shape with every size replaced by the model's canvas for it; see `Editor`."""
    own, size_spec, references, steps, guidance = shape.split("|")

    def size(text: str) -> tuple[int, int]:
        width, height = text.split("x")
        return int(width), int(height)

    try:
        plan = (
            plan_edit(size(own), size_spec or "match", sizes)
            if own
            else plan_generate(size_spec or None, sizes)
        )
        shown = tuple(plan_edit(size(text), "match", sizes).canvas for text in references.split(",") if text)
    except (BadRequest, ValueError):
        return (shape,)  # the editor will reject it, alone
    return bool(own), plan.canvas, shown, steps, guidance
