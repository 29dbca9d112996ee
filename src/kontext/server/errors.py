"""What the service refuses, and how its workers fail; `answers.py` turns the refusals into HTTP answers."""

from __future__ import annotations

from kontext.errors import Busy, KontextError


class Unauthorized(KontextError):
    """A key is needed, or the one given is not (or no longer) good."""


class Forbidden(KontextError):
    """The key does not allow this, or a foreign page asked."""


class RateLimited(KontextError):
    """The rate of a key is used up."""

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class QueueFull(Busy):
    """Too many active jobs, of this key or in all."""


class NoCredits(KontextError):
    """The credits of a key are spent."""


class QuotaFull(KontextError):
    """The storage that a key may fill is full."""


class TooLarge(KontextError):
    """A body or picture above the limits."""


class NotReady(KontextError):
    """The server stops, or has no model."""


class ModerationBlocked(KontextError):
    """Moderated: the prompt, a picture given, or the result."""


class WorkerDied(KontextError):
    """The process of a worker is gone; what it ran is not finished."""


class CannotLoad(KontextError):
    """The model cannot be loaded; trying again does not help."""
