"""Who asks: keys (kept as hashes), what they allow, and how often they may ask.

On loopback nobody needs a key and everybody is the owner "". Elsewhere the id of the key owns sessions and
jobs. A key travels as `x-key`, as `Authorization: Bearer`, or, for pages, in a cookie that scripts cannot
read.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import sqlalchemy as sql
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from kontext.errors import BadRequest, KontextError, NotFound
from kontext.server.schema import keys

if TYPE_CHECKING:
    from kontext.server.service import Service
    from kontext.session import Store

SCOPES = {"read": "look at one's own sessions and jobs", "edit": "make pictures", "metrics": "read /metrics"}
COOKIE = "kontext_key"
REMEMBER_SECONDS = 5.0  # how soon a revoked key is refused by every server


class NoKey(KontextError):
    """A key is needed, or the one given is not (or no longer) good."""


class Forbidden(KontextError):
    """The key does not allow this, or a foreign page asked."""


class TooOften(KontextError):
    """The rate of a key is used up."""

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Key:
    """A key as the server knows it; the key itself is shown once, when it is made."""

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


COLUMNS = [keys.c[field.name] for field in fields(Key)]
EVERYBODY = Key("", "everybody here", "", list(SCOPES), None, None, None, 0.0, None, False)


class Keys:
    """The keys of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, tuple[float, Key | None]] = {}

    def make(
        self,
        name: str,
        *,
        scopes: Iterable[str] = ("read", "edit"),
        rate_per_minute: int | None = None,
        active_jobs: int | None = None,
        credits: float | None = None,
        days: float | None = None,
    ) -> tuple[Key, str]:
        """A new key, and its text, which is not kept. Raises BadRequest."""
        scopes = list(dict.fromkeys(scopes))
        if unknown := [scope for scope in scopes if scope not in SCOPES]:
            raise BadRequest(f"no scope {unknown[0]!r}; there are {', '.join(SCOPES)}")
        text, now = f"kontext_{secrets.token_urlsafe(32)}", time.time()
        row: dict[str, Any] = dict(
            id=secrets.token_hex(8),
            name=name[:200],
            start=text[:12],
            scopes=scopes,
            rate_per_minute=rate_per_minute,
            active_jobs=active_jobs,
            credits=credits,
            created=now,
            expires=now + 86400 * days if days else None,
            revoked=False,
        )
        with self.store.writing() as db:
            db.execute(keys.insert().values(**row, hash=_hash(text)))
        return Key(**row), text

    def all(self) -> list[Key]:
        with self.store.reading() as db:
            return [
                Key(**row) for row in db.execute(sql.select(*COLUMNS).order_by(keys.c.created)).mappings()
            ]

    def find(self, name: str) -> Key:
        """By id, name or first characters. Raises NotFound."""
        found = [
            key for key in self.all() if name in (key.id, key.start) or (name == key.name and not key.revoked)
        ]
        if len(found) != 1:
            raise NotFound(
                f"{len(found) or 'no'} keys are called {name!r}; `kontext keys list` shows their ids"
            )
        return found[0]

    def change(self, key: Key, **values: Any) -> None:
        """Set columns: revoked=True, credits=100.0, ..."""
        with self.store.writing() as db:
            db.execute(keys.update().where(keys.c.id == key.id).values(**values))

    def look_up(self, text: str) -> Key | None:
        """The key of this text when it is good; remembered for a few seconds."""
        digest = _hash(text)
        then, key = self._known.get(digest, (0.0, None))
        if time.monotonic() - then > REMEMBER_SECONDS:
            with self.store.reading() as db:
                row = db.execute(sql.select(*COLUMNS).where(keys.c.hash == digest)).mappings().one_or_none()
            key = Key(**row) if row else None
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[digest] = (time.monotonic(), key)
        good = key is not None and not key.revoked and (key.expires is None or key.expires > time.time())
        return key if good else None


class Rates:
    """Token buckets in memory, a minute deep: one per key in each server process."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, owner: str, per_minute: int) -> None:
        """Raises TooOften with the seconds to wait."""
        now = time.monotonic()
        level, then = self._buckets.get(owner, (float(per_minute), now))
        level = min(per_minute, level + (now - then) * per_minute / 60)
        if level < 1:
            wait = (1 - level) * 60 / per_minute
            raise TooOften(f"more than {per_minute} requests a minute; wait {wait:.0f} seconds", wait)
        self._buckets[owner] = (level - 1, now)


def service_of(request: Request) -> Service:
    return request.app.state.service


_header = APIKeyHeader(name="x-key", auto_error=False, description="A key made by `kontext keys make`.")
_bearer = HTTPBearer(auto_error=False)


def allowed(scope: str) -> Callable:
    """A dependency: the caller's key, if it has this scope. Raises NoKey, Forbidden, TooOften."""

    async def caller(
        request: Request,
        header: Annotated[str | None, Security(_header)] = None,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> Key:
        state = request.app.state
        if not state.service.settings.keys_needed:
            return EVERYBODY
        text = header or (bearer.credentials if bearer else None) or request.cookies.get(COOKIE)
        if not text:
            raise NoKey("Not authenticated: send a key as header x-key or Authorization: Bearer")
        key = await asyncio.to_thread(state.keys.look_up, text)
        if key is None:
            raise NoKey("this key is not known, has expired or was revoked; ask the operator for one")
        if scope not in key.scopes:
            raise Forbidden(
                f"this key does not allow to {SCOPES[scope]}; ask the operator for the scope {scope!r}"
            )
        state.rates.take(key.id, key.rate_per_minute or state.service.settings.rate_per_minute)
        return key

    return caller


Reader = Annotated[Key, Depends(allowed("read"))]
Maker = Annotated[Key, Depends(allowed("edit"))]
Watcher = Annotated[Key, Depends(allowed("metrics"))]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()  # 256 random bits need no slow hash
