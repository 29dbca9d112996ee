"""One edit: pictures in and out, sizes, contexts computed once, sampling, regions and compositing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kontext.engine.editor import Editor
    from kontext.engine.requests import EditOptions, EditRequest, GenerateOptions, Result, StepInfo

__all__ = ["EditOptions", "EditRequest", "Editor", "GenerateOptions", "Result", "StepInfo"]


def __getattr__(name: str) -> object:
    # Lazy, so that pictures and sizes can be checked without waiting for torch.
    if name == "Editor":
        from kontext.engine.editor import Editor

        return Editor
    if name in __all__:
        from kontext.engine import requests

        return getattr(requests, name)
    raise AttributeError(f"module 'kontext.engine' has no attribute {name!r}")
