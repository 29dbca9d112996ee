"""An editor without a model, for tests of the service.

A real picture function with steps, previews, batches and cancel.

The edit tints a box whose place and color follow from prompt and seed. Words in the prompt make it slow,
fail or die.
"""

import hashlib
import os
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageOps

from kontext import pictures
from kontext.engine.requests import EditRequest, Result, StepInfo
from kontext.errors import BadRequest, Cancelled

STEP_SECONDS = float(os.environ.get("FAKE_STEP_SECONDS", "0.005"))


class FakeEditor:
    model = SimpleNamespace(
        name="fake",
        fingerprint="f" * 64,
        warnings=("this is a test",),
        preset=SimpleNamespace(
            description="tints a box",
            sizes=((64, 64), (96, 64)),
            sampling=SimpleNamespace(steps=4, guidance=2.5),
        ),
    )

    def edit_batch(self, requests, on_step=None, cancel=None):
        if trace := os.environ.get("FAKE_TRACE"):
            with open(trace, "a") as file:
                file.write(f"{len(requests)} {' '.join(str(request.seed) for request in requests)}\n")
        first = requests[0]
        steps = first.steps or 4
        sources = [source(request) for request in requests]
        for request in requests:
            if "refuse this" in request.prompt:
                raise BadRequest("the fake editor refuses this prompt")
            if "explode" in request.prompt:
                raise RuntimeError("a secret path /etc/passwd")
            if "die" in request.prompt:
                os.kill(os.getpid(), 9)
        slow = max(
            (float(n) for request in requests for n in re.findall(r"sleep ([\d.]+)", request.prompt)),
            default=0.0,
        )
        for step in range(1, steps + 1):
            end = time.monotonic() + STEP_SECONDS + slow / steps
            while time.monotonic() < end:
                if cancel is not None and cancel.is_set():
                    raise Cancelled("stopped between steps")
                time.sleep(0.002)
            if on_step:
                preview = lambda place=0: sources[place].resize((32, 32))  # noqa: E731
                on_step(StepInfo(step, steps, preview, range(len(requests))))
        return [self.result(request, whole, steps) for request, whole in zip(requests, sources)]

    def edit(self, picture, prompt, *, on_step=None, cancel=None, **settings):
        request = EditRequest(picture=picture, prompt=prompt, **settings)
        return self.edit_batch([replace(request, seed=request.seed or 1)], on_step, cancel)[0]

    def generate(self, prompt, **settings):
        return self.edit(None, prompt, **settings)

    def result(self, request, whole, steps):
        made, region = tint(whole, request.prompt, request.seed)
        return Result(
            picture=made,
            region=region if request.picture is not None else None,
            changed_fraction=float(np.mean(np.asarray(region) > 0)),
            seed=request.seed,
            steps=steps,
            guidance=request.guidance or 2.5,
            size=made.size,
            model="fake",
            evaluations=steps,
            seconds={"total": 0.01},
            warnings=("this is a test",),
            prompt=request.prompt,
            settings={"fingerprint": "f" * 64, "size": request.size, "lock": request.lock},
        )

    def prefill(self, picture):
        pictures.load(picture)


class SecondEditor(FakeEditor):
    """Another model with other sizes, which paints the negative."""

    model = SimpleNamespace(
        name="second",
        fingerprint="e" * 64,
        warnings=(),
        preset=SimpleNamespace(
            description="tints a box of the negative",
            sizes=((128, 128),),
            sampling=SimpleNamespace(steps=2, guidance=1.0),
            text_length=16,
        ),
        tokenizer=None,
    )

    def result(self, request, whole, steps):
        made = super().result(request, ImageOps.invert(whole), steps)
        return replace(made, model="second", settings=made.settings | {"fingerprint": "e" * 64})


def source(request):
    if request.picture is not None:
        return pictures.load(request.picture).rgb
    return Image.new("RGB", (64, 64), "white")


def tint(picture, prompt, seed):
    """(picture with a tinted box, its region): what anybody can compute again."""
    pixels = np.asarray(picture).copy()
    height, width = pixels.shape[:2]
    draw = hashlib.sha256(f"{prompt}|{seed}".encode()).digest()
    left, top = draw[0] % (width // 2), draw[1] % (height // 2)
    box = np.s_[top : top + height // 3, left : left + width // 3]
    pixels[box] = (pixels[box].astype(int) + 1 + np.array(list(draw[2:5])) % 200) % 256
    region = np.zeros((height, width), np.uint8)
    region[box] = 255
    return Image.fromarray(pixels), Image.fromarray(region)


def make(model, device):
    if model == "slow to load":
        time.sleep(2)
    if model == "broken":
        raise BadRequest("the fake weights are damaged")
    if model == "second":
        return SecondEditor()
    return FakeEditor()
