"""The job queue in the database: accepted jobs are durable and end exactly once.

All writes go through `Store.writing()`, which serializes them across all processes and servers that share
the database. A job is held by a runner (one server process) under a lease; when a runner dies, its leases
expire and its jobs return to the queue.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import sqlalchemy as sql

from kontext.errors import Cancelled, NotFound
from kontext.server.errors import NoCredits, QueueFull
from kontext.server.jobs.batching import JobShape
from kontext.server.jobs.order import fair_order
from kontext.server.jobs.requests import JobRequest
from kontext.server.jobs.schema import MIGRATIONS, jobs, keys, uploads
from kontext.session import Store
from kontext.session.schema import migrate

log = logging.getLogger(__name__)

ACTIVE = ("queued", "running")
ENDED = ("done", "failed", "cancelled", "refused")
WEBHOOK_PAUSES = (5.0, 30.0, 120.0, 600.0, 3600.0)  # seconds before each retry


@dataclass(frozen=True)
class Job:
    """One row of the job table."""

    id: str
    group_id: str
    owner: str
    origin: str
    kind: str
    state: str
    request: JobRequest
    shape: str
    session_id: str | None
    parent_id: str | None
    attempts: int
    runner: str | None
    created: float
    started: float | None
    finished: float | None
    error: str | None
    result: Mapping[str, Any] | None
    cost: float
    webhook_url: str | None
    webhook_secret: str | None
    webhook_tries: int

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What the jobs of one submission have in common."""

    owner: str
    """Id of a key, "" without keys."""
    origin: str
    """own, bfl, openai or hf."""
    shape: JobShape
    session_id: str | None = None
    parent_id: str | None = None
    active_jobs: int | None = None
    """Maximum number of queued and running jobs of the owner."""
    cost: float = 0.0
    """Credits for one job."""
    webhook_url: str | None = None
    webhook_secret: str | None = None


# Columns of a queued job, of which there may be many: without the request.
WAITING_COLUMNS = (
    "id",
    "session_id",
    "owner",
    "origin",
    "shape",
    "kind",
    "attempts",
    "state",
    "error",
    "started",
)
COLUMNS = [jobs.c[field.name] for field in fields(Job)]


