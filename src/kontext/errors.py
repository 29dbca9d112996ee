"""Errors that users can cause. Messages are one line: what was given, what is allowed, what to do.

The edges (command line, HTTP) turn these into exit codes and answers; nothing below them catches broadly.
"""


class KontextError(Exception):
    """Base of all errors with a message for the user."""

    param: str | None = None
    """The argument at fault, where an API client needs its name."""


class BadPicture(KontextError):
    """A picture that cannot be read or is outside the limits."""


class BadRequest(KontextError):
    """An argument that is invalid or not supported."""


class BadCheckpoint(KontextError):
    """Weights that are damaged, of another model, or in a refused format."""


class BadConfig(KontextError):
    """A configuration file with unknown keys or impossible values."""


class DeviceUnavailable(BadRequest):
    """A device that does not exist here, or that failed while it was used."""


class OutOfMemory(KontextError):
    """More memory than the device or this machine has."""


class NotFound(KontextError):
    """Something named by the user does not exist: a file, a model, a session, a turn."""


class Busy(KontextError):
    """A resource is in use (a session opened twice, a full queue)."""


class Unavailable(Busy):
    """The storage is not usable now: no permission, a damaged or missing file, a locked database."""


class NoSpace(Unavailable):
    """The storage is full."""


class Conflict(Busy):
    """The state that a change is based on was changed concurrently; nothing was lost."""


class Cancelled(KontextError):
    """The user cancelled; nothing was written."""
