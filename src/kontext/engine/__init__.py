"""One edit: pictures in and out, sizes, contexts computed once, sampling, regions and compositing."""

from kontext.engine.editor import Editor
from kontext.engine.requests import EditRequest, Result, StepInfo

__all__ = ["EditRequest", "Editor", "Result", "StepInfo"]
