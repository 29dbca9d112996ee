"""Checks of a request that need no model: everything but the length of the prompt.

`EditRequest` checks its fields when it is created; here its pictures are opened and compared.
"""

from __future__ import annotations

from kontext import pictures
from kontext.engine.expand import expanded_size
from kontext.engine.pointing import edit_mask_of, overlay_of
from kontext.engine.requests import (
    GUIDANCE,
    MAX_BATCH,
    MAX_SEED,
    MAX_STEPS,
    EditOptions,
    EditRequest,
    check_needs_picture,
    picture_list,
)
from kontext.engine.sizes import parse, plan_edit, plan_generate
from kontext.loras import LoraAccess
from kontext.loras import parse as parse_loras
from kontext.values import real_number, whole_number


def check_request(request: EditRequest, count: int = 1) -> None:
    """Check a request, `count` variants of it, as far as that needs no model.

    Reads the pictures. Raises BadRequest, BadPicture, NotFound.
    """
    check_variants(count)
    check_needs_picture(request)
    if request.seed is not None:
        check_seed(request.seed, count)
    for reference in picture_list(request.references):
        pictures.load(reference)
    _check_loras(request)
    if request.picture is None:
        plan_generate(request.size, [(1024, 1024)])  # of the model's sizes only the aspect would differ
        return
    parse(request.size or "match")  # the words of the size before the picture is opened
    picture = pictures.load(request.picture)
    size = expanded_size(picture.size, request.expand)
    plan_edit(size, request.size or "match", [size])
    edit_mask_of(request, picture, overlay_of(request, picture))


def check_settings(prompt: str, settings: EditOptions) -> None:
    """Check settings that are shared by edits of many pictures. Raises BadRequest, BadPicture, NotFound.

    settings: fields of `EditRequest`. Reads the references.
    """
    request = EditRequest(prompt=prompt, **settings)
    parse(request.size or "match")
    for reference in picture_list(request.references):
        pictures.load(reference)
    _check_loras(request)


def _check_loras(request: EditRequest) -> None:
    for lora in parse_loras(request.loras):
        LoraAccess.of_account().find(lora)


def check_steps(steps: object) -> int:
    return whole_number("steps", steps, 1, MAX_STEPS)


def check_guidance(guidance: object) -> float:
    return real_number("guidance", guidance, *GUIDANCE)


def check_seed(seed: object, count: int = 1) -> int:
    """The first of `count` consecutive seeds. Raises BadRequest."""
    return whole_number("seed", seed, 0, MAX_SEED - count + 1)


def check_variants(count: object) -> int:
    return whole_number("variants", count, 1, MAX_BATCH)
