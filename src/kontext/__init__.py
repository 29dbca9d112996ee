"""The open, complete FLUX.1 Kontext system: say what to change in a picture; only that changes."""

__version__ = "0.1.0"
__all__ = ["Editor"]


def __getattr__(name: str):
    # Lazy, so that `kontext --help` and the errors do not pay for torch.
    if name == "Editor":
        from kontext.engine import Editor

        return Editor
    raise AttributeError(f"module 'kontext' has no attribute {name!r}")
