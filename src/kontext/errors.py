"""Every error that a user can cause. One line each: what was given, what is allowed, what to do.

The edges (command line, HTTP) turn these into exit codes and answers; nothing below them catches broadly.
"""


class KontextError(Exception):
    """Base of all errors meant for the person at the keyboard."""

    param: str | None = None
    """The argument at fault, where an API client needs its name."""


class BadPicture(KontextError):
    """A picture that cannot be read or is outside the limits."""


class BadRequest(KontextError):
    """An argument that cannot be honoured."""


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
    """Somebody else holds what is needed now (a session opened twice, a full queue)."""


class Unavailable(Busy):
    """The storage does not do its part now: no permission, a damaged or missing file, a locked database."""


class NoSpace(Unavailable):
    """The storage is full."""


class Conflict(Busy):
    """What a change builds on has itself been changed in the meantime; nothing was lost."""


class Cancelled(KontextError):
    """The person asked to stop; nothing was written."""
