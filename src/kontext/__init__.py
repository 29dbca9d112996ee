"""The open, complete FLUX.1 Kontext system: say what to change in a picture; only that changes."""

from kontext.threads import spin_briefly

__version__ = "0.1.0"
__all__ = ["Editor"]


spin_briefly()  # before anything imports torch


def __getattr__(name: str):
    # Lazy, so that `kontext --help` and the errors do not pay for torch.
    if name == "Editor":
        from kontext.engine import Editor

        return Editor
    raise AttributeError(f"module 'kontext' has no attribute {name!r}")
