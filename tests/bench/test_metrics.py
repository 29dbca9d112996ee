"""Each metric is checked where its value is known, then under graded corruptions of the oracle."""

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_cie76, rgb2lab
from skimage.filters import gaussian

from kontext.bench import metrics
from kontext.bench.metrics import Case


def as_bytes(picture):
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def down_and_up(picture, factor=2):
    small = Image.fromarray(picture).resize(
        (picture.shape[1] // factor, picture.shape[0] // factor), Image.BOX
    )
    return np.asarray(small.resize((picture.shape[1], picture.shape[0]), Image.BICUBIC))


@pytest.fixture(scope="module")
def case(toy):
    return Case.of(*toy)


def test_color_agrees_with_the_reference_implementation():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    np.testing.assert_allclose(metrics.lab(a), rgb2lab(a), atol=0.05)
    distance = metrics.color_distance(metrics.lab(a), metrics.lab(b))
    np.testing.assert_allclose(distance, deltaE_cie76(rgb2lab(a), rgb2lab(b)), atol=0.1)


def test_blur_agrees_with_the_reference_implementation():
    picture = np.random.default_rng(0).normal(size=(31, 45, 3))
    expected = gaussian(picture, 1.0, mode="nearest", truncate=3.0, channel_axis=-1)
    np.testing.assert_allclose(metrics.blur(picture, 1.0), expected, atol=1e-5)


def test_dilation_grows_by_a_square():
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = mask[0, 8] = True
    grown = metrics.dilate(mask, 2)
    assert grown[2:7, 2:7].all() and grown[:3, 6:].all() and grown.sum() == 25 + 9 - 1


def test_oracle_scores_everything(case):
    figures = case.score(case.target)
    perfect = ("success", "choice", "accuracy@5", "keep@2", "iou@5", "combined", "precision", "recall")
    assert all(figures[name] == 1 for name in perfect)
    assert figures["margin"] == 1 and figures["psnr"] == figures["keep_psnr"] == metrics.PSNR_CAP
    assert figures["edit_error"] == figures["spill"] == figures["keep_p99"] == 0


def test_copying_the_input_is_never_a_success_and_keeps_everything(case):
    figures = case.score(case.source)
    assert figures["success"] == figures["choice"] == figures["combined"] == figures["iou@5"] == 0
    assert figures["keep@5"] == 1 and figures["edit_error"] == pytest.approx(1)
    assert figures["chosen"] == 0  # the nearest distractor is the source itself


def test_every_rival_fails_and_is_named(toy, case):
    for index, distractor in enumerate(toy[1], start=1):
        figures = case.score(distractor)
        assert figures["success"] == figures["choice"] == 0 and figures["chosen"] == index


@pytest.mark.parametrize("soften", [down_and_up, lambda p: as_bytes(metrics.blur(p, 1.0))])
def test_a_soft_codec_of_the_target_is_a_success(case, soften):
    assert case.score(soften(case.target))["success"] == 1


def test_a_half_done_edit_is_no_success(case):
    half = as_bytes((case.target.astype(float) + case.source) / 2)
    figures = case.score(half)
    assert figures["success"] == 0 and figures["edit_error"] == pytest.approx(0.25, abs=0.02)


def noise(case, level):
    return case.target + np.random.default_rng(1).normal(size=case.target.shape) * 9 * level


def soften(case, level):
    return metrics.blur(case.target, level)


def color_drift(case, level):
    return case.target + np.array([4.0, -3.0, 3.0]) * level


def shift(case, level):
    return np.roll(case.target, level, axis=1)


def missing_edit(case, level):
    return case.target + (case.source.astype(float) - case.target) * level / 4


def wrong_object(case, level):
    """The disc fades back while the square takes its color."""
    wrong = case._wrong[3].astype(float)
    return case.target + (wrong - case.target) * level / 4


def spill_over(case, level):
    out = case.target.copy()
    out[128 - 20 * level :, 36:60] = (40, 170, 70)
    return out


EXPECTED = {
    noise: (
        "accuracy@5",
        "keep@2",
        "keep_psnr",
        "psnr",
        "iou@5",
        "combined",
        "margin",
        "-edit_error",
        "-keep_p99",
    ),
    soften: ("accuracy@5", "keep@5", "keep_psnr", "psnr", "iou@5", "combined", "margin", "-edit_error"),
    color_drift: ("keep_psnr", "psnr", "margin", "-edit_error", "-keep_p99"),
    shift: (
        "accuracy@10",
        "keep@5",
        "keep_psnr",
        "psnr",
        "iou@10",
        "combined",
        "margin",
        "-edit_error",
        "-spill",
    ),
    missing_edit: ("psnr", "margin", "-edit_error"),
    wrong_object: ("psnr", "keep_psnr", "margin", "-edit_error", "-keep_p99"),
    spill_over: ("keep@2", "keep@5", "keep@10", "keep_psnr", "iou@5", "precision", "combined", "-spill"),
}


@pytest.mark.parametrize("corrupt", EXPECTED, ids=lambda f: f.__name__)
def test_metrics_fall_strictly_under_graded_corruption(case, corrupt):
    graded = [case.score(as_bytes(corrupt(case, level))) for level in range(4)]
    for name in EXPECTED[corrupt]:
        sign = -1 if name.startswith("-") else 1
        series = [sign * figures[name.lstrip("-")] for figures in graded]
        assert all(a > b for a, b in zip(series, series[1:])), (name, series)


@pytest.mark.parametrize("corrupt", [missing_edit, wrong_object])
def test_success_is_lost_when_the_edit_is_missing_or_on_the_wrong_thing(case, corrupt):
    assert [case.score(as_bytes(corrupt(case, level)))["success"] for level in (0, 4)] == [1, 0]


def test_every_figure_reacts_to_some_corruption(case):
    reacting = {name.lstrip("-") for names in EXPECTED.values() for name in names}
    decided = {"success", "choice", "chosen", "recall"}  # asserted by the tests above and below
    assert set(case.score(case.target)) == reacting | decided


def test_recall_is_the_share_of_the_edit_that_changed_at_all(case):
    half = case.source.copy()
    half[: int(0.4 * 128)] = case.target[: int(0.4 * 128)]
    assert case.score(half)["recall"] == pytest.approx(0.5, abs=0.06)


def test_a_whole_new_picture_has_no_preservation(toy):
    case = Case(toy[0].source, toy[0].target, tuple(toy[1]), whole_picture=True)
    figures = case.score(case.target)
    assert figures["success"] == 1 and figures["combined"] == 1 and np.isnan(figures["keep@5"])
    assert case.score(case.source)["success"] == 0


def test_text_to_picture_starts_from_gray(toy):
    case = Case(None, toy[0].target, tuple(toy[1]), whole_picture=True)
    gray = np.full_like(case.target, 128)
    assert case.score(case.target)["success"] == 1
    assert case.score(gray)["edit_error"] == pytest.approx(1, abs=0.02) and case.score(gray)["success"] == 0


def test_change_nothing_counts_preservation_only(toy):
    case = Case(toy[0].source, toy[0].source)
    assert case.score(case.source)["success"] == 1 and case.score(case.source)["iou@5"] == 1
    assert case.score(toy[0].target)["keep@5"] < 0.95


def test_results_of_another_size_are_refused(case):
    with pytest.raises(ValueError, match="128"):
        case.score(case.target[:64, :64])


def test_plain_measures():
    source = np.zeros((8, 8, 3), np.uint8)
    target, mask = source.copy(), np.zeros((8, 8), bool)
    mask[:4] = True
    target[mask] = 200
    half = source.copy()
    half[mask] = 100
    assert metrics.edit_error(source, source, target, mask) == 1
    assert metrics.edit_error(target, source, target, mask) == 0
    assert metrics.edit_error(half, source, target, mask) == pytest.approx(0.25)
    assert metrics.keep_psnr(half, source, mask) == metrics.PSNR_CAP
    assert metrics.keep_psnr(source + 1, source, mask) == pytest.approx(20 * np.log10(255), abs=1e-6)
    assert np.isnan(metrics.keep_psnr(half, source, np.ones_like(mask)))


def test_success_takes_a_sample_and_its_rivals(toy):
    sample, distractors = toy
    assert metrics.success(sample.target, sample, distractors) and not metrics.success(
        sample.source, sample, distractors
    )
