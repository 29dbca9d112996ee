"""Plans an edit: everything that can be decided before the first computation."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from PIL import Image

from kontext import pictures
from kontext.engine.approximations import Approximations
from kontext.engine.batching import BatchShape
from kontext.engine.context import Canvas
from kontext.engine.expand import add_border, border_of
from kontext.engine.guidance import Guidance, plan_guidance
from kontext.engine.layout import PlacedContext, lay_out
from kontext.engine.loras import PARTS, LoraSet, LoraStore
from kontext.engine.pointing import draw_on, edit_mask_of, overlay_of
from kontext.engine.prompts import PromptStore
from kontext.engine.requests import MAX_SEED, EditRequest, check_needs_picture, picture_list
from kontext.engine.sizes import SizePlan, plan_edit, plan_generate, scaled_canvases
from kontext.flow import from_strength, schedule
from kontext.loras import parse as parse_loras
from kontext.pictures import Picture
from kontext.values import whole_number


@dataclass(frozen=True)
class EditPlan:
    """A checked request with its pictures loaded and placed on their canvases."""

    request: EditRequest
    input_picture: Picture | None
    picture: Picture | None
    """The picture to edit, with the border by which it is expanded."""
    plan: SizePlan
    source: Canvas | None
    """The picture on the canvas, without markup."""
    contexts: tuple[PlacedContext, ...]
    """The contexts of the model: the picture (with its markup) and the references."""
    edit_mask: Image.Image | None
    """Mode L, as large as the picture: where the edit may act; None: anywhere."""
    seed: int
    steps: int
    """Steps of the whole schedule."""
    times: tuple[float, ...]
    """The part of the schedule that is run; its end if the edit starts from the picture."""
    sampler: str
    approximations: Approximations
    regions: bool
    """Whether tokens that the edit does not touch may be left out of the computation."""
    guidance: Guidance
    text_tokens: int
    """Length of the longer of prompt and negative prompt, padding included."""
    loras: LoraSet
    lora_settings: tuple[dict[str, Any], ...]
    """The LoRAs of the request as plain data."""
    warnings: tuple[str, ...]

    @property
    def shape(self) -> BatchShape:
        contexts = tuple(context.canvas.image.size for context in self.contexts)
        return BatchShape(
            self.plan.canvas,
            contexts,
            self.steps,
            self.guidance,
            self.text_tokens,
            self.times[0],
            tuple(context.origin for context in self.contexts),
            self.request.expand is not None,
            self.sampler,
            self.approximations,
            self.loras.key(*PARTS),
        )


def plan_request(request: EditRequest, prompts: PromptStore, loras: LoraStore) -> EditPlan:
    """Plan a request. Every check happens here. Raises BadRequest, BadPicture, NotFound, BadCheckpoint."""
    model = prompts.model
    preset = model.preset
    check_needs_picture(request)
    prompts.check(request.prompt)
    references = [pictures.load(reference) for reference in picture_list(request.references)]
    request_loras = parse_loras(request.loras)
    lora_set = loras.resolve(request_loras)
    identified = loras.identify(request_loras)
    warnings = [*model.warnings, *lora_set.warnings]
    for lora, current in zip(request_loras, identified):
        if lora.sha256 not in (None, current.sha256):
            warnings.append(f"the LoRA {lora.label} is not the file that the earlier edit used")
    for reference in references:
        warnings += reference.warnings

    sizes = scaled_canvases(preset.sizes, request.canvas, preset.token_pixels)
    if request.picture is None:
        plan = plan_generate(request.size, sizes)
        input_picture = picture = source = marked = edit_mask = None
    else:
        input_picture = picture = pictures.load(request.picture)
        warnings += picture.warnings
        border = None
        if request.expand is not None:
            picture, border = add_border(picture, border_of(picture.size, request.expand))
        plan = plan_edit(picture.size, request.size or "match", sizes)
        if plan.cropped and plan.crop is not None:
            warnings.append(
                f"size {request.size} has another aspect ratio than the picture, which was center-cropped "
                f"from {picture.size[0]}x{picture.size[1]} to {plan.crop[2]}x{plan.crop[3]}"
            )
        source = Canvas(plan.place(picture.opaque_rgb))
        overlay = overlay_of(request, picture)
        edit_mask = edit_mask_of(request, picture, overlay) if border is None else border
        marked = source if overlay is None else Canvas(plan.place(draw_on(picture.opaque_rgb, overlay)))

    steps = preset.sampling.steps if request.steps is None else request.steps
    target_tokens = plan.canvas[0] * plan.canvas[1] // preset.token_pixels**2
    planned = schedule(steps, target_tokens, preset.sampling.shift)
    times = tuple(from_strength(planned, 1.0 if request.strength is None else request.strength))
    embeds = model.transformer.config.guidance_embed
    guidance = plan_guidance(request, preset.sampling.guidance, embeds, len(times) - 1)
    text_tokens = prompts.tokens(request.prompt)
    if guidance.negative:
        prompts.check(request.negative_prompt or "", "negative prompt")
        text_tokens = max(text_tokens, prompts.tokens(request.negative_prompt or ""))
    return EditPlan(
        request=request,
        input_picture=input_picture,
        picture=picture,
        plan=plan,
        source=source,
        contexts=lay_out(marked, references, request.reference_layout or "index", sizes, preset.token_pixels),
        edit_mask=edit_mask,
        seed=first_seed(request.seed),
        steps=steps,
        times=times,
        sampler=request.sampler or "euler",
        approximations=Approximations(request.context_refresh or 1, request.step_cache or 0.0),
        regions=_regions(request, model.transformer.config.context_attention),
        guidance=guidance,
        text_tokens=text_tokens,
        loras=lora_set,
        lora_settings=tuple(lora.embedded() for lora in identified),
        warnings=tuple(warnings),
    )


def _regions(request: EditRequest, attention: str) -> bool:
    """Whether to compute only where something changes. With full attention, only if it is asked for."""
    default = attention == "prefix"
    return request.lock and (default if request.regions is None else request.regions)


def first_seed(seed: int | None, count: int = 1) -> int:
    """The first of `count` seeds; random if None. Raises BadRequest."""
    return secrets.randbelow(2**32) if seed is None else whole_number("seed", seed, 0, MAX_SEED - count + 1)
