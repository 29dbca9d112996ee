"""How much freed memory the C library keeps: settings of glibc's malloc, for the whole process.

Where the C library is another, nothing happens.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt
KEPT_BYTES, LARGE_BYTES = 256 * 2**20, 32 * 2**20


def keep_freed() -> None:
    """Keep up to 256 MiB, in pieces of up to 32 MiB, for what comes next instead of giving it back to the
    system: fresh pages cost a small model a seventh of an edit.
    """
    _set(TRIM_THRESHOLD, KEPT_BYTES)
    _set(MMAP_THRESHOLD, LARGE_BYTES)


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (AttributeError, OSError, TypeError):
        pass


def give_back() -> None:
    """Give freed memory back to the system now, where the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass
