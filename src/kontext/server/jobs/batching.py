"""Which jobs can share a batch: their sizes, steps and guidance as text, and the canvases these lead to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from kontext.engine.sizes import plan_edit, plan_generate
from kontext.errors import BadRequest


def shape_of(
    edit: dict[str, Any], size: tuple[int, int] | None, references: Sequence[tuple[int, int]]
) -> str:
    """The batching key of a request as text: picture size, size spec, reference sizes, steps, guidance."""
    sizes = ",".join(f"{width}x{height}" for width, height in references)
    own = f"{size[0]}x{size[1]}" if size else ""
    size_spec = "" if edit.get("size") is None else edit["size"]
    return f"{own}|{size_spec}|{sizes}|{edit.get('steps')}|{edit.get('guidance')}"


@lru_cache(4096)
def output_size(shape: str, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    """(width, height) of the result of a shape (see `shape_of`); None if it is invalid."""
    own, size_spec, *_ = shape.split("|")
    try:
        width, height = own.split("x") if own else ("0", "0")
        size = int(width), int(height)
        plan = (
            plan_edit(size, size_spec or "match", sizes) if own else plan_generate(size_spec or None, sizes)
        )
    except (BadRequest, ValueError):
        return None
    return plan.output


@lru_cache(4096)
def canvas_shape(shape: str, sizes: tuple[tuple[int, int], ...]) -> tuple:
    """A shape with every size replaced by the model's canvas for it; see `Editor`."""
    own, size_spec, references, steps, guidance = shape.split("|")

    def size(text: str) -> tuple[int, int]:
        width, height = text.split("x")
        return int(width), int(height)

    try:
        plan = (
            plan_edit(size(own), size_spec or "match", sizes)
            if own
            else plan_generate(size_spec or None, sizes)
        )
        shown = tuple(plan_edit(size(text), "match", sizes).canvas for text in references.split(",") if text)
    except (BadRequest, ValueError):
        return (shape,)  # the editor will reject it, alone
    return bool(own), plan.canvas, shown, steps, guidance
