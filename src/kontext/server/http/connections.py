"""Connection limits and timeouts of the server.

uvicorn itself waits forever for a request to arrive. Here every connection is in one of four phases (idle,
head, body, answer), each with a deadline. When the table is full, the connection that has waited longest
without a complete request is evicted, so that half-open connections never lock out real requests.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kontext.server.settings import Settings

log = logging.getLogger(__name__)

IDLE, HEAD, BODY, ANSWER = "idle", "head", "body", "answer"
EVICTED_FIRST = (IDLE, HEAD, BODY)
ACCEPTED_AT_ONCE = 16
"""Connections accepted in one iteration of the event loop, before they can be counted."""
RESERVED_FILES = 144
"""File descriptors reserved for the database (two for each of 32 connections), pictures, workers and logs."""
WANTED_FILES = 65536
SWEEP_SECONDS = 1.0
PROGRESS_BYTES = 65536  # a response that sends less than this in `stall_seconds` is stalled


@dataclass(frozen=True)
class Bounds:
    """Connection limits; times in seconds, rates in bytes per second."""

    connections: int
    per_address: int | None
    head_seconds: float
    body_seconds: float
    body_rate: int
    stall_seconds: float


def bounds_of(settings: Settings, files: int) -> Bounds:
    """The limits for a process that may open `files` descriptors."""
    room = max(ACCEPTED_AT_ONCE, files - RESERVED_FILES)
    direct = not settings.loopback and settings.public_url is None
    return Bounds(
        connections=min(settings.connections, room),
        per_address=settings.connections_per_address if direct else None,
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        body_rate=settings.body_rate,
        stall_seconds=settings.stall_seconds,
    )


def raise_file_limit() -> int:
    """Raise the soft limit of open files up to the hard limit; returns the new limit."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
    return WANTED_FILES if soft == resource.RLIM_INFINITY else soft


class Connections:
    """All open connections by phase, in order of entry. Use it on the event loop only."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.phases: dict[str, dict[Connection, None]] = {phase: {} for phase in (*EVICTED_FIRST, ANSWER)}
        self.addresses: Counter[str] = Counter()
        self.closing: dict[Connection, None] = {}

    def __len__(self) -> int:
        return sum(map(len, self.phases.values()))

    def admit(self, connection: Connection) -> bool:
        """Register a connection, evicting a waiting one if needed. False if there is no room."""
        limit = self.bounds.per_address
        if limit is not None and self.addresses[connection.address] >= limit:
            return False
        if len(self) >= self.bounds.connections:
            waiting = (connection for phase in EVICTED_FIRST for connection in self.phases[phase])
            victim = next(waiting, None)
            if victim is None:
                return False
            victim.end()
        self.addresses[connection.address] += 1
        self.phases[HEAD][connection] = None
        return True

    def move(self, connection: Connection, phase: str) -> None:
        """Record that a connection entered a phase (possibly the same one again)."""
        if self.phases[connection.phase].pop(connection, self) is self:
            return  # ended or never admitted
        self.phases[phase][connection] = None

    def forget(self, connection: Connection) -> None:
        """Remove a closed or closing connection from the table."""
        if self.phases[connection.phase].pop(connection, self) is self:
            return
        self.addresses[connection.address] -= 1
        if self.addresses[connection.address] <= 0:
            del self.addresses[connection.address]

    async def sweep(self) -> None:
        """Close overdue connections every second."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                self.end_overdue(time.monotonic())
            except Exception:
                log.exception("the connection sweep failed")

    def end_overdue(self, now: float) -> None:
        bounds = self.bounds
        for connection in [
            candidate for candidate in self.phases[HEAD] if now - candidate.since > bounds.head_seconds
        ]:
            connection.end("the request head took too long")
        for connection in list(self.phases[BODY]):
            allowed = bounds.body_seconds + connection.received / bounds.body_rate
            if now - connection.since > allowed and not connection.flow.read_paused:
                connection.end("the request body took too long")
        for phase in list(self.phases.values()):
            for connection in list(phase):
                if connection.stalled(now, bounds.stall_seconds):
                    connection.end()


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, reporting its phase to the table."""

    def __init__(self, *args: Any, table: Connections, **more: Any) -> None:
        super().__init__(*args, **more)
        self.table = table
        self.address = ""
        self.phase = HEAD
        self.since = self.unsent_since = time.monotonic()
        self.received = self.unsent = 0
        self._counted: Any = None  # the request that `since` and `received` belong to

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = _network(self.client[0]) if self.client else ""
        if not self.table.admit(self):
            self._answer("503 Service Unavailable", "too many connections; try again in a moment")
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.table.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)
        self._settle()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._settle()

    def end(self, reason: str | None = None) -> None:
        """Close immediately, with a 408 response if none has begun."""
        self.table.forget(self)
        if reason and (self.cycle is None or self.cycle.response_complete or not self.cycle.response_started):
            self._answer("408 Request Timeout", reason)
        self.transport.abort()

    def stalled(self, now: float, seconds: float) -> bool:
        """Whether the client has not read its response for this long."""
        size = self.transport.get_write_buffer_size()
        if not size or not self.unsent or abs(size - self.unsent) >= PROGRESS_BYTES:
            self.unsent, self.unsent_since = size, now
        return now - self.unsent_since > seconds

    def _settle(self) -> None:
        phase = self._current_phase()
        if phase != self.phase or self._counted is not self.cycle:
            self.table.move(self, phase)
            self.phase, self._counted = phase, self.cycle
            self.since, self.received = time.monotonic(), 0

    def _current_phase(self) -> str:
        sending = self.conn.their_state is h11.SEND_BODY
        if self.cycle is not None and not self.cycle.response_complete:
            return BODY if sending else ANSWER
        if sending:  # answered before the body was complete; the rest is read and discarded
            return BODY
        return HEAD if self.cycle is None or self.conn.trailing_data[0] else IDLE

    def _answer(self, status: str, message: str) -> None:
        if not self.transport.is_closing() and not self.transport.get_write_buffer_size():
            text = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\nconnection: close\r\n"
            self.transport.write(f"{text}content-length: {len(message)}\r\n\r\n{message}".encode("ascii"))


def _network(host: str) -> str:
    """The rate-limit key of an address: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
