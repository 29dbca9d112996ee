"""Errors that users can cause. Messages are one line: the value, the allowed values, and what to do.

Command line and HTTP convert them into exit codes and responses; code below does not catch broadly.
"""


class KontextError(Exception):
    """Base of all errors with a message for the user."""

    param: str | None = None
    """The invalid argument, for API clients."""


class BadPicture(KontextError):
    """A picture that cannot be read or is outside of the limits."""


class BadRequest(KontextError):
    """An argument that is invalid or not supported."""


class BadCheckpoint(KontextError):
    """Weights that are damaged, of another model, or in a refused format."""


class BadConfig(KontextError):
    """A configuration file with unknown keys or impossible values."""


class DeviceUnavailable(BadRequest):
    """A device that does not exist, or that failed in use."""


class OutOfMemory(KontextError):
    """The device or this machine has too little memory."""


class NotFound(KontextError):
    """A file, model, session or turn does not exist."""


class Busy(KontextError):
    """A resource is in use (a session opened twice, a full queue)."""


class Unavailable(Busy):
    """The storage is not usable: no permission, a damaged or missing file, a locked database."""


class NoSpace(Unavailable):
    """The storage is full."""


class Conflict(Busy):
    """The state was changed concurrently; reload it and try again."""


class Cancelled(KontextError):
    """The operation was cancelled; nothing was written."""
