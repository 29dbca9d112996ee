"""How strictly an edit follows its prompt, and how it keeps away from a negative one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from kontext.errors import BadRequest

Step = TypeVar("Step")

NEGATIVE_SCALE = 2.0
"""True guidance where only a negative prompt is given."""


@dataclass(frozen=True)
class Guidance:
    """Guidance of all steps. True guidance and attention guidance compare with the negative prompt."""

    scale: float = 1.0
    """The guidance input of models that embed guidance."""
    true: float = 1.0
    """Classifier-free guidance: the factor from the velocity of the negative prompt to that of the prompt."""
    attention: float = 1.0
    """Scale of normalized attention guidance."""
    first: int = 1
    last: int | None = None
    """First and last step that use the negative prompt, counted from 1; None: to the end."""

    @property
    def negative(self) -> bool:
        """Whether any step evaluates a negative prompt."""
        return self.true > 1 or self.attention > 1

    def steps(self, steps: Sequence[Step]) -> Sequence[Step]:
        """The steps of a schedule that use the negative prompt."""
        return steps[self.first - 1 : self.last] if self.negative else ()


class GuidanceOptions(Protocol):
    """The guidance options of a request."""

    @property
    def guidance(self) -> float | None: ...
    @property
    def negative_prompt(self) -> str | None: ...
    @property
    def true_guidance(self) -> float | None: ...
    @property
    def nag(self) -> float | None: ...
    @property
    def guidance_steps(self) -> str | None: ...


def plan_guidance(request: GuidanceOptions, default: float, embeds: bool, steps: int) -> Guidance:
    """The guidance of a request. `embeds`: the model has a guidance input.

    Raises BadRequest for options that contradict each other or do not fit the model.
    """
    scale = float(default if request.guidance is None else request.guidance)
    true, attention = request.true_guidance, request.nag or 1.0
    if not embeds:  # its guidance is true guidance
        if true is not None and request.guidance not in (None, true):
            raise BadRequest(
                f"this model embeds no guidance: guidance ({scale:g}) and true_guidance ({true:g}) are the "
                "same setting; give one of them"
            )
        true = scale = scale if true is None else true
    if request.negative_prompt is not None and max(true or 1.0, attention) == 1:
        values = [request.true_guidance, request.nag, None if embeds else request.guidance]
        if any(value is not None for value in values):
            raise BadRequest(
                "a negative prompt needs true_guidance or nag above 1; such as true_guidance 2, or nag 5"
            )
        true = NEGATIVE_SCALE
        scale = scale if embeds else true
    true = true or 1.0
    if true > 1 and attention > 1:
        raise BadRequest(
            f"true guidance ({true:g}) and nag ({attention:g}) both compare with the negative prompt; "
            "give one of them"
        )
    first, last = 1, None
    if request.guidance_steps is not None:
        if max(true, attention) == 1:
            raise BadRequest("guidance_steps needs true_guidance or nag above 1, or a negative prompt")
        first, last = step_range(request.guidance_steps)
        if first > steps:
            raise BadRequest(f"guidance_steps {request.guidance_steps} begin after the last step, {steps}")
    return Guidance(scale, true, attention, first, last)


def step_range(text: str) -> tuple[int, int]:
    """First and last step of a text such as 1-8. Raises BadRequest."""
    found = re.fullmatch(r"(\d{1,3})\s*-\s*(\d{1,3})", text.strip())
    if found and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise BadRequest(f"guidance_steps must be FIRST-LAST, counted from 1, such as 1-8, got {text!r}")
