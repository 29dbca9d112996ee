"""Storage quotas: the pictures of a key's sessions, uploads and jobs, each counted once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

import sqlalchemy as sql

from kontext.server.errors import QuotaFull
from kontext.server.jobs.schema import jobs, uploads
from kontext.session import Store
from kontext.session.schema import sessions, turn_blobs, turns

COUNT_SECONDS = 60.0  # between two full counts; additions in between are added to the last count
OWNERS, SIZES = 1000, 100_000  # cache sizes


class Quotas:
    """Thread-safe. Each server counts independently."""

    def __init__(self, store: Store, limit_bytes: int | None) -> None:
        self.store, self.limit = store, limit_bytes
        self._used: OrderedDict[str, tuple[float, int]] = OrderedDict()  # owner: (when counted, bytes)
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by sha256; they never change
        self._lock = threading.Lock()

    def check(self, owner: str) -> None:
        """Raises QuotaFull if the quota of a key is used up. Without keys there is no quota."""
        if not owner or self.limit is None:
            return
        used = self.used(owner)
        if used >= self.limit:
            full = f"this key uses {used / 2**20:.0f} MiB of its {self.limit / 2**20:.0f} MiB"
            raise QuotaFull(f"{full}; delete sessions, or ask the operator for more")

    def used(self, owner: str) -> int:
        """Bytes used by a key: a count at most a minute old plus everything added since."""
        with self._lock:
            counted, used = self._used.get(owner, (-COUNT_SECONDS, 0))
            near = (
                self.limit is not None and used >= self.limit
            )  # near the limit, deletions count immediately
            if near or time.monotonic() - counted >= COUNT_SECONDS:
                used = self._count(owner)
                self._used[owner] = time.monotonic(), used
                while len(self._used) > OWNERS:
                    self._used.popitem(last=False)
            return used

    def add(self, owner: str, *names: str) -> None:
        """Record that pictures were stored for a key."""
        if not owner or self.limit is None:
            return
        with self._lock:
            if owner in self._used:
                counted, used = self._used[owner]
                self._used[owner] = counted, used + sum(map(self._size, names))

    def _count(self, owner: str) -> int:
        query = (
            sql.select(turn_blobs.c.sha256)
            .join(turns, turns.c.id == turn_blobs.c.turn_id)
            .join(sessions, sessions.c.id == turns.c.session_id)
            .where(sessions.c.owner == owner)
            .distinct()
        )
        with self.store.reading() as db:
            names = set(db.scalars(query))
            names.update(db.scalars(sql.select(uploads.c.sha256).where(uploads.c.owner == owner)))
            for row in db.execute(sql.select(jobs.c.request, jobs.c.result).where(jobs.c.owner == owner)):
                names.update(row.request.blobs)
                names.update([row.result["picture"]] if row.result and row.result.get("picture") else [])
        return sum(map(self._size, names))

    def _size(self, name: str) -> int:
        size = self._sizes.get(name)
        if size is None:
            size = self._sizes[name] = self.store.blobs.size(name)
            while len(self._sizes) > SIZES:
                self._sizes.popitem(last=False)
        return size
