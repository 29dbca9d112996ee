"""Fair scheduling: round robin between keys, oldest first within a key."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any


def fair_order(waiting: Iterable[Any], last_served: Mapping[str, float]) -> list[Any]:
    """Queued jobs (with `owner`; given oldest first) in the order in which they will start.

    The owner served least recently comes first, then the others in turn: a key with one job waits for at most
    one job of every other key, however many they have queued. `last_served`: start time of each owner's most
    recent job.
    """
    lines: dict[str, deque] = defaultdict(deque)
    for job in waiting:
        lines[job.owner].append(job)
    owners = sorted(lines, key=lambda owner: last_served.get(owner, 0.0))  # stable: ties by age
    ordered = []
    while owners:
        for owner in owners:
            ordered.append(lines[owner].popleft())
        owners = [owner for owner in owners if lines[owner]]
    return ordered
