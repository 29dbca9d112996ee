"""Approximations are exact where they must be, and better than fewer steps where they are not."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from kontext import Editor, world
from kontext.engine import EditRequest
from kontext.engine.approximations import MAX_SKIPPED, WARM_UP, StepCache
from kontext.errors import BadRequest, Cancelled
from kontext.flow import schedule
from kontext.flow.solvers import euler

TIMES = schedule(28, 64, 3.0)


def solve(velocity, threshold, z):
    """The solution of a field through a cache, and how often the field was computed."""
    cache, computed = StepCache(threshold, len(TIMES) - 1), []

    def field(z, t):
        return cache(z, t, lambda z: computed.append(t) or velocity(z, t))

    return euler(field, z, TIMES), len(computed)


@pytest.mark.parametrize("slope", [0.0, 3.0])
def test_velocities_linear_in_time_are_extrapolated_exactly(slope):
    z = torch.randn(1, 4, 2)

    def velocity(z, t):
        return torch.ones_like(z) * (10 + slope * t)

    found, computed = solve(velocity, 0.2, z)
    torch.testing.assert_close(found, euler(velocity, z, TIMES), rtol=0, atol=1e-4)  # of about 10
    assert computed <= WARM_UP + 6


def test_the_first_and_the_last_evaluations_and_every_fifth_between_are_computed():
    _, computed = solve(lambda z, t: torch.ones_like(z), 1.0, torch.randn(1, 4, 2))
    between = len(TIMES) - 1 - WARM_UP - 1
    assert computed == WARM_UP + 1 + between // (MAX_SKIPPED + 1)


def test_a_smaller_threshold_is_closer_and_computes_more():
    z = torch.randn(1, 4, 2)

    def velocity(z, t):
        return torch.cat((z[..., :1] * 0.5, torch.ones_like(z[..., :1]) * np.sin(3 * t) + 2), -1)

    exact = euler(velocity, z, TIMES)
    solved = [solve(velocity, threshold, z) for threshold in (0.2, 0.05, 0.01)]
    distances = [float((found - exact).abs().max()) for found, _ in solved]
    counts = [computed for _, computed in solved]
    assert distances[0] > distances[1] > distances[2] and counts[0] < counts[1] < counts[2] < 28


def test_each_picture_of_a_batch_is_decided_on_its_own():
    z = torch.randn(2, 4, 2)
    speeds = torch.tensor([0.3, 2.0])

    def velocity(speeds):
        return lambda z, t: torch.sin(speeds[:, None, None] * 4 * t) + 2 + 0 * z

    together, computed = solve(velocity(speeds), 0.05, z)
    alone = [solve(velocity(speeds[i : i + 1]), 0.05, z[i : i + 1]) for i in range(2)]
    assert torch.equal(together, torch.cat([found for found, _ in alone]))
    assert alone[0][1] < alone[1][1] <= computed


def test_edits_with_a_step_cache_come_nearer_to_exact_than_edits_of_as_many_evaluations():
    editor, sample = Editor.load("nano", device="cpu"), world.sample(7, "test", kind="background")
    source = Image.fromarray(sample.source)

    def edit(**settings):
        result = editor.edit(source, sample.english, seed=1, lock=False, **settings)
        return np.asarray(result.picture, float), result

    exact, full = edit(steps=28)
    assert full.evaluations == 28
    cached, result = edit(steps=28, step_cache=0.02)
    fewer, _ = edit(steps=result.evaluations)
    assert result.evaluations <= 14
    assert result.settings["step_cache"] == 0.02
    near, far = (np.sqrt(((picture - exact) ** 2).mean()) for picture in (cached, fewer))
    assert 0 < near < 1 < far


def test_a_step_cache_works_with_all_other_options(random_model):
    editor, picture = Editor(random_model), Image.new("RGB", (64, 64), "teal")

    def edit(threshold, **settings):
        return editor.edit(picture, "x", seed=1, steps=8, step_cache=threshold, **settings)

    for settings in (
        {"box": (0, 0, 20, 20)},
        {"negative_prompt": "y", "guidance_steps": "1-3"},
        {"negative_prompt": "y", "nag": 3},
        {"sampler": "midpoint"},
        {"sampler": "ab2", "strength": 0.6},
        {"references": [picture], "context_refresh": 2},
    ):
        every, most = edit(1e-9, **settings), edit(1.0, **settings)
        exact = edit(None, **settings)
        assert np.array_equal(np.asarray(every.picture), np.asarray(exact.picture)), settings
        assert every.evaluations == exact.evaluations > most.evaluations, settings


def test_results_with_a_step_cache_do_not_depend_on_their_batch(random_model):
    editor = Editor(random_model)
    requests = [
        EditRequest(
            picture=Image.new("RGB", (64, 64), color),
            prompt="x",
            seed=i,
            steps=12,
            step_cache=0.3,
            lock=False,
        )
        for i, color in enumerate(("teal", "red"))
    ]
    together = editor.edit_batch(requests)
    for request, result in zip(requests, together):
        (alone,) = editor.edit_batch([request])
        difference = np.asarray(alone.picture, float) - np.asarray(result.picture, float)
        assert np.abs(difference).max() <= 1  # products of other shapes round differently


def test_a_cancelled_edit_stops_while_evaluations_are_skipped(random_model):
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        Editor(random_model).edit(
            Image.new("RGB", (64, 64)),
            "x",
            steps=20,
            step_cache=1.0,
            on_step=lambda step: cancel.set() if step.index == 8 else None,
            cancel=cancel,
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"context_refresh": 0}, "context_refresh must be 1 to 100, got 0"),
        ({"step_cache": 1.5}, "step_cache must be 0 to 1, got 1.5"),
        ({"step_cache": float("nan")}, "step_cache"),
    ],
)
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(BadRequest, match=message):
        EditRequest(prompt="x", picture=Image.new("RGB", (8, 8)), **settings)
