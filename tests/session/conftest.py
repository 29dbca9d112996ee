"""An editor whose edits can be computed by hand: it tints a box whose place and colour follow from prompt and
seed.
"""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kontext.session import Store


class TintEditor:
    """Deterministic stand-in for an Editor: real pixels change inside a box, nothing changes outside."""

    model = SimpleNamespace(fingerprint="f" * 64, name="tint")

    def __init__(self, delay_seconds: float = 0.0) -> None:
        self.delay_seconds = delay_seconds

    def edit(
        self, picture, prompt, *, seed=None, steps=4, guidance=2.5, references=(), mask=None, box=None, **_
    ):
        import time

        time.sleep(self.delay_seconds)
        seed = 7 if seed is None else seed
        made, region = tint(picture, prompt, seed)
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
            settings={},
        )

    def generate(self, prompt, *, seed=None, **settings):
        result = self.edit(Image.new("RGB", (48, 32), "white"), prompt, seed=seed, **settings)
        result.region = None
        return result


def tint(picture, prompt, seed):
    """(picture with an inverted, tinted box, its region); the ground truth of TintEditor."""
    pixels = np.asarray(picture).copy()
    height, width = pixels.shape[:2]
    draw = hashlib.sha256(f"{prompt}|{seed}".encode()).digest()
    left, top = draw[0] % (width // 2), draw[1] % (height // 2)
    box = np.s_[top : top + height // 3, left : left + width // 3]
    pixels[box][..., :3] = (pixels[box][..., :3].astype(int) + list(draw[2:5])) % 256
    region = np.zeros((height, width), np.uint8)
    region[box] = 255
    return Image.fromarray(pixels), Image.fromarray(region)


@pytest.fixture
def editor():
    return TintEditor()


@pytest.fixture
def picture():
    """48x32 RGB of noise, so that any loss shows."""
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 48, 3), dtype=np.uint8))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture(name="tint")
def tint_function():
    return tint
