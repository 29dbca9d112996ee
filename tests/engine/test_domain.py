"""Photographs are distinguished from drawings."""

import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kontext import world
from kontext.engine.domain import features, is_photograph

EXAMPLES = files("kontext") / "examples"
PAGES = Path(__file__).parents[2] / "docs" / "pictures"
PHOTOGRAPHS = "astronaut brick camera chelsea coffee coins hubble_deep_field moon retina rocket".split()


def opened(path):
    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("side", [None, 300])
def test_photographs_are_recognized(name, side):
    picture = Image.fromarray(getattr(pytest.importorskip("skimage.data"), name)()).convert("RGB")
    if side is not None:
        picture.thumbnail((side, side))
    assert is_photograph(picture)


@pytest.mark.parametrize("name", ["beach", "cake", "island", "library", "stage", "whale"])
def test_the_examples_are_drawings(name):
    assert not is_photograph(opened(EXAMPLES / f"{name}.png"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_of_the_world_are_drawings(split):
    found = [is_photograph(Image.fromarray(world.scene_picture(seed, split))) for seed in range(60)]
    assert np.mean(found) <= 0.05  # of rough textures


def poster(text="SUMMER SALE", gradient=False):
    picture = Image.linear_gradient("L").resize((600, 800)).convert("RGB") if gradient else None
    picture = picture or Image.new("RGB", (600, 800), "#ffcc33")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((60, 500, 540, 740), fill="#3355aa")
    draw.text((80, 120), text, fill="black", font_size=70)
    return picture


def strokes():
    picture = Image.new("L", (500, 400), 255)
    draw, dice = ImageDraw.Draw(picture), np.random.default_rng(1)
    for _ in range(40):
        draw.line(
            [tuple(xy) for xy in dice.integers(0, 400, (6, 2)).tolist()], fill=0, width=3, joint="curve"
        )
    return picture


def as_jpeg(picture, quality=75):
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize(
    "picture",
    [
        poster(),
        as_jpeg(poster()),
        poster(gradient=True),
        strokes(),
        as_jpeg(strokes()),
        *(
            Image.new("RGB", size, color)
            for size in ((1, 1), (2, 300), (640, 480))
            for color in ("white", "red")
        ),
    ],
)
def test_posters_ink_and_plain_pictures_are_drawings(picture):
    assert np.isfinite(features(picture)).all() and not is_photograph(picture)


@pytest.mark.parametrize("page", sorted(PAGES.glob("playground-*.webp")), ids=lambda page: page.stem)
def test_screenshots_are_drawings(page):
    assert not is_photograph(opened(page))
