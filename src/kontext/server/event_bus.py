"""Who listens to what: events of jobs and sessions, from the service to the streams of this process.

Only news travels here; what counts is in the database. A listener that is too slow loses steps, never its
last word, because streams look into the database when nothing comes.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

WAITING = 256  # events a slow listener may fall behind


class Event(NamedTuple):
    kind: str
    data: dict[str, Any]


class EventBus:
    """Topics ("job:ID", "session:ID") and their subscribers. To be used on the event loop."""

    def __init__(self, watch: Callable[[set[str]], None] = lambda topics: None) -> None:
        """`watch` is called with the topics of whoever begins to listen for previews."""
        self._watch = watch
        self._watchers: Counter[str] = Counter()
        self._subscribers: dict[str, set[asyncio.Queue[Event | None]]] = defaultdict(set)
        self.steps: dict[str, tuple[int, int]] = {}  # of running jobs: (step, steps)
        self.closed = False

    @contextmanager
    def subscribe(self, *topics: str, previews: bool = False) -> Iterator[asyncio.Queue[Event | None]]:
        """A queue of events; None in it means that the service stops. Previews cost the worker time."""
        inbox: asyncio.Queue[Event | None] = asyncio.Queue(WAITING)
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

    def watched(self, topic: str) -> bool:
        """Whether somebody wants previews."""
        return topic in self._watchers

    def publish(self, topic: str, kind: str, **data: Any) -> None:
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
