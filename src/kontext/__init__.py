"""The open, complete FLUX.1 Kontext system: say what to change in a picture; only that changes.

with Editor.load("nano") as editor:
    editor.edit("kid.png", "Make the hair blue", seed=1).save("blue.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING

from kontext.errors import (
    BadCheckpoint,
    BadConfig,
    BadPicture,
    BadRequest,
    Busy,
    Cancelled,
    Conflict,
    DeviceUnavailable,
    KontextError,
    NoSpace,
    NotFound,
    OutOfMemory,
    Unavailable,
)
from kontext.threads import spin_briefly
from kontext.version import __version__

__all__ = [
    "BadCheckpoint",
    "BadConfig",
    "BadPicture",
    "BadRequest",
    "Busy",
    "Cancelled",
    "Conflict",
    "DeviceUnavailable",
    "EditRequest",
    "Editor",
    "KontextError",
    "NoSpace",
    "NotFound",
    "OutOfMemory",
    "Result",
    "Session",
    "StepInfo",
    "Store",
    "Unavailable",
    "__version__",
]

spin_briefly()  # before anything imports torch

if TYPE_CHECKING:
    from kontext.engine.editor import Editor
    from kontext.engine.requests import EditRequest, Result, StepInfo
    from kontext.session.session import Session
    from kontext.session.store import Store
else:
    # Lazy, so that `kontext --help` and the errors do not pay for torch. Hidden from type checkers, which
    # would otherwise accept any name.
    _MODULES = {
        "EditRequest": "kontext.engine.requests",
        "Editor": "kontext.engine.editor",
        "Result": "kontext.engine.requests",
        "Session": "kontext.session.session",
        "StepInfo": "kontext.engine.requests",
        "Store": "kontext.session.store",
    }

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'kontext' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
