"""The last part of an edit: restore original pixels and detail, and build the result."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageChops
from torch import Tensor

from kontext.engine.context import ContextStore
from kontext.engine.detail import add_detail
from kontext.engine.domain import photo_warning
from kontext.engine.plan import EditPlan
from kontext.engine.regions import Region, changed_fraction, composite, enlarge, region_of
from kontext.engine.requests import Result, picture_list
from kontext.engine.smoothing import smooth_flat, smooth_recolored
from kontext.model.window import Window
from kontext.pictures.formats import HISTORY_KEY

NOTHING_CHANGED = "nothing changed; rephrase the prompt, or use a larger box or mask"


def finish(
    edit: EditPlan,
    contexts: ContextStore,
    decoded: np.ndarray,
    window: Window | None,
    expected: Tensor | None,
) -> tuple[Image.Image, Image.Image | None]:
    """The output picture and its region (None: all of it). Outside of `window` nothing was decoded.

    expected: tokens (n,) bool that the region head expects to change; None for models without one.
    """
    if edit.picture is None or edit.source is None or not edit.request.lock:
        return edit.plan.restore(Image.fromarray(decoded)), None
    codec = contexts.reconstruct(edit.source)
    if contexts.model.preset.smoothing:
        decoded = smooth_recolored(decoded, codec, window)
    edit_mask = edit.edit_mask and edit.plan.place(edit.edit_mask)
    if edit.request.expand is not None and edit_mask is not None:
        region = Region(np.asarray(edit_mask, np.float32) / 255)
    else:
        region = region_of(decoded, codec, edit_mask, window, expected)
    if contexts.model.preset.smoothing:
        decoded, codec = smooth_flat(decoded, codec, window)
    on_canvas = Image.fromarray(decoded)
    alpha = edit.picture.alpha and edit.plan.original(edit.picture.alpha)
    original = edit.plan.original(edit.picture.rgb if alpha else edit.picture.opaque_rgb)
    if region.soft is None:
        return add_detail(on_canvas, original, codec, edit.plan), None
    soft = enlarge(region, edit.plan)
    if edit.edit_mask is not None:  # the person's own border, at full resolution
        soft = ImageChops.multiply(soft, edit.plan.original(edit.edit_mask))
    box = soft.getbbox()
    result = add_detail(on_canvas, original, codec, edit.plan, box) if box else original
    return composite(original, result, soft, alpha), soft


def result_of(
    edit: EditPlan,
    contexts: ContextStore,
    fingerprint: str,
    picture: Image.Image,
    region: Image.Image | None,
    evaluations: int,
    seconds: Mapping[str, float],
) -> Result:
    """The result of a finished edit, with its warnings and everything needed to repeat it.

    fingerprint: of the model.
    """
    request, model, warnings = edit.request, contexts.model, list(edit.warnings)
    changed = 1.0
    if edit.picture is not None and edit.source is not None:
        changed = changed_fraction(edit.plan.original(edit.picture.as_given), picture)
        # Only originals are judged: edits by nano sometimes look like photographs.
        original = edit.input_picture is not None and not edit.input_picture.is_result
        if original and model.preset.name != "dev" and contexts.is_photograph(edit.picture, edit.source):
            warnings.append(photo_warning(model.name))
        if changed == 0:
            warnings.append(NOTHING_CHANGED)
    settings = {
        "size": request.size if isinstance(request.size, str | None) else list(request.size),
        "canvas": request.canvas,
        "canvas_size": list(edit.plan.canvas),
        "references": len(picture_list(request.references)),
        "sampler": request.sampler,
        "context_refresh": request.context_refresh,
        "step_cache": request.step_cache,
        "fp8": model.fp8,
        "compile": model.compiled,
        "negative_prompt": request.negative_prompt,
        "true_guidance": request.true_guidance,
        "nag": request.nag,
        "guidance_steps": request.guidance_steps,
        "strength": request.strength,
        "reference_layout": request.reference_layout,
        "expand": request.expand,
        "box": None if request.box is None else list(request.box),
        "mask": request.mask is not None,
        "markup": request.markup is not None,
        "lock": request.lock,
        "regions": request.regions,
        "loras": list(edit.lora_settings),
        "fingerprint": fingerprint,
    }
    picture.info[HISTORY_KEY] = fingerprint
    return Result(
        picture=picture,
        region=region,
        changed_fraction=changed,
        seed=edit.seed,
        steps=edit.steps,
        guidance=edit.guidance.scale,
        size=picture.size,
        model=model.name,
        evaluations=evaluations,
        seconds=seconds,
        warnings=tuple(dict.fromkeys(warnings)),
        prompt=request.prompt,
        settings=settings,
        source=edit.input_picture,
    )
