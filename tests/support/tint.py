"""An editor whose edits can be computed by hand.

It tints a box whose place and color follow from prompt and seed.
"""

import errno
import hashlib
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
from PIL import Image

from kontext import pictures
from kontext.errors import BadCheckpoint


class TintEditor:
    """Deterministic stand-in for an Editor: real pixels change inside a box, nothing changes outside."""

    model = SimpleNamespace(fingerprint="f" * 64, name="tint")
    prompts = SimpleNamespace(check=lambda prompt: None)

    def __init__(self, delay_seconds: float = 0.0) -> None:
        self.delay_seconds = delay_seconds

    @classmethod
    def load(cls, name: str = "tint", device: str | None = None, **_: object) -> "TintEditor":
        """`tint` or `tint:SECONDS`, the time that each edit takes."""
        return cls(float(name.partition(":")[2] or 0))

    def edit(
        self,
        picture,
        prompt,
        *,
        seed=None,
        steps=4,
        guidance=2.5,
        references=(),
        mask=None,
        markup=None,
        box=None,
        size="match",
        lock=True,
        regions=True,
        on_step=None,
        cancel=None,
    ):
        time.sleep(self.delay_seconds)
        if prompt == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        seed = 7 if seed is None else seed
        made, region = tint(pictures.load(picture).as_given, prompt, seed)
        return SimpleNamespace(
            picture=made,
            region=region,
            seed=seed,
            steps=steps,
            guidance=guidance,
            size=made.size,
            model="tint",
            changed_fraction=float(np.mean(np.asarray(region) > 0)),
            evaluations=steps,
            seconds={"total": 0.01},
            warnings=[],
            prompt=prompt,
            settings={"fingerprint": "f" * 64},
        )

    def generate(self, prompt, *, seed=None, **settings):
        result = self.edit(Image.new("RGB", (48, 32), "white"), prompt, seed=seed, **settings)
        result.region = None
        return result


def tint(picture, prompt, seed):
    """(picture with a box of shifted colors, its region); the ground truth of TintEditor."""
    pixels = np.asarray(picture).copy()
    height, width = pixels.shape[:2]
    draw = hashlib.sha256(f"{prompt}|{seed}".encode()).digest()
    left, top = draw[0] % (width // 2), draw[1] % (height // 2)
    box = np.s_[top : top + height // 3, left : left + width // 3]
    pixels[box][..., :3] = (pixels[box][..., :3].astype(int) + list(draw[2:5])) % 256
    region = np.zeros((height, width), np.uint8)
    region[box] = 255
    return Image.fromarray(pixels), Image.fromarray(region)


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8))


def no_weights():
    """For `load_editor` of a batch: there is no model."""
    raise BadCheckpoint("no such weights")


def full_disk() -> TintEditor:
    """For `load_editor` of a batch: the disk of the worker process is full."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = full
    return TintEditor.load()
