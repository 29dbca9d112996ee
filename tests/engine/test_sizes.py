"""Sizes: the published table, exact outputs, and the way onto the canvas and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kontext.engine.sizes import parse, plan_edit, plan_generate, preferred
from kontext.errors import BadRequest
from kontext.model.presets import DEV_SIZES

NANO_SIZES = ((128, 128),)


@pytest.mark.parametrize(
    "original, expected",
    [
        ((1024, 1024), (1024, 1024)),
        ((512, 512), (1024, 1024)),  # the number of pixels does not count, only the aspect
        ((1920, 1080), (1392, 752)),  # 1.778: 1.851 is nearer than 1.66
        ((1080, 1920), (752, 1392)),
        ((4000, 3000), (1184, 880)),
        ((3000, 4000), (880, 1184)),
        ((1500, 1000), (1248, 832)),
        ((505, 624), (944, 1104)),  # from the exact size; floored to 16 first it would be 880x1184
        ((100, 1000), (672, 1568)),
        ((1000, 100), (1568, 672)),
    ],
)
def test_dev_chooses_the_preferred_size_nearest_in_aspect(original, expected):
    assert plan_edit(original, "match", DEV_SIZES).canvas == expected


def test_every_preferred_size_chooses_itself():
    for size in DEV_SIZES:
        plan = plan_edit(size, "match", DEV_SIZES)
        assert plan.canvas == plan.output == size
        assert plan.inner == (0, 0, *size)


def test_ties_go_to_the_smaller_width():
    assert preferred(((64, 32), (32, 32)), 1.5) == (32, 32)
    assert preferred(((32, 32), (64, 32)), 1.5) == (32, 32)


@settings(deadline=None)
@given(st.integers(16, 4000), st.integers(16, 4000), st.sampled_from([DEV_SIZES, NANO_SIZES]))
def test_match_returns_the_size_of_the_picture_and_never_stretches(width, height, sizes):
    plan = plan_edit((width, height), "match", sizes)
    x, y, inner_width, inner_height = plan.inner
    assert plan.output == (width, height)
    assert plan.crop == (0, 0, width, height) and not plan.cropped
    assert x >= 0 and y >= 0 and x + inner_width <= plan.canvas[0] and y + inner_height <= plan.canvas[1]
    scale = min(plan.canvas[0] / width, plan.canvas[1] / height)
    assert abs(inner_width - width * scale) <= 0.501 and abs(inner_height - height * scale) <= 0.501


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 300), st.integers(16, 300))
def test_the_way_back_lies_on_the_original_to_the_pixel(width, height):
    """A ramp in x and y survives the way onto the canvas and back without a shift or a change of scale."""
    ramp = np.zeros((height, width, 3), np.float64)
    ramp[..., 0] = np.linspace(20, 230, width)[None, :]
    ramp[..., 1] = np.linspace(20, 230, height)[:, None]
    picture = Image.fromarray(ramp.round().astype(np.uint8))
    plan = plan_edit(picture.size, "match", ((512, 512),))
    back = np.asarray(plan.restore(plan.place(picture))).astype(float)
    assert back.shape == ramp.shape
    margin = 3  # filters see the border
    if min(width, height) > 2 * margin:
        inside = slice(margin, -margin)
        assert np.abs(back - ramp)[inside, inside].max() <= 2.5


def test_a_picture_of_native_size_is_not_resampled():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    plan = plan_edit((128, 128), "match", NANO_SIZES)
    assert np.array_equal(np.asarray(plan.restore(plan.place(picture))), noise)
    assert plan.original(picture) is picture


def test_the_canvas_is_filled_with_the_edge_pixels():
    picture = Image.new("RGB", (100, 50), (10, 200, 30))
    canvas = plan_edit(picture.size, "match", NANO_SIZES).place(picture)
    assert canvas.size == (128, 128)
    assert canvas.getextrema() == ((10, 10), (200, 200), (30, 30))


@pytest.mark.parametrize(
    "size_spec, output, crop",
    [
        ("200x100", (200, 100), (0, 25, 100, 50)),
        ("64x64", (64, 64), (0, 0, 100, 100)),
        ((333, 17), (333, 17), (0, 47, 100, 5)),
        ("2:1", (100, 50), (0, 25, 100, 50)),
        ("1:2", (50, 100), (25, 0, 50, 100)),
        ("MATCH", (100, 100), (0, 0, 100, 100)),
    ],
)
def test_an_explicit_size_is_honored_exactly_and_crops_about_the_middle(size_spec, output, crop):
    plan = plan_edit((100, 100), size_spec, NANO_SIZES)
    assert plan.output == output
    assert plan.crop == crop
    assert plan.cropped == (crop != (0, 0, 100, 100))
    assert plan.restore(plan.place(Image.new("RGB", (100, 100)))).size == output


@pytest.mark.parametrize(
    "size_spec, canvas, output",
    [
        (None, (1024, 1024), (1024, 1024)),
        ("16:9", (1392, 752), (1337, 752)),
        ("1024x768", (1184, 880), (1024, 768)),
        ("21:9", (1568, 672), (1568, 672)),
    ],
)
def test_generation_takes_the_best_canvas_and_cuts_the_exact_aspect(size_spec, canvas, output):
    plan = plan_generate(size_spec, DEV_SIZES)
    assert plan.canvas == canvas and plan.output == output
    assert abs(plan.inner[2] / plan.inner[3] - output[0] / output[1]) < 0.01


@pytest.mark.parametrize(
    "size_spec",
    [
        "1x1",
        "20000x20000",
        "20000x100",
        "15x100",
        "0x0",
        "0:1",
        "100:1",
        "big",
        "10x",
        "-5x20",
        "",
        "12.5x9",
        "16000x16000",
    ],
)
def test_sizes_outside_the_limits_or_unreadable_are_refused_in_one_line(size_spec):
    for plan in (
        lambda: plan_edit((100, 100), size_spec, NANO_SIZES),
        lambda: plan_generate(size_spec, NANO_SIZES),
    ):
        with pytest.raises(BadRequest) as refused:
            plan()
        assert "\n" not in str(refused.value)


def test_match_needs_a_picture():
    with pytest.raises(BadRequest, match="needs a picture"):
        plan_generate("match", NANO_SIZES)


def test_aspect_that_leaves_too_little_of_the_picture_is_refused():
    with pytest.raises(BadRequest, match="would give 100x6"):
        plan_edit((100, 100), "16:1", NANO_SIZES)


def test_parse_reads_pairs_and_the_multiplication_sign():
    assert parse((640, 480)) == parse("640×480") == ("exact", 640, 480)
