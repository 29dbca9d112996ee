"""Settings of glibc's malloc for the whole process: how much freed memory it keeps.

With another C library nothing happens.
"""

from __future__ import annotations

import ctypes

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
