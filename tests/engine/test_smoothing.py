"""Recolored surfaces and flat areas are evened out along edges; new content stays as painted."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kontext.engine.smoothing import FLAT_RULES, smooth_flat, smooth_recolored
from kontext.model.presets import PRESETS
from kontext.model.window import Window
from support.shapes import flat_shapes


def recolored(picture):
    """Red as blue, green darker."""
    return np.stack([picture[..., 2], picture[..., 1] // 2, picture[..., 0]], -1)


def blotchy(picture, seed=1, size=8, strength=12):
    """With an error of its own in every square, as a model of large tokens paints."""
    noise = torch.randn(3, picture.shape[0] // size, picture.shape[1] // size, generator=seeded(seed))
    noise = F.interpolate(noise[None], scale_factor=size)[0].permute(1, 2, 0).numpy()
    return np.rint(picture + strength * noise).clip(0, 255).astype(np.uint8)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def error(a, b):
    return np.abs(a.astype(float) - b).mean()


def test_blotches_of_a_recolored_picture_disappear():
    original = flat_shapes()
    target = recolored(original)
    painted = blotchy(target)
    assert error(smooth_recolored(painted, original), target) < 0.7 * error(painted, target)


def test_an_edge_of_the_original_stays_sharp():
    original = np.full((256, 256, 3), 60, np.uint8)
    original[:, 128:] = (200, 120, 40)
    target = original.copy()
    target[:, 128:] = (40, 120, 200)
    blurred = np.asarray(
        F.avg_pool2d(torch.from_numpy(target).permute(2, 0, 1).float(), 9, 1, 4, count_include_pad=False)
        .permute(1, 2, 0)
        .round()
        .byte()
    )
    made = smooth_recolored(blurred, original)
    beside = slice(124, 132)  # where the blur is
    assert error(made[:, beside], target[:, beside]) < 0.5 * error(blurred[:, beside], target[:, beside])


def test_new_content_stays_as_painted():
    original = flat_shapes()
    rows, columns = np.mgrid[:256, :256]
    disc = (rows - 128) ** 2 + (columns - 128) ** 2 < 40**2
    stripes = np.where((columns // 10 % 2 == 0)[..., None], (250, 240, 30), (20, 20, 90))
    painted = np.where(disc[..., None], stripes, original).astype(np.uint8)
    made = smooth_recolored(painted, original)
    assert error(made[disc], painted[disc]) < 3
    assert np.abs(made[disc].astype(int) - painted[disc]).max() < 40


@pytest.mark.parametrize("side", [64, 256, 1024])
def test_what_is_the_same_stays_the_same(side):
    original = flat_shapes(side)
    assert np.abs(smooth_recolored(original, original).astype(int) - original).max() <= 1


def test_only_the_window_changes_and_as_in_the_whole():
    original = flat_shapes()
    painted = blotchy(recolored(original))
    window = Window(64, 192, 96, 224)
    made, whole = smooth_recolored(painted, original, window), smooth_recolored(painted, original)
    outside = np.ones((256, 256), bool)
    window.of(outside)[:] = False
    assert np.array_equal(made[outside], painted[outside])
    assert np.abs(window.of(made).astype(int) - window.of(whole)).max() <= 2
    assert np.array_equal(smooth_recolored(painted, original, Window(0, 0, 0, 0)), painted)


def test_a_canvas_of_any_shape():
    original = flat_shapes()[:200, :151]
    assert smooth_recolored(original, original).shape == original.shape


def test_unrest_of_flat_areas_shrinks_and_edges_stay():
    original, painted_over = flat_shapes(), flat_shapes(seed=5)
    result, codec = smooth_flat(blotchy(painted_over, strength=4), original)
    assert error(result, painted_over) < 0.6 * error(blotchy(painted_over, strength=4), painted_over)
    edges = np.abs(np.diff(painted_over.astype(int), axis=1)).max(-1) > 60
    contrast = np.abs(np.diff(result.astype(int), axis=1)).max(-1)[edges]
    assert contrast.min() > 40 and error(codec, original) < 1


def test_colors_that_differ_are_not_mixed():
    """Neither two colors of the result on one of the original, nor one on two."""
    halves = np.full((128, 128, 3), 100, np.uint8)
    halves[:, 64:] += 60  # 0.4 in all, seven deviations and more
    flat = np.full_like(halves, 100)
    for result, codec in ((halves, flat), (flat, halves)):
        for before, after in zip((result, codec), smooth_flat(result, codec)):
            assert np.abs(before.astype(int) - after).max() <= 1
    assert 60 / 255 * 3**0.5 > 6 * max(FLAT_RULES.result_deviation, FLAT_RULES.original_deviation)


def test_result_and_codec_are_averaged_with_the_same_weights():
    painted, original = blotchy(flat_shapes(), strength=4), flat_shapes()
    result, codec = smooth_flat(painted, painted)
    assert np.array_equal(result, codec) and not np.array_equal(result, painted)
    window = Window(64, 192, 96, 224)
    for before, part, whole in zip(
        (painted, original), smooth_flat(painted, original, window), smooth_flat(painted, original)
    ):
        outside = np.ones((256, 256), bool)
        window.of(outside)[:] = False
        assert np.array_equal(part[outside], before[outside])
        assert np.array_equal(window.of(part), window.of(whole))
    assert smooth_flat(painted, original, Window(0, 0, 0, 0))[0] is painted
    for shape in ((40, 3), (3, 40), (200, 151)):
        small = flat_shapes()[: shape[0], : shape[1]]
        assert smooth_flat(small, small)[0].shape == small.shape


def test_photographs_are_not_touched():
    assert not PRESETS["dev"].smoothing and PRESETS["nano-256"].smoothing
