"""What is asked for, what comes back, and what is told on the way. Plain data, checked where it enters the
editor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from kontext.engine.pictures import PictureLike
from kontext.engine.sizes import Box, Size

MAX_CONTEXTS = 4
MAX_BATCH = 16
MAX_STEPS = 200
MAX_SEED = 2**53 - 1  # the largest whole number that survives JSON in a browser


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit, or, without a picture, one picture from words."""

    prompt: str
    picture: PictureLike | None = None
    """The picture to edit; the first context."""
    references: Sequence[PictureLike] = ()
    """Further contexts (a garment, a style, a character); with the picture at most 4."""
    seed: int | None = None
    """0 to 2^53 - 1; None draws one, which the result tells."""
    steps: int | None = None
    """1 to 200; None takes the model's own."""
    guidance: float | None = None
    """1 to 30; None takes the model's own. Above 1, models without a guidance input are evaluated twice a
    step.
    """
    size: str | Size | None = None
    """match (the default of edits), WxH or W:H."""
    box: Box | None = None
    """(x, y, width, height) in pixels of the picture: the edit acts there and nowhere else."""
    mask: PictureLike | None = None
    """As large as the picture; white where the edit may act."""
    markup: PictureLike | None = None
    """A transparent overlay as large as the picture; the model sees it, the edit acts within what is drawn.
    """
    lock: bool = True
    """Keep the original pixels wherever nothing changed."""
    regions: bool = True
    """Leave out of the computation what the edit does not touch, where the model gains by it."""


@dataclass(frozen=True)
class Result:
    """A finished picture and all that is needed to make it again."""

    picture: Image.Image
    """Mode RGB, or RGBA where the original was transparent and nothing changed."""
    region: Image.Image | None
    """Mode L, as large as the picture: where it may differ from the original. None: everywhere (or no
    original).
    """
    changed_fraction: float
    """Share of the pixels that differ from the original; 1 without an original."""
    seed: int
    steps: int
    guidance: float
    size: Size
    model: str
    evaluations: int
    """How often the transformer ran for this picture."""
    seconds: Mapping[str, float]
    """load, encode, text, sample, decode, total; in a batch the stages are shared, and so are their times."""
    warnings: tuple[str, ...]
    prompt: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that shaped the picture, as plain data."""


@dataclass(frozen=True)
class StepInfo:
    """Told after every step. `preview(i)` paints a small picture of where picture i of the batch is
    heading.
    """

    index: int
    """1 to `steps`."""
    steps: int
    preview: Callable[..., Image.Image]


OnStep = Callable[[StepInfo], None]


class Cancel(Protocol):
    """A threading.Event, or anything that can say whether the person asked to stop."""

    def is_set(self) -> bool: ...
