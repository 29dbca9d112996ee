"""The batch key of a queued job, as text in the database: sizes, steps and guidance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from kontext.engine.batching import BatchShape, batch_shape
from kontext.engine.guidance import Guidance
from kontext.engine.sizes import Size, plan_edit, plan_generate
from kontext.errors import BadRequest


@dataclass(frozen=True)
class JobShape:
    """Sizes in pixels of the pictures of a job, its size option, steps and guidance; None: the default."""

    picture: Size | None
    size: str
    """The size option as text, "" where none is given."""
    references: tuple[Size, ...]
    steps: int | None
    guidance: float | None
    model: str | None = None

    def __str__(self) -> str:
        """The text in the database, at most 200 characters."""
        references = ",".join(map(_text, self.references))
        picture = _text(self.picture) if self.picture else ""
        size = self.size.replace("|", " ")
        model = "" if self.model is None else f"|{self.model}"
        return f"{picture}|{size}|{references}|{self.steps}|{self.guidance}{model}"

    @classmethod
    @lru_cache(4096)
    def parse(cls, text: str) -> JobShape:
        """The shape of such a text. Raises ValueError."""
        picture, size, references, steps, guidance, *model = text.split("|", 5)
        return cls(
            picture=_size(picture) if picture else None,
            size=size,
            references=tuple(_size(reference) for reference in references.split(",") if reference),
            steps=None if steps == "None" else int(steps),
            guidance=None if guidance == "None" else float(guidance),
            model=model[0] if model else None,
        )


@lru_cache(4096)
def output_size(text: str, sizes: tuple[Size, ...]) -> Size | None:
    """(width, height) of the result of a job with such a shape; None if its size cannot be honored."""
    try:
        shape = JobShape.parse(text)
        if shape.picture is None:
            return plan_generate(shape.size or None, sizes).output
        return plan_edit(shape.picture, shape.size or "match", sizes).output
    except (BadRequest, ValueError):
        return None


@lru_cache(4096)
def batch_key(text: str, sizes: tuple[Size, ...], steps: int, guidance: float) -> BatchShape | str:
    """Jobs with equal keys may be sent to the editor together; `steps` and `guidance` are the model's own.

    The editor divides them further by the length of prompts and by negative prompts. A shape that cannot be
    honored is its own key: the editor rejects the job, alone.
    """
    try:
        shape = JobShape.parse(text)
        return batch_shape(
            shape.picture,
            shape.references,
            shape.size or None,
            steps if shape.steps is None else shape.steps,
            Guidance(guidance if shape.guidance is None else shape.guidance),
            sizes,
        )
    except (BadRequest, ValueError):
        return text


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _size(text: str) -> Size:
    width, height = text.split("x")
    return int(width), int(height)
