"""The intervals are checked by simulation against distributions whose mean is known."""

import numpy as np
import pytest

from kontext.bench.statistics import Estimate, estimate, paired, slope


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    runs = [estimate(rng.random(80) < 0.7, draws=500) for _ in range(400)]
    covered = np.mean([r.low <= 0.7 <= r.high for r in runs])
    assert 0.91 <= covered <= 0.98  # 95 % nominal; the spread of 400 runs is 1.1 points
    width = np.mean([r.high - r.low for r in runs])
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 80), rel=0.05)


def test_drawing_whole_scenes_covers_where_drawing_items_would_not():
    """30 scenes of 8 items that share most of their luck."""
    rng = np.random.default_rng(1)
    by_scene, by_item = [], []
    scenes = np.repeat(np.arange(30), 8)
    for _ in range(200):
        values = rng.normal(size=30)[scenes] + 0.3 * rng.normal(size=240)
        for kept, clusters in ((by_scene, list(scenes)), (by_item, None)):
            e = estimate(list(values), clusters, share=False, draws=300)
            kept.append(e.low <= 0 <= e.high)
    assert 0.89 <= np.mean(by_scene) <= 0.98
    assert np.mean(by_item) < 0.7


def test_all_right_is_not_beyond_doubt():
    all_right, all_wrong = estimate([1.0] * 20), estimate([0.0] * 20)
    assert all_right.low == pytest.approx(0.025 ** (1 / 20)) and all_right.high == 1
    assert all_wrong.high == pytest.approx(1 - 0.025 ** (1 / 20)) and all_wrong.low == 0


def test_same_values_that_are_no_share_have_no_binomial_bound():
    assert estimate([1.0] * 20, share=False).low == 1.0


def test_strata_weigh_the_same_whatever_their_size():
    values, strata = [1.0] * 90 + [0.0, 1.0] * 5, ["a"] * 90 + ["b"] * 10
    assert estimate(values, strata=strata).mean == pytest.approx(0.75)
    assert estimate(values).mean == pytest.approx(0.95)


def test_nothing_gives_nan_and_null():
    empty = estimate([float("nan")] * 3)
    assert empty.n == 0 and np.isnan(empty.mean) and empty.as_json()["mean"] is None
    assert np.isnan(Estimate.from_json(empty.as_json()).low)


def test_the_same_seed_gives_the_same_interval():
    values = list(np.random.default_rng(3).random(50))
    assert estimate(values) == estimate(values) != estimate(values, seed=1)


def test_pairing_finds_a_difference_that_unpaired_intervals_hide():
    rng = np.random.default_rng(2)
    hard = rng.normal(size=100)
    first = {str(i): float(hard[i]) for i in range(100)}
    second = {str(i): float(hard[i] + 0.1 + 0.05 * rng.normal()) for i in range(100)} | {"extra": 9.0}
    clusters = {k: k for k in second}
    difference = paired(first, second, clusters)
    assert difference.n == 100 and 0.08 < difference.low < difference.mean < difference.high < 0.12
    before, after = estimate(list(first.values()), share=False), estimate(list(second.values()), share=False)
    assert before.high > after.low


def test_slope_ignores_an_outlier():
    assert slope([0, 2, 4, 100, 8, 10]) == pytest.approx(2)
    assert np.isnan(slope([1.0]))
