"""In-process publish/subscribe of job and session events, from the service to event streams.

Events are notifications only; the database is authoritative. A slow subscriber can miss steps but never the
terminal event, because streams poll the database when no event arrives.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

MAX_PENDING = 256  # events that a slow subscriber may lag behind


class Event(NamedTuple):
    kind: str
    data: dict[str, Any]


class EventBus:
    """Topics ("job:ID", "session:ID") and their subscribers. Use it on the event loop only."""

    def __init__(self, watch: Callable[[set[str]], None] = lambda topics: None) -> None:
        """`watch` is called with the topics of every new preview subscriber."""
        self._watch = watch
        self._watchers: Counter[str] = Counter()
        self._subscribers: dict[str, set[asyncio.Queue[Event | None]]] = defaultdict(set)
        self.steps: dict[str, tuple[int, int]] = {}  # of running jobs: (step, steps)
        self.closed = False

    @contextmanager
    def subscribe(self, *topics: str, previews: bool = False) -> Iterator[asyncio.Queue[Event | None]]:
        """A queue of events; None means that the service is stopping. Previews cost worker time."""
        inbox: asyncio.Queue[Event | None] = asyncio.Queue(MAX_PENDING)
        for topic in topics:
            self._subscribers[topic].add(inbox)
        if previews:
            self._watchers.update(topics)
            self._watch(set(topics))
        try:
            yield inbox
        finally:
            if previews:
                self._watchers -= Counter(topics)
            for topic in topics:
                self._subscribers[topic].discard(inbox)
                if not self._subscribers[topic]:
                    del self._subscribers[topic]

    def has_subscribers(self, topic: str) -> bool:
        """Whether a subscriber of this topic wants previews."""
        return topic in self._watchers

    def publish(self, topic: str, kind: str, **data: Any) -> None:
        """Queue an event for all subscribers of a topic; dropped for subscribers that lag behind."""
        for inbox in self._subscribers.get(topic, ()):
            if not inbox.full():
                inbox.put_nowait(Event(kind, data))

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        for inbox in {inbox for subscribers in self._subscribers.values() for inbox in subscribers}:
            if inbox.full():
                inbox.get_nowait()
            inbox.put_nowait(None)


def topics(job: Any) -> list[str]:
    """The topics on which events of a job (or of a row with its `id` and `session_id`) are published."""
    return [f"job:{job.id}"] + ([f"session:{job.session_id}"] if job.session_id else [])
