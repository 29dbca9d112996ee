"""How jobs end: results become turns or files, and their ends are published."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

from kontext.engine.requests import Result
from kontext.errors import Cancelled, KontextError, NotFound
from kontext.server.jobs.queue import Job, Queue
from kontext.server.jobs.views import turn_view
from kontext.server.service.background import Background
from kontext.server.service.decoders import Decoders
from kontext.server.service.event_bus import EventBus, topics
from kontext.server.service.moderation import Moderator
from kontext.server.service.outputs import encoded
from kontext.server.service.positions import Positions
from kontext.server.service.prefills import Prefills
from kontext.server.settings import Settings
from kontext.server.workers.worker import Failure
from kontext.session import Session, Store, Turn
from kontext.session.signing import Identity

log = logging.getLogger(__name__)


class Results:
    """Stores results, and publishes the end of every job."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        queue: Queue,
        event_bus: EventBus,
        *,
        moderator: Moderator,
        decoders: Decoders,
        identity: Identity | None,
        positions: Positions,
        prefills: Prefills,
        background: Background,
    ) -> None:
        self.settings, self.store, self.queue, self.event_bus = settings, store, queue, event_bus
        self.moderator, self.decoders, self.identity = moderator, decoders, identity
        self.positions, self.prefills, self.background = positions, prefills, background
        self.ended: Counter[str] = Counter()  # jobs by final state, for the metrics
        self.concluding: set[str] = set()  # jobs whose results are being stored

    async def conclude_all(
        self, batch: list[Job], results: list[Result | Failure], fingerprint: str | None
    ) -> None:
        """Store the results of a batch and publish the ends of its jobs. `fingerprint`: of the model."""
        for job, result in zip(batch, results, strict=True):
            try:
                await self._conclude(job, result, fingerprint)
            finally:
                self.concluding.discard(job.id)

    async def _conclude(self, job: Job, result: Result | Failure, fingerprint: str | None) -> None:
        if isinstance(result, Failure):
            await self.end(job, "cancelled" if result.cancelled else "failed", result.message)
            return
        try:
            pixels, tolerance = result.size[0] * result.size[1], job.request.output.safety_tolerance
            if reason := await asyncio.to_thread(self.moderator.output, result.picture, tolerance):
                await self.end(job, "refused", reason)
            elif job.session_id:
                self.publish_end(*await self.decoders.run(pixels, self._keep_turn, job, result, fingerprint))
            else:
                stored = await self.decoders.run(pixels, encoded, self.store, job, result, self.identity)
                await self.end(job, "done", result=stored)
                return
        except Cancelled:
            return  # the job was cancelled after its last step
        except KontextError as error:
            await self.end(job, "failed", str(error))
        except Exception:
            log.exception("the result of job %s could not be stored", job.id)
            await self.end(job, "failed", "the result could not be stored; see the server's log")

    def _keep_turn(self, job: Job, result: Result, fingerprint: str | None) -> tuple[Job, dict[str, Any]]:
        """Store a result as a turn; returns the finished job and its turn payload."""
        editor = SimpleNamespace(model=SimpleNamespace(fingerprint=fingerprint))
        session = self.store.open(job.session_id or "", editor=editor)
        request, load = job.request, self.store.blobs.get
        settings = request.options
        for role, sha256 in (("mask", request.mask), ("markup", request.markup)):
            if sha256:
                settings[role] = load(sha256)
        if request.references:
            settings["references"] = [load(sha256) for sha256 in request.references]
        head = session.tree.current
        turn = session.add(
            result,
            prompt=request.prompt,
            parent=job.parent_id,
            kind=job.kind,
            settings=settings,
            turn_id=job.id,
            current=head is None or head.id == job.parent_id,
            in_transaction=lambda db: self.queue.done_within(db, job, {"seed": str(result.seed)}),
        )
        return replace(job, state="done"), turn_payload(session, turn, self.settings.base_path)

    async def end(
        self, job: Job, state: str, error: str | None = None, result: dict[str, Any] | None = None
    ) -> None:
        """End a job that this server holds, and publish it."""
        if await asyncio.to_thread(self.queue.finish, job, state, error=error, result=result):
            await self.publish_stored_end(job.id)

    async def publish_stored_end(self, job_id: str) -> None:
        """Publish the end of a job that another part of the service stored."""

        def load() -> tuple[Job, dict[str, Any]]:
            job = self.queue.get(job_id)
            return job, self._created_turn(job)

        self.publish_end(*await asyncio.to_thread(load))

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

    def publish_end(self, job: Job, created: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Publish the end of a job, with the turn payload that it created."""
        self.ended[job.state] += 1
        kind, data = terminal_event(job, created)
        for topic in topics(job):
            self.event_bus.publish(topic, kind, **data)
        # The next edit most likely starts here; other jobs that wait for the worker go first.
        if created and created["head"] == job.id and not self.positions.by_job:
            self.background.start(self.prefills.prefill_turn(job))


def turn_payload(session: Session, turn: Turn, base_path: str) -> dict[str, Any]:
    return {"turn": turn_view(turn, base_path), "head": session.current.id, "revision": session.revision}


def terminal_event(job: Job, created: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if job.state == "done":
        return "done", {"job": job.id, **created}
    return "failed", {"job": job.id, "state": job.state, "message": job.error}
