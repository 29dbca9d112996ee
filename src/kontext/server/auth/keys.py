"""API keys (stored as hashes), their scopes and rate limits."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sql

from kontext.errors import BadRequest, NoSpace, NotFound, Unavailable
from kontext.server.errors import RateLimited
from kontext.server.jobs.schema import keys
from kontext.session import Store

SCOPES = {"read": "read own sessions and jobs", "edit": "create pictures", "metrics": "read /metrics"}
MAX_NAME, MAX_DAYS = 200, 36500
REMEMBER_SECONDS = 4.0  # after which every server rejects a revoked key
USE_SECONDS = 60.0  # between two notes that a key is used

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """A key as stored; its text is shown only once, when it is created."""

    id: str
    name: str
    start: str
    scopes: list[str]
    rate_per_minute: int | None
    active_jobs: int | None
    credits: float | None
    created: float
    expires: float | None
    revoked: bool
    last_used: float | None = None
    """Seconds since 1970, up to `USE_SECONDS` too early; None: never."""


COLUMNS = [keys.c[field.name] for field in fields(Key)]
LOCAL_USER = Key("", "local user", "", list(SCOPES), None, None, None, 0.0, None, False)


def check_credits(credits: float | None) -> None:
    """Raise BadRequest unless credits are None (unlimited) or finite and not negative."""
    if credits is not None and not 0 <= credits < math.inf:
        raise BadRequest(f"credits must be a number from 0 on, got {credits:g}; omit them for no limit")


class Keys:
    """The keys of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._cache: dict[str, tuple[float, Key | None]] = {}
        self._noted: dict[str, float] = {}

    def create(
        self,
        name: str,
        *,
        scopes: Iterable[str] = ("read", "edit"),
        rate_per_minute: int | None = None,
        active_jobs: int | None = None,
        credits: float | None = None,
        days: float | None = None,
    ) -> tuple[Key, str]:
        """Create a key; returns it with its text, which is not stored.

        Raises BadRequest for an unknown scope, days or credits out of range, and a name that is empty, not
        printable or used by another valid key.
        """
        name = name.strip()
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise BadRequest(f"name must be 1 to {MAX_NAME} printable characters")
        if days is not None and not 0 < days <= MAX_DAYS:
            raise BadRequest(
                f"days must be above 0 and at most {MAX_DAYS}, got {days:g}; omit it for no expiry"
            )
        check_credits(credits)
        scopes = list(dict.fromkeys(scopes))
        if unknown := [scope for scope in scopes if scope not in SCOPES]:
            raise BadRequest(f"unknown scope {unknown[0]!r}; available scopes are {', '.join(SCOPES)}")
        text, now = f"kontext_{secrets.token_urlsafe(32)}", time.time()
        row: dict[str, Any] = dict(
            id=secrets.token_hex(8),
            name=name,
            start=text[:12],
            scopes=scopes,
            rate_per_minute=rate_per_minute,
            active_jobs=active_jobs,
            credits=credits,
            created=now,
            expires=None if days is None else now + 86400 * days,
            revoked=False,
        )
        good = sql.and_(keys.c.revoked.is_(False), sql.or_(keys.c.expires.is_(None), keys.c.expires > now))
        with self.store.writing() as db:
            if db.scalar(sql.select(keys.c.id).where(keys.c.name == name, good)):
                raise BadRequest(f"a key named {name!r} exists; revoke it first or choose another name")
            db.execute(keys.insert().values(**row, hash=_hash(text)))
        return Key(**row), text

    def all(self) -> list[Key]:
        with self.store.reading() as db:
            return [
                Key(**row) for row in db.execute(sql.select(*COLUMNS).order_by(keys.c.created)).mappings()
            ]

    def find(self, name: str) -> Key:
        """Find a key by id, name or first characters. Raises NotFound."""
        found = [
            key for key in self.all() if name in (key.id, key.start) or (name == key.name and not key.revoked)
        ]
        if len(found) != 1:
            raise NotFound(f"{len(found) or 'no'} keys match {name!r}; `kontext keys list` shows their ids")
        return found[0]

    def change(self, key: Key, **values: Any) -> None:
        """Set columns: revoked=True, credits=100.0, ... Raises BadRequest for credits out of range."""
        check_credits(values.get("credits"))
        with self.store.writing() as db:
            db.execute(keys.update().where(keys.c.id == key.id).values(**values))

    def look_up(self, text: str) -> Key | None:
        """The key of this text if it is valid; cached for a few seconds."""
        return self._good(_hash(text), keys.c.hash)

    def by_id(self, key_id: str) -> Key | None:
        """The key with this id if it is valid; cached for a few seconds."""
        return self._good(key_id, keys.c.id)

    def _good(self, value: str, column: sql.ColumnElement[str]) -> Key | None:
        then, key = self._cache.get(value, (0.0, None))
        if time.monotonic() - then > REMEMBER_SECONDS:
            with self.store.reading() as db:
                row = db.execute(sql.select(*COLUMNS).where(column == value)).mappings().one_or_none()
            key = Key(**row) if row else None
            if len(self._cache) > 10_000:
                self._cache.clear()
            self._cache[value] = (time.monotonic(), key)
        good = key is not None and not key.revoked and (key.expires is None or key.expires > time.time())
        return key if good else None

    def begin_use(self, key: Key) -> bool:
        """Whether `note_use` is due for this key, which is then counted as done."""
        due = time.monotonic() - self._noted.get(key.id, -USE_SECONDS) >= USE_SECONDS
        if due:
            self._noted[key.id] = time.monotonic()
        return due

    def note_use(self, key: Key) -> None:
        """Record that a key is used now. Errors of the store do not reject the request."""
        try:
            self.change(key, last_used=time.time())
        except (NoSpace, Unavailable) as error:
            log.warning("the use of key %s is not recorded: %s", key.id, error)

    def is_good(self, key: Key) -> bool:
        """Whether a key is still valid, checked in the database."""
        query = sql.select(keys.c.expires).where(keys.c.id == key.id, keys.c.revoked.is_(False))
        with self.store.reading() as db:
            row = db.execute(query).one_or_none()
        return row is not None and (row.expires is None or row.expires > time.time())

    def credits(self, key: Key) -> float | None:
        """Remaining credits of a key, read from the database; None if they are not limited."""
        with self.store.reading() as db:
            return db.scalar(sql.select(keys.c.credits).where(keys.c.id == key.id))


class Rates:
    """In-memory token buckets with a capacity of one minute: one per key and server process."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, owner: str, per_minute: int) -> None:
        """Raises RateLimited with the seconds to wait."""
        now = time.monotonic()
        level, then = self._buckets.get(owner, (float(per_minute), now))
        level = min(per_minute, level + (now - then) * per_minute / 60)
        if level < 1:
            wait = (1 - level) * 60 / per_minute
            raise RateLimited(
                f"rate limit of {per_minute} requests per minute exceeded; wait {wait:.0f} seconds", wait
            )
        self._buckets[owner] = (level - 1, now)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()  # 256 random bits need no slow hash
