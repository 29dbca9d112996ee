"""An editor for tests that paints by rules instead of a model: the same request gives the same picture.

It tints the box (or a disc placed by the prompt) in the color that the prompt names, step by step. With
"slowly" in a prompt it stops after the second step until the file named by PAINTER_GATE is there, so
that a test sees a running edit for as long as it likes; "fall over" makes it fail, at once or where "slowly"
holds it; "nothing" changes nothing. Without the lock it changes every pixel. `load` is what a server's worker
calls.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from kontext import pictures
from kontext.engine.pointing import edit_mask_of, overlay_of
from kontext.engine.requests import EditRequest, Result, StepInfo
from kontext.engine.sizes import plan_edit, plan_generate
from kontext.errors import BadRequest, Cancelled

STEPS = 8
STEP_SECONDS = 0.02
HELD_STEP, LONGEST_HOLD = 2, 300  # seconds
SIZES = ((256, 256), (320, 208), (208, 320))
PROMPT_TOKENS = 40  # of the model "skilled"
COLOURS = "red green blue yellow orange purple pink black white gray".split()


class Painter:
    """Has what a worker needs of `kontext.engine.Editor`."""

    model = SimpleNamespace(
        name="painter",
        fingerprint="0" * 64,
        warnings=(),
        preset=SimpleNamespace(
            description="paints by rules",
            sizes=SIZES,
            sampling=SimpleNamespace(steps=STEPS, guidance=2.5),
            text_length=PROMPT_TOKENS,
        ),
    )

    def prefill(self, picture) -> None:
        pictures.load(picture, "the picture")
        time.sleep(0.012)

    def edit_batch(self, requests, *, on_step=None, cancel=None) -> list[Result]:
        start = time.perf_counter()
        painted = [paint(request) for request in requests]
        steps = requests[0].steps or STEPS
        for step in range(1, steps + 1):
            if cancel is not None and cancel.is_set():
                raise Cancelled("stopped")
            time.sleep(STEP_SECONDS)
            if on_step is not None:
                preview = partial(lambda step, i=0: blurred(painted[i][0], steps - step), step)
                on_step(StepInfo(step, steps, preview, range(len(requests))))
            if step == HELD_STEP and "slowly" in requests[0].prompt:
                wait_at_gate(cancel)
                fall_over(requests[0])
        return [self._result(*item, time.perf_counter() - start) for item in painted]

    def _result(self, picture, region, request, before, seed, seconds) -> Result:
        changed = 1.0
        if before is not None and before.size == picture.size:
            changed = float(np.any(np.asarray(before) != np.asarray(picture), axis=-1).mean())
        return Result(
            picture=picture,
            region=region,
            changed_fraction=changed,
            seed=seed,
            steps=request.steps or STEPS,
            guidance=request.guidance or 2.5,
            size=picture.size,
            model=self.model.name,
            evaluations=request.steps or STEPS,
            seconds={
                "load": 0.0,
                "encode": 0.0,
                "text": 0.0,
                "sample": seconds,
                "decode": 0.0,
                "total": seconds,
            },
            warnings=("the painter knows no photographs",) if "photo" in request.prompt else (),
            prompt=request.prompt,
        )


def load(model: str, device: str | None) -> Painter:
    painter = Painter()
    if model == "second":
        painter.model = SimpleNamespace(
            **vars(Painter.model) | {"name": "second", "tokenizer": byte_tokens()}
        )
    if model == "skilled":
        painter.model = SimpleNamespace(**vars(Painter.model), skills=skills(), tokenizer=byte_tokens())
    return painter


def byte_tokens():
    """A tokenizer of one token per byte for the model "skilled"; imported here for the same reason."""
    from kontext.checkpoint.tokenizer import byte_tokenizer, with_fixed_length

    return with_fixed_length(byte_tokenizer(), PROMPT_TOKENS)


def skills():
    """What the model "skilled" is known to do. Imported here, since the package brings torch with it."""
    from kontext.checkpoint.skills import Example, Skills, Suggestion

    return Skills(
        (Example("library", {"en": "Paint it purple", "zh": "变成紫色"}),),
        (
            Suggestion(
                "edit", {"en": "Color", "zh": "颜色"}, {"en": "Paint it [purple]", "zh": "变成[紫色]"}
            ),
            Suggestion("generate", {"en": "Ball"}, {"en": "A [purple] ball"}),
        ),
    )


def wait_at_gate(cancel) -> None:
    gate = os.environ.get("PAINTER_GATE")
    give_up = time.monotonic() + LONGEST_HOLD
    while gate and not Path(gate).exists() and time.monotonic() < give_up:
        if cancel is not None and cancel.is_set():
            raise Cancelled("stopped")
        time.sleep(0.01)


def fall_over(request: EditRequest) -> None:
    if "fall over" in request.prompt:
        raise BadRequest("the painter fell over, as it was told")


def paint(request: EditRequest):
    """The picture, region, request, original and seed."""
    if "slowly" not in request.prompt:
        fall_over(request)
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    dice = np.random.default_rng([seed, *hashlib.sha256(request.prompt.encode()).digest()[:8]])
    named = next((word for word in COLOURS if word in request.prompt.lower()), None)
    color = ImageColor.getrgb(named) if named else tuple(int(value) for value in dice.integers(60, 255, 3))
    if request.picture is None:
        size = plan_generate(request.size, SIZES).output
        picture = Image.new("RGB", size, "#bfe3ff")
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, size[1] * 0.7, *size), fill="#8fce6a")
        draw.ellipse(disc(size, dice, 0.28), fill=color, outline="#1d2b3a", width=4)
        return picture, None, request, None, seed
    given = pictures.load(request.picture, "the picture")
    before = plan_edit(given.size, request.size or "match", SIZES).original(given.opaque_rgb)
    region = edit_mask_of(request, given, overlay_of(request, given)) if before.size == given.size else None
    if region is None:
        region = Image.new("L", before.size)
    if not region.getbbox() and "nothing" not in request.prompt:
        ImageDraw.Draw(region).ellipse(disc(before.size, dice, 0.2), fill=255)
    tint = Image.blend(before, Image.new("RGB", before.size, color), 0.72)
    under = before if request.lock else before.point(lambda value: value ^ 1)
    return Image.composite(tint, under, region), region if request.lock else None, request, before, seed


def disc(size, dice, share):
    width, height = size
    radius = share * min(size)
    x, y = dice.uniform(0.35, 0.65) * width, dice.uniform(0.35, 0.65) * height
    return (x - radius, y - radius, x + radius, y + radius)


def blurred(picture, amount):
    small = picture.copy()
    small.thumbnail((256, 256))
    return small.filter(ImageFilter.GaussianBlur(amount * 2))
