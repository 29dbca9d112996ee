"""Which edits can share a forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kontext.engine.approximations import Approximations
from kontext.engine.guidance import Guidance
from kontext.engine.sizes import Size, plan_edit, plan_generate


@dataclass(frozen=True)
class BatchShape:
    """Edits of equal shape share a forward."""

    canvas: Size
    contexts: tuple[Size, ...]
    """Canvases of the contexts, the picture to edit first."""
    steps: int
    guidance: Guidance
    text_tokens: int
    """Length of the longer of prompt and negative prompt, padding included; 0 before they are tokenized."""
    start: float = 1.0
    """Time at which the schedule starts."""
    origins: tuple[tuple[int, int, int], ...] = ()
    """Positions of the contexts' first tokens; empty before they are laid out."""
    expands: bool = False
    """Whether the edit fills its whole mask, as in outpainting."""
    sampler: str = "euler"
    approximations: Approximations = Approximations()
    loras: tuple[tuple[str, float], ...] = ()
    """sha256 and scale of each LoRA."""


def batch_shape(
    picture: Size | None,
    references: Sequence[Size],
    size: str | Size | None,
    steps: int,
    guidance: Guidance,
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
