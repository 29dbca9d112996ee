"""Change only what changes: the original's pixels to the last bit outside, no seam, no false region."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from kontext.bench.items import draw_item
from kontext.engine import Editor
from kontext.engine.context import Canvas
from kontext.engine.guidance import Guidance
from kontext.engine.regions import (
    change_map,
    composite,
    expected_region,
    find_region,
    select_active_tokens,
)
from kontext.engine.sampling import Batch, sample
from kontext.flow import SAMPLERS, schedule
from kontext.model.tokens import picture_ids
from support.numeric import difference, rounding
from support.squares import array, expected_tokens, paint_square, square


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_outside_the_region_every_pixel_is_the_originals(painting_editor, scene):
    painting_editor.model.transformer.paint = paint_square()
    result = painting_editor.edit(scene, "put a red square")
    outside = array(result.region) == 0
    assert np.array_equal(array(result.picture)[outside], array(scene)[outside])
    assert outside.mean() > 0.85
    red = array(result.picture)[52:76, 44:68]
    assert red[..., 0].min() > 200 and red[..., 1].max() < 60
    widened = square(38, 46, 36)  # by two pixels, as the masks of the world are
    assert overlap(array(result.region) > 127, widened) > 0.85
    assert result.changed_fraction == pytest.approx((array(result.picture) != array(scene)).any(-1).mean())


def test_an_edit_that_changes_nothing_returns_the_source_bit_equal(painting_editor, scene):
    result = painting_editor.edit(scene, "leave the picture as it is")
    assert np.array_equal(array(result.picture), array(scene))
    assert result.changed_fraction == 0 and array(result.region).max() == 0


@pytest.mark.parametrize("turns", [10, 100])
def test_after_many_turns_the_untouched_part_is_the_first_picture(painting_editor, scene, turns):
    picture, touched = scene, np.zeros((128, 128), bool)
    random = np.random.default_rng(turns)
    for _ in range(turns):
        x, y = random.integers(60, 96, 2)
        painting_editor.model.transformer.paint = paint_square(x, y, 16, random.uniform(-1, 1, 3))
        result = painting_editor.edit(picture, "put a square", steps=1)
        touched |= array(result.region) > 0
        picture = result.picture
    assert 0.05 < touched.mean() < 0.5
    assert np.array_equal(array(picture)[~touched], array(scene)[~touched])
    assert not np.array_equal(array(picture)[80:90, 80:90], array(scene)[80:90, 80:90])


@pytest.mark.parametrize("size", [(128, 128), (200, 90), (700, 500)])
def test_the_edge_of_the_region_shows_no_seam(painting_editor, size, make_scene):
    """Where the change itself is soft, no step along the region's edge is larger than the target's own."""
    original = make_scene(*size)
    y, x = np.mgrid[0:128, 0:128]
    bump = np.exp(-(((x - 64) / 22) ** 2 + ((y - 64) / 16) ** 2))

    def paint(pixels):
        pixels[0] += 0.9 * pixels.new_tensor(bump)

    painting_editor.model.transformer.paint = paint
    result = painting_editor.edit(original, "make it glow")
    region = array(result.region)
    assert 0.02 < (region > 0).mean() < 0.9
    difference = (array(result.picture) - array(original)).astype(float)
    steps = np.abs(np.diff(difference, axis=1)).max(-1)
    edge = (region[:, 1:] > 0) & (region[:, 1:] < 128)
    # The bump's own steepest step is 0.9 * 127.5 * 0.86 / 22 a pixel; the codec adds its own.
    assert np.percentile(steps[edge], 99) <= 12
    assert np.abs(difference[region == 0]).max() == 0


def test_a_region_head_leaves_the_rest_after_one_evaluation(painting_editor, scene):
    painter = painting_editor.model.transformer
    painter.expect(expected_tokens(2, 3, 5, 5))
    painter.paint = paint_square()
    seen = []
    result = painting_editor.edit(scene, "put a red square", steps=4, on_step=seen.append)
    assert painter.worked_on == [64, 20, 20, 20]  # 3 x 2 tokens and their neighbors
    # From the first step on, previews show where the edit acts.
    first = array(seen[0].preview())
    assert np.array_equal(first[88:], array(scene)[88:]) and not np.array_equal(first, array(scene))
    red = array(result.picture)[52:76, 44:68]
    assert red[..., 0].min() > 200 and red[..., 1].max() < 60
    changed = (array(result.picture) != array(scene)).any(-1)
    assert not changed[:40].any() and not changed[:, 92:].any()  # 8 pixels around the expected tokens
    assert result.region is not None


def test_a_region_head_that_expects_nothing_gives_the_original_bit_for_bit(painting_editor, scene):
    """The strongest case: the network would have painted something."""
    painter = painting_editor.model.transformer
    painter.expect(expected_tokens(0, 0, 0, 0))
    painter.paint = paint_square()
    result = painting_editor.edit(scene, "leave it as it is", steps=4)
    assert painter.worked_on == [64]  # one evaluation, and none of no tokens
    assert np.array_equal(array(result.picture), array(scene)) and result.changed_fraction == 0
    assert any("nothing changed" in warning for warning in result.warnings)


def test_a_region_head_knows_an_edit_of_the_whole_picture(painting_editor, scene):
    """Also where the change alone, weak and far from everywhere, would look like a local one."""
    painter = painting_editor.model.transformer
    painter.paint = paint_square()
    assert painting_editor.edit(scene, "sepia").region is not None
    painter.expect(expected_tokens(0, 0, 8, 8))
    assert painting_editor.edit(scene, "sepia").region is None


def test_a_region_head_keeps_an_edit_of_much_local(painting_editor, scene):
    """A new background covers most of the picture and must not reach the person in front of it."""

    def paint(pixels):
        kept = pixels[:, 48:112, 48:80].clone()
        pixels.copy_(-pixels)
        pixels[:, 48:112, 48:80] = kept

    painter = painting_editor.model.transformer
    painter.paint = paint
    assert painting_editor.edit(scene, "at the beach").region is None
    painter.expect(~expected_tokens(3, 3, 5, 7))
    result = painting_editor.edit(scene, "at the beach")
    kept = np.s_[56:104, 56:72]
    assert np.array_equal(array(result.picture)[kept], array(scene)[kept])
    assert (array(result.picture) != array(scene)).any(-1).mean() > 0.8


def test_pictures_of_a_batch_have_regions_of_their_own(painting_editor, scene):
    painter = painting_editor.model.transformer
    painter.paint = paint_square()
    painter.expect(expected_tokens(2, 3, 5, 5))
    both = painter.evaluate_with_region
    painter.evaluate_with_region = lambda *given: (
        (made := both(*given))[0],
        torch.stack([made[1][0], torch.full_like(made[1][0], -4.0)]),
    )
    first, second = painting_editor.variants(scene, "put a red square", 2, steps=2)
    assert first.changed_fraction > 0.03 and second.changed_fraction == 0


def test_a_large_picture_keeps_its_own_resolution(painting_editor, make_scene):
    original = make_scene(900, 700)
    painting_editor.model.transformer.paint = paint_square()
    result = painting_editor.edit(original, "put a red square")
    outside = array(result.region) == 0
    assert result.size == (900, 700) and outside.mean() > 0.85
    assert np.array_equal(array(result.picture)[outside], array(original)[outside])


def test_a_change_everywhere_is_left_whole(painting_editor, scene):
    def paint(pixels):
        pixels.copy_(-pixels)

    painting_editor.model.transformer.paint = paint
    result = painting_editor.edit(scene, "make it a negative")
    assert result.region is None and result.changed_fraction > 0.9


def test_without_lock_the_picture_is_the_models(painting_editor, scene):
    painting_editor.model.transformer.paint = paint_square()
    result = painting_editor.edit(scene, "put a red square", lock=False)
    assert result.region is None
    assert (array(result.picture) != array(scene)).any(-1).mean() > 0.5  # the codec's own error is everywhere


def test_transparent_stays_transparent_where_nothing_changed(painting_editor, scene):
    alpha = Image.new("L", (128, 128))
    ImageDraw.Draw(alpha).ellipse((10, 10, 90, 118), fill=255)
    sticker = Image.merge("RGBA", (*scene.split(), alpha))
    painting_editor.model.transformer.paint = paint_square(70, 50, 32)
    result = painting_editor.edit(sticker, "put a red square")
    assert result.picture.mode == "RGBA"
    outside = array(result.region) == 0
    assert np.array_equal(array(result.picture)[outside], array(sticker)[outside])
    assert array(result.picture)[56:76, 94:98, 3].min() == 255  # painted where it was transparent
    assert array(result.picture)[:, 120:, 3].max() == 0


def test_change_map_ignores_what_both_sides_lost_and_sees_what_one_side_has():
    codec = np.full((32, 32, 3), 100, np.uint8)
    result = codec.copy()
    result[8:24, 8:24, 1] = 180
    change = change_map(result, codec).abs().amax(0)
    assert change[:6].max() == 0
    assert change[12:20, 12:20].min() == pytest.approx(80 / 255)


def found(change, **options):
    """The soft region of a map of change in one channel, (128, 128)."""
    change = torch.tensor(change, dtype=torch.float32)
    return find_region(torch.stack((change, 0 * change, 0 * change)), (128, 128), **options)


def test_specks_and_an_even_restlessness_are_no_region():
    change = np.random.default_rng(0).normal(0, 0.012, (128, 128))
    change[30, 40] = 0.9
    assert found(change).empty


def test_weak_change_belongs_where_it_touches_strong_change():
    change = np.zeros((128, 128))
    change[20:60, 20:60], change[30:40, 30:40] = 0.06, 0.25
    change[90:120, 90:120] = 0.06  # weak alone: not an edit
    soft = found(change).soft
    assert soft[22:58, 22:58].min() > 0.9
    assert soft[80:].max() == 0


def test_gaps_inside_a_region_are_closed():
    change = np.zeros((128, 128))
    change[20:60, 20:60] = 0.5
    change[38:41, 20:60] = 0
    assert found(change).soft[25:55, 25:55].min() == 1


def test_a_slight_change_of_all_colors_is_one_of_the_whole_picture():
    noisy = np.random.default_rng(0).normal(0, 0.03, (128, 128))
    assert found(noisy + 0.04).soft is None
    assert found(noisy).soft is not None


def test_regions_of_large_canvases_are_found_on_a_small_grid():
    codec = np.full((700, 1100, 3), 100, np.uint8)
    result = codec.copy()
    result[300:500, 200:600] = 220
    soft = find_region(change_map(result, codec), (1100, 700)).soft
    assert soft.shape == (700, 1100)
    truth = np.zeros((700, 1100), bool)
    truth[300:500, 200:600] = True
    assert overlap(soft > 0.5, truth) > 0.85 and soft[310:490, 210:590].min() == 1


def test_empty_region_gives_the_original_object():
    original = Image.new("RGB", (20, 20), "green")
    other = Image.new("RGB", (20, 20), "red")
    assert composite(original, other, Image.new("L", (20, 20)), None) is original


def test_after_the_first_step_only_what_changes_is_computed(painting_editor, scene):
    painter = painting_editor.model.transformer
    painter.paint = paint_square()
    everything = painting_editor.edit(scene, "put a red square", seed=1, steps=4, regions=False)
    assert painter.worked_on == [64] * 4
    painter.worked_on.clear()
    narrowed = painting_editor.edit(scene, "put a red square", seed=1, steps=4)
    assert painter.worked_on[0] == 64 and set(painter.worked_on[1:]) <= set(range(4, 26))
    assert np.abs(array(everything.picture) - array(narrowed.picture)).max() <= 2
    assert everything.evaluations == narrowed.evaluations == 4


def test_variants_go_on_with_the_tokens_that_any_of_them_needs():
    estimate = torch.zeros(3, 64, 64)
    for i, token in enumerate((17, 20, 23)):
        estimate[i, token] = 1
    active = select_active_tokens(estimate, torch.zeros(1, 64, 64), (8, 8)).reshape(8, 8)
    assert active[1:4].all() and active.sum() == 24  # each with its neighbors


def test_an_edit_of_most_of_the_picture_is_computed_whole(painting_editor, scene):
    painter = painting_editor.model.transformer
    painter.paint = paint_square(10, 10, 100)
    painting_editor.edit(scene, "put a red square", steps=3)
    assert painter.worked_on == [64] * 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_tokens_left_out_end_as_the_source_exactly(random_model, sampler):
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(1, 16, 64, generator=generator)
    config = random_model.preset.transformer
    batch = Batch(
        noise=torch.randn(1, 16, 64, generator=generator),
        ids=picture_ids(0, 4, 4),
        text=torch.randn(1, 6, config.text_width, generator=generator),
        pooled=torch.randn(1, config.pooled_width, generator=generator),
        source=source,
    )
    active = torch.zeros(16, dtype=torch.bool)
    active[5:7] = True
    with torch.no_grad():
        times = schedule(4, 16, 3.0)
        tokens = sample(
            random_model.transformer, batch, times, Guidance(), lambda _: active, sampler=sampler
        ).tokens
    # Every step rounds z - src, its quotient by t and the sum; the last one leaves only its own.
    assert difference(tokens[:, ~active], source[:, ~active]) <= rounding(4 * 4)
    assert (tokens[:, active] - source[:, active]).abs().min() > 1e-3


@pytest.mark.slow
def test_regions_of_exact_edits_are_the_true_masks():
    """What the shipped codec makes of the true answers: the model's own faults are not measured here."""
    editor = Editor.load("nano")
    size = editor.model.preset.sizes[0][0]

    def reconstruct(picture):
        return editor.contexts.reconstruct(Canvas(Image.fromarray(picture)))

    overlaps = []
    for index in range(100):
        sample = draw_item("test", "local", index, size).sample
        region = find_region(change_map(reconstruct(sample.target), reconstruct(sample.source)), (size, size))
        inside = np.ones_like(sample.mask) if region.soft is None else region.soft > 0.5
        overlaps.append(overlap(inside, sample.mask))
    assert np.mean(overlaps) >= 0.8

    recognised = []
    for index in range(100):
        sample = draw_item("test", "global", index, size).sample
        if sample.mask.all():
            region = find_region(
                change_map(reconstruct(sample.target), reconstruct(sample.source)), (size, size)
            )
            recognised.append(region.soft is None)
    assert len(recognised) > 40 and np.mean(recognised) >= 0.95, np.mean(recognised)


def test_nothing_is_expected_where_no_token_is_likely_to_change():
    logits = torch.tensor([[-9.0, 0.0, 2.0], [-9.0, 0.0, 3.0]])  # at most 0.88, and 0.95
    assert expected_region(logits).tolist() == [[False, False, False], [False, True, True]]


def test_nan_is_a_change_so_that_it_reaches_the_result():
    nan = float("nan")
    assert expected_region(torch.tensor([[-9.0, nan, 9.0]])).tolist() == [[False, True, True]]
    source = torch.zeros(1, 16, 64)
    assert select_active_tokens(source + nan, source, (4, 4)) is None  # all of them
