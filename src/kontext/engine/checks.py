"""What can be refused about a request before its model is read: everything but the length of the prompt,
which depends on the model's tokenizer.
"""

from __future__ import annotations

from kontext.engine import pictures
from kontext.engine.pointing import inside_of, overlay_of
from kontext.engine.requests import MAX_BATCH, MAX_CONTEXTS, MAX_SEED, MAX_STEPS, EditRequest
from kontext.engine.sizes import parse, plan_edit, plan_generate
from kontext.errors import BadRequest


def check_request(request: EditRequest, count: int = 1) -> None:
    """Raise BadRequest, BadPicture or NotFound for a request that no model could honor, `count` variants of
    it. Reads the pictures, computes nothing.
    """
    check_variants(count)
    check_prompt(request.prompt)
    check_contexts(request)
    if request.steps is not None:
        check_steps(request.steps)
    if request.guidance is not None:
        check_guidance(request.guidance)
    if request.seed is not None:
        check_seed(request.seed, count)
    for reference in request.references:
        pictures.load(reference)
    if request.picture is None:
        if request.box is not None or request.mask is not None or request.markup is not None:
            raise BadRequest("box, mask and markup point into a picture; give the picture to edit")
        plan_generate(request.size, [(1024, 1024)])  # of the model's sizes only the aspect would differ
        return
    parse(request.size or "match")  # the words of the size before the picture is opened
    picture = pictures.load(request.picture)
    plan_edit(picture.size, request.size or "match", [picture.size])
    inside_of(request, picture, overlay_of(request, picture))


def check_prompt(prompt: object) -> None:
    """Raise BadRequest for a prompt without a word, or that is not valid Unicode."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadRequest("the prompt is empty; say what to change, such as: Make the hair blue")
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise BadRequest("the prompt is not valid Unicode; check the encoding of the terminal (UTF-8)")


def check_contexts(request: EditRequest) -> None:
    count = len(request.references) + (request.picture is not None)
    if count > MAX_CONTEXTS:
        raise BadRequest(
            f"{count} pictures given; at most {MAX_CONTEXTS} are accepted, the edited one included"
        )


def check_steps(steps: object) -> int:
    if not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise BadRequest(f"steps must be 1 to {MAX_STEPS}, got {steps}")
    return steps


def check_guidance(guidance: float) -> float:
    if not 1 <= guidance <= 30:
        raise BadRequest(f"guidance must be 1 to 30, got {guidance:g}")
    return guidance


def check_seed(seed: object, count: int = 1) -> int:
    """A seed whose `count` followers are seeds too."""
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED - count + 1:
        raise BadRequest(f"seed must be a whole number from 0 to {MAX_SEED}, got {seed}")
    return seed


def check_variants(count: int) -> int:
    if not 1 <= count <= MAX_BATCH:
        raise BadRequest(f"variants must be 1 to {MAX_BATCH}, got {count}")
    return count
