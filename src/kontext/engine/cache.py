"""A cache of computed values, bounded in bytes: the least recently used are dropped first. Thread-safe."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")


class ByteCache:
    def __init__(self, limit_bytes: int):
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """The value of `key`, computed and cached on a miss.

        Other threads wait for a computation that is running.

        A value larger than the cache is returned, but not cached.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
            value = make()
            room = size(value)
            if room <= self.limit_bytes:
                self._entries[key] = (value, room)
                self.bytes += room
                while self.bytes > self.limit_bytes:
                    _, (_, freed) = self._entries.popitem(last=False)
                    self.bytes -= freed
            return value

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)