class Queue:
    """Jobs of one store. Safe for threads and processes; no state in memory."""

    def __init__(
        self, store: Store, *, lease_seconds: float = 10.0, max_attempts: int = 3, length: int = 1000
    ):
        self.store, self.lease_seconds, self.max_attempts, self.length = (
            store,
            lease_seconds,
            max_attempts,
            length,
        )
        self.runner = secrets.token_hex(8)
        with store.writing() as db:
            migrate(db, "server", MIGRATIONS)

    # Submitting

    def submit(
        self,
        requests: Sequence[JobRequest],
        submission: Submission,
        *,
        refused: str | None = None,
    ) -> list[Job]:
        """Insert one job per request, all or none; they are durable on return.

        `refused` inserts them as blocked by moderation, with the reason. Raises QueueFull, NoCredits.
        """
        now, group = time.time(), secrets.token_hex(16)
        rows: list[dict[str, Any]] = [
            dict(
                id=secrets.token_hex(16),
                group_id=group,
                owner=submission.owner,
                origin=submission.origin,
                kind=request.kind,
                state="refused" if refused else "queued",
                request=request,
                shape=str(submission.shape)[:200],
                session_id=submission.session_id,
                parent_id=submission.parent_id,
                attempts=0,
                created=now + place * 1e-6,  # preserves their order
                finished=now if refused else None,
                error=refused,
                cost=0.0 if refused else submission.cost,
                webhook_url=submission.webhook_url,
                webhook_secret=submission.webhook_secret,
                webhook_due=now if refused and submission.webhook_url else None,
                webhook_tries=0,
            )
            for place, request in enumerate(requests)
        ]
        with self.store.writing() as db:
            if not refused:
                self._check_active_jobs(db, submission.owner, len(rows), submission.active_jobs)
                self._charge(db, submission.owner, submission.cost * len(rows))
            db.execute(jobs.insert(), rows)
        empty = dict.fromkeys(column.name for column in COLUMNS)
        return [Job(**{name: {**empty, **row}[name] for name in empty}) for row in rows]

    def _check_active_jobs(self, db: sql.Connection, owner: str, count: int, limit: int | None) -> None:
        query = sql.select(sql.func.count()).select_from(jobs)
        if (db.scalar(query.where(jobs.c.state == "queued")) or 0) + count > self.length:
            raise QueueFull(f"the queue is full ({self.length} jobs); try again in a moment")
        active = db.scalar(query.where(jobs.c.owner == owner, jobs.c.state.in_(ACTIVE))) or 0
        if limit is not None and active + count > limit:
            raise QueueFull(
                f"active jobs must be at most {limit}, got {active + count}; wait for one or cancel one"
            )

    def _charge(self, db: sql.Connection, owner: str, credits: float) -> None:
        if not (owner and credits):
            return
        left = db.scalar(sql.select(keys.c.credits).where(keys.c.id == owner))
        if left is None:
            return
        if left < credits:
            raise NoCredits(f"{credits:g} credits are needed, {left:g} are left; ask the operator for more")
        db.execute(keys.update().where(keys.c.id == owner).values(credits=left - credits))

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """A job by id, owned by `owner` unless None. Raises NotFound."""
        query = sql.select(*COLUMNS).where(jobs.c.id == job_id)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        with self.store.reading() as db:
            row = db.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFound(f"no job {job_id[:64]!r}; it is unknown or expired")
        return Job(**row)

    def active(self, session_id: str) -> list[Job]:
        """Queued and running jobs of a session, oldest first."""
        query = sql.select(*COLUMNS).where(jobs.c.session_id == session_id, jobs.c.state.in_(ACTIVE))
        with self.store.reading() as db:
            return [Job(**row) for row in db.execute(query.order_by(jobs.c.created, jobs.c.id)).mappings()]

    def waiting(self) -> list[Any]:
        """Queued jobs (rows of id, session_id, owner...) in the order in which they will be started."""
        with self.store.reading() as db:
            return self._waiting(db)

    def count(self) -> dict[str, int]:
        """Jobs by state."""
        with self.store.reading() as db:
            return {
                state: n
                for state, n in db.execute(sql.select(jobs.c.state, sql.func.count()).group_by(jobs.c.state))
            }

    def cancel(self, job_id: str) -> bool:
        """Whether this call ended the job; its cost is refunded."""
        with self.store.writing() as db:
            return self._end(db, jobs.c.id == job_id, "cancelled", error="cancelled")

    # Running

    def claim(
        self,
        count: int,
        key_of: Callable[[Any], Any] = attrgetter("shape"),
        room_of: Callable[[Any], int] | None = None,
    ) -> list[Job]:
        """Claim the next job and up to `count` - 1 others that can share its batch, for this runner.

        Jobs with equal keys (`key_of`) can share a batch; `room_of` limits the number of jobs like the first
        one. A job whose worker died before runs alone, which keeps it from affecting others again.
        """
        now = time.time()
        with self.store.reading() as db:
            if db.scalar(sql.select(jobs.c.id).where(jobs.c.state == "queued").limit(1)) is None:
                return []
        with self.store.writing() as db:
            waiting = self._waiting(db)
            if not waiting:
                return []
            first, batch = waiting[0], [waiting[0]]
            if not first.attempts:
                alike = (row for row in waiting[1:] if not row.attempts and row.kind == first.kind)
                key = key_of(first)
                count = min(count, room_of(first)) if room_of else count
                batch += [row for row in alike if key_of(row) == key][: count - 1]
            ids = [row.id for row in batch]
            values = dict(state="running", runner=self.runner, lease=now + self.lease_seconds, started=now)
            db.execute(jobs.update().where(jobs.c.id.in_(ids)).values(attempts=jobs.c.attempts + 1, **values))
            found = {
                row["id"]: Job(**row)
                for row in db.execute(sql.select(*COLUMNS).where(jobs.c.id.in_(ids))).mappings()
            }
            return [found[job_id] for job_id in ids]

    def finish(
        self, job: Job, state: str, *, error: str | None = None, result: Mapping[str, Any] | None = None
    ) -> bool:
        """End a job that this runner holds; False if it was cancelled or lost in the meantime."""
        with self.store.writing() as db:
            return self.finish_within(db, job, state, error=error, result=result)

    def finish_within(
        self,
        db: sql.Connection,
        job: Job,
        state: str,
        *,
        error: str | None = None,
        result: Mapping[str, object] | None = None,
    ) -> bool:
        """`finish` inside the transaction that also writes the turn."""
        mine = sql.and_(jobs.c.id == job.id, jobs.c.runner == self.runner, jobs.c.attempts == job.attempts)
        return self._end(db, mine, state, error=error, result=result)

    def done_within(self, db: sql.Connection, job: Job, result: Mapping[str, Any]) -> None:
        """`finish_within` that raises Cancelled if the job is no longer held, which rolls back the turn."""
        if not self.finish_within(db, job, "done", result=result):
            raise Cancelled(f"job {job.id} was cancelled while it ran")

    def _end(
        self,
        db: sql.Connection,
        which: sql.ColumnElement[bool],
        state: str,
        *,
        error: str | None = None,
        result: Mapping[str, object] | None = None,
    ) -> bool:
        row = db.execute(
            sql.select(jobs.c.id, jobs.c.owner, jobs.c.cost).where(which, jobs.c.state.in_(ACTIVE))
        ).one_or_none()
        if row is None:
            return False
        ended = dict(state=state, error=error, result=result, finished=time.time(), lease=None)
        if state != "done" and row.cost:
            db.execute(
                keys.update()
                .where(keys.c.id == row.owner, keys.c.credits.is_not(None))
                .values(credits=keys.c.credits + row.cost)
            )
            ended["cost"] = 0.0
        due = sql.case((jobs.c.webhook_url.is_not(None), time.time()), else_=None)
        db.execute(jobs.update().where(jobs.c.id == row.id).values(**ended, webhook_due=due))
        return True

    def requeue(self, running: Iterable[Job], *, count_attempt: bool) -> list[Job]:
        """Return running jobs to the queue.

        With `count_attempt` (their worker died), jobs that have used all their attempts fail instead;
        returns the failed ones.
        """
        failed = []
        with self.store.writing() as db:
            for job in running:
                if count_attempt and job.attempts >= self.max_attempts:
                    error = f"the worker died {job.attempts} times on this job; it is not retried"
                    if self.finish_within(db, job, "failed", error=error):
                        failed.append(job)
                    continue
                mine = (jobs.c.id == job.id, jobs.c.state == "running", jobs.c.attempts == job.attempts)
                attempts = job.attempts if count_attempt else job.attempts - 1
                db.execute(
                    jobs.update()
                    .where(*mine)
                    .values(state="queued", runner=None, lease=None, attempts=attempts)
                )
        return failed

    def heartbeat(self, alive: Iterable[str] = ()) -> tuple[list[str], set[str]]:
        """Renew the leases of the jobs `alive` here, and requeue jobs with expired leases.

        Returns the ids of jobs that failed, and the ids that this runner holds.
        """
        now = time.time()
        running = jobs.c.state == "running"
        with self.store.reading() as db:
            rows = db.execute(sql.select(jobs.c.id, jobs.c.runner).where(running)).all()
        mine = {row.id for row in rows if row.runner == self.runner}
        if not rows:
            return [], mine
        with self.store.writing() as db:
            db.execute(
                jobs.update()
                .where(running, jobs.c.id.in_(mine.intersection(alive)))
                .values(lease=now + self.lease_seconds)
            )
            lost = sql.and_(running, jobs.c.lease < now)
            again = db.execute(
                jobs.update()
                .where(lost, jobs.c.attempts < self.max_attempts)
                .values(state="queued", runner=None, lease=None)
            )
            dead = db.execute(sql.select(jobs.c.id, jobs.c.attempts).where(lost)).all()
            for row in dead:
                error = f"the server died {row.attempts} times on this job; it is not retried"
                self._end(db, jobs.c.id == row.id, "failed", error=error)
        if again.rowcount or dead:
            log.warning("a server died: %d jobs were requeued, %d failed", again.rowcount, len(dead))
        return [row.id for row in dead], mine

    def _waiting(self, db: sql.Connection) -> list[Any]:
        columns = [jobs.c[name] for name in WAITING_COLUMNS]
        query = sql.select(*columns).where(jobs.c.state == "queued").order_by(jobs.c.created, jobs.c.id)
        rows = db.execute(query).all()
        owners = {row.owner for row in rows}
        if len(owners) < 2:
            return list(rows)
        served = sql.select(sql.func.max(jobs.c.started))
        last = {owner: db.scalar(served.where(jobs.c.owner == owner)) or 0.0 for owner in owners}
        return fair_order(rows, last)

    # Webhooks

    def due_webhooks(self) -> list[Job]:
        """Jobs with a due webhook; each is rescheduled first, so that a crash only delays the delivery."""
        now = time.time()
        due = sql.and_(jobs.c.webhook_due.is_not(None), jobs.c.webhook_due <= now)
        with self.store.reading() as db:
            if not db.scalar(sql.select(sql.func.count()).select_from(jobs).where(due)):
                return []
        with self.store.writing() as db:
            found = [Job(**row) for row in db.execute(sql.select(*COLUMNS).where(due).limit(20)).mappings()]
            for job in found:
                left = job.webhook_tries < len(WEBHOOK_PAUSES)
                next_try = now + WEBHOOK_PAUSES[job.webhook_tries] if left else None
                change = dict(webhook_due=next_try, webhook_tries=job.webhook_tries + 1)
                db.execute(jobs.update().where(jobs.c.id == job.id).values(**change))
        return found

    def delivered(self, job: Job) -> None:
        """Mark a webhook as delivered and erase its secret."""
        with self.store.writing() as db:
            db.execute(jobs.update().where(jobs.c.id == job.id).values(webhook_due=None, webhook_secret=None))

    # Uploads and cleanup

    def add_upload(self, owner: str, sha256: str, size: tuple[int, int]) -> None:
        """Allow `owner` to reference a stored picture in requests."""
        with self.store.writing() as db:
            mine = (uploads.c.owner == owner, uploads.c.sha256 == sha256)
            if not db.execute(uploads.update().where(*mine).values(created=time.time())).rowcount:
                row = dict(owner=owner, sha256=sha256, width=size[0], height=size[1], created=time.time())
                db.execute(uploads.insert().values(**row))

    def upload(self, owner: str, sha256: str) -> tuple[int, int]:
        """(width, height) of an owner's upload. Raises NotFound."""
        mine = (uploads.c.owner == owner, uploads.c.sha256 == sha256)
        with self.store.reading() as db:
            row = db.execute(sql.select(uploads.c.width, uploads.c.height).where(*mine)).one_or_none()
        if row is None:
            raise NotFound(f"no uploaded picture {sha256[:64]!r}; POST it to /api/pictures first")
        return row.width, row.height

    def expire(self, *, job_days: float, upload_days: float) -> int:
        """Delete old jobs and uploads and free their pictures; returns the bytes freed."""
        day, now = 86400.0, time.time()
        with self.store.writing() as db:
            old = (
                jobs.c.state.in_(ENDED),
                jobs.c.finished < now - job_days * day,
                jobs.c.webhook_due.is_(None),
            )
            db.execute(jobs.delete().where(*old))
            db.execute(uploads.delete().where(uploads.c.created < now - upload_days * day))
        keep: set[str] = set()
        with self.store.reading() as db:
            keep.update(db.scalars(sql.select(uploads.c.sha256)))
            for row in db.execute(sql.select(jobs.c.request, jobs.c.result)):
                keep.update(row.request.blobs)
                keep.update([row.result["picture"]] if row.result and row.result.get("picture") else [])
        return self.store.collect(keep=keep)
