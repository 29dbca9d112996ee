"""Errors of the service and its workers; `answers.py` maps them to HTTP responses."""

from __future__ import annotations

from kontext.errors import Busy, KontextError


class Unauthorized(KontextError):
    """A key is required, or the given one is unknown, expired or revoked."""


class Forbidden(KontextError):
    """The key lacks the scope, or the request came from a page of another site."""


class RateLimited(KontextError):
    """The rate limit of a key is exceeded."""

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class QueueFull(Busy):
    """Too many active jobs, of this key or in total."""


class NoCredits(KontextError):
    """The credits of a key are used up."""


class QuotaFull(KontextError):
    """The storage quota of a key is full."""


class TooLarge(KontextError):
    """A body or picture above the limits."""


class NotReady(KontextError):
    """The server is stopping, or has no model."""


class ModerationBlocked(KontextError):
    """The prompt, an input picture or the result was blocked by moderation."""


class ExpansionFailed(KontextError):
    """The endpoint that expands prompts gave no usable answer."""


class WorkerDied(KontextError):
    """A worker process died before finishing its batch."""


class CannotLoad(KontextError):
    """The model cannot be loaded; a retry does not help."""
