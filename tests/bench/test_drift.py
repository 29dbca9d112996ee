"""Each measure of drift sees its own kind, more of it for more of it, and is near zero for the others."""

import numpy as np
import pytest

from kontext.bench import drift
from kontext.bench.items import BenchTurn
from kontext.bench.metrics import Case, blur

EVERYWHERE = np.ones((128, 128), bool)


def as_bytes(picture):
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def truth(toy):
    """The toy scene with a little texture, as detail to lose."""
    texture = np.random.default_rng(0).normal(size=(128, 128, 1)) * 6
    return as_bytes(toy[0].target + texture)


def tinted(truth, level):
    return as_bytes(truth + np.array([5.0, -4.0, 3.0]) * level)


def blurred(truth, level):
    return as_bytes(blur(truth, 0.5 * level))


def sharpened(truth, level):
    return as_bytes(truth + 0.4 * level * (truth - blur(truth, 1.5)))


def noisy(truth, level):
    return as_bytes(truth + np.random.default_rng(1).normal(size=truth.shape) * 6 * level)


def moved(truth, level):
    return np.roll(truth, level, axis=1)


SEES = {
    tinted: ("low", 1),
    blurred: ("high", -1),
    sharpened: ("high", 1),
    noisy: ("high", 1),
    moved: ("shift", 1),
}


@pytest.mark.parametrize("change", SEES, ids=lambda f: f.__name__)
def test_a_measure_grows_with_its_own_kind_of_drift(truth, change):
    name, sign = SEES[change]
    series = [sign * drift.drift(change(truth, level), truth, EVERYWHERE)[name] for level in range(4)]
    assert series[0] == pytest.approx(0, abs=1e-6)
    assert all(a < b for a, b in zip(series, series[1:])), series


@pytest.mark.parametrize("change", SEES, ids=lambda f: f.__name__)
def test_every_drift_costs_psnr(truth, change):
    series = [drift.drift(change(truth, level), truth, EVERYWHERE)["psnr"] for level in range(3)]
    assert series[0] == 100 and series[0] > series[1] > series[2]


def test_color_drift_does_not_look_like_blur_nor_blur_like_color_drift(truth):
    assert abs(drift.drift(tinted(truth, 2), truth, EVERYWHERE)["high"]) < 0.1
    assert drift.drift(blurred(truth, 2), truth, EVERYWHERE)["low"] < 1
    assert drift.drift(moved(truth, 3), truth, EVERYWHERE)["shift"] == 3


def test_only_the_untouched_part_counts(truth):
    where = EVERYWHERE.copy()
    where[40:, :] = False
    changed = truth.copy()
    changed[60:, :] = 0
    assert drift.drift(changed, truth, where)["low"] == pytest.approx(0, abs=0.05)
    assert drift.drift(changed, truth, where)["psnr"] == 100
    assert np.isnan(drift.drift(truth, truth, ~EVERYWHERE)["psnr"])


@pytest.fixture(scope="module")
def session(toy):
    """There and back ten times between red and green."""
    sample, distractors = toy
    ends = (sample.target, sample.source)
    turns = []
    for k in range(drift.ROUNDS):
        target, before = ends[k % 2], ends[1 - k % 2]
        turns.append(BenchTurn("", 0, "toy", target, Case(before, target, tuple(distractors)), {}))
    return drift.DriftSession("back/0000", "back", sample.source, tuple(turns))


def test_an_exact_editor_never_drifts(session):
    figures = drift.figures(session, drift.play(None, "oracle", [session])[0])
    assert figures["sr@10"] == 1 and figures["cr@10"] == 0 and figures["psnr@10"] == 100
    assert figures["psnr slope"] == figures["low slope"] == 0 and figures["half-life"] == 11


def test_doing_nothing_is_no_success(session):
    figures = drift.figures(session, drift.play(None, "copy", [session])[0])
    assert figures["sr@1"] == 0 and figures["psnr@10"] == 100


def test_one_wrong_turn_ends_the_run_of_success_but_not_the_next_turn(session):
    results = [turn.target for turn in session.turns]
    results[4] = session.turns[3].target
    figures = drift.figures(session, results)
    assert [figures[f"sr@{k}"] for k in (4, 5, 10)] == [1, 0, 0]
    assert figures["success@5"] == 0 and figures["success@6"] == 1


def test_collapse_needs_two_bad_turns_in_a_row(session):
    def spoiled(*bad):
        results = [turn.target for turn in session.turns]
        for k in bad:
            results[k - 1] = noisy(results[k - 1], 12)
        return drift.figures(session, results)

    assert spoiled(3, 6)["cr@10"] == 0
    assert spoiled(5, 6)["cr@5"] == 0 and spoiled(5, 6)["cr@6"] == 1 == spoiled(5, 6)["cr@10"]


def test_growing_noise_has_a_slope_and_a_half_life(session):
    results = [noisy(turn.target, 0.3 * (k + 1)) for k, turn in enumerate(session.turns)]
    figures = drift.figures(session, results)
    assert figures["psnr slope"] < -0.5 and figures["high slope"] > 0 and figures["half-life"] == 2
