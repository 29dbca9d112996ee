"""Limits of memory, available main memory, and how much freed memory glibc keeps.

The settings are those of its malloc, for the whole process; with another C library nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from kontext.errors import BadRequest

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt
KEPT_BYTES, LARGE_BYTES = 256 * 2**20, 32 * 2**20


def keep_freed() -> None:
    """Keep up to 256 MiB of freed memory, in pieces of up to 32 MiB, for reuse.

    New pages from the system take a seventh of an edit by a small model.
    """
    _set(TRIM_THRESHOLD, KEPT_BYTES)
    _set(MMAP_THRESHOLD, LARGE_BYTES)


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (AttributeError, OSError, TypeError):
        pass


def give_back() -> None:
    """Return freed memory to the system, if the C library supports it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass


def available() -> int:
    """Bytes of main memory that programs can still take.

    Of the machine, or of the group this process is limited to.
    """
    free = _of_the_machine()
    for limit, used in _GROUP_FILES:
        try:
            most, taken = int(limit.read_text()), int(used.read_text())
        except (OSError, ValueError):  # no group, or "max"
            continue
        free = min(free, max(0, most - taken))
    return free


_GROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def _of_the_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4
    except (AttributeError, OSError, ValueError):
        return 8 * 2**30


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_memory(limit: str | int | None) -> int | None:
    """Parse a limit such as "8GB", "12 GiB" or a number of bytes; None for "auto". Raises BadRequest."""
    if limit is None or (type(limit) is int and limit > 0):
        return limit
    text = str(limit).strip().lower()
    if text == "auto":
        return None
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmg]?i?)b?", text)
    size = float(found[1]) * _UNITS.get(found[2], 0) if found else 0
    if size < 1:
        raise BadRequest(
            f"memory {str(limit)!r} is not understood; give auto or a size, such as 8GB or 12GiB"
        )
    return int(size)
