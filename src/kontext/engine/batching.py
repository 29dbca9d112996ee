"""Which edits can share a forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kontext.engine.sizes import Size, plan_edit, plan_generate


@dataclass(frozen=True)
class BatchShape:
    """Edits of equal shape share a forward."""

    canvas: Size
    contexts: tuple[Size, ...]
    """Canvases of the contexts, the picture to edit first."""
    steps: int
    guidance: float
    text_tokens: int
    """Of the prompt, padding included; 0 before the prompt is tokenized."""


def batch_shape(
    picture: Size | None,
    references: Sequence[Size],
    size: str | Size | None,
    steps: int,
    guidance: float,
    sizes: Sequence[Size],
) -> BatchShape:
    """The shape of an edit before its pictures are loaded and its prompt is tokenized.

    `picture` and `references` are sizes in pixels, `sizes` the canvases of the model. Raises BadRequest for a
    `size` that cannot be honored.
    """
    contexts = [plan_edit(reference, "match", sizes).canvas for reference in references]
    if picture is None:
        canvas = plan_generate(size, sizes).canvas
    else:
        canvas = plan_edit(picture, size or "match", sizes).canvas
        contexts.insert(0, canvas)
    return BatchShape(canvas, tuple(contexts), steps, guidance, 0)
