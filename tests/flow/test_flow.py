"""Schedules equal the published figures; solvers have their order; training times follow their law."""

import math

import pytest
import torch

from kontext import flow
from support.numeric import difference, rounding

PUBLISHED_MU = {4116: 1.15339, 4042: 1.14086, 4095: 1.14983, 4096: 1.15, 256: 0.5}
PUBLISHED_30 = (
    "1 .9892 .9779 .9660 .9535 .9404 .9266 .9121 .8967 .8805 .8633 .8451 .8257 .8051 .7831 .7595 .7343 .7072 "
    ".6780 .6464 .6123 .5751 .5345 .4901 .4412 .3871 .3270 .2598 .1841 .0982 0"
)


@pytest.mark.parametrize("tokens", PUBLISHED_MU)
def test_mu_is_the_published_one(tokens):
    assert flow.official_mu(tokens) == pytest.approx(PUBLISHED_MU[tokens], abs=1e-5)


def test_schedules_are_the_published_ones():
    thirty = flow.schedule(30, 4096)
    assert [round(t, 4) for t in thirty] == [float(t) for t in PUBLISHED_30.split()]
    assert [round(t, 4) for t in flow.schedule(4, 4096)] == [1.0, 0.9045, 0.7595, 0.5128, 0.0]


def test_a_shift_of_its_own_replaces_the_official_mu():
    shifted = flow.schedule(2, 256, shift=6.0)
    assert shifted == pytest.approx([1.0, 6 * 0.5 / (1 + 5 * 0.5), 0.0])
    assert flow.schedule(3, 256, shift=math.exp(flow.official_mu(256))) == pytest.approx(
        flow.schedule(3, 256)
    )


@pytest.mark.parametrize(("steps", "shift"), [(0, None), (-1, None), (4, 0.0), (4, -2.0)])
def test_impossible_schedules_are_refused(steps, shift):
    with pytest.raises(ValueError, match="must be"):
        flow.schedule(steps, 256, shift)


@pytest.mark.parametrize(
    ("solver", "order"), [(flow.euler, 1), (flow.midpoint, 2), (flow.adams_bashforth, 2)]
)
def test_solvers_reach_their_order(solver, order):
    """dz/dt = 3 t^2 z backward from t = 1: z(0) = z(1) / e."""

    def error(steps):
        z = solver(
            lambda z, t: 3 * t * t * z, torch.ones(1, dtype=torch.float64), flow.schedule(steps, 256, 1.0)
        )
        return abs(z.item() - math.exp(-1))

    ratio = error(40) / error(80)
    assert ratio == pytest.approx(2**order, rel=0.1)


def test_a_straight_path_is_followed_exactly_in_one_step():
    data, noise = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    seen = []
    made = flow.euler(
        lambda z, t: flow.velocity(data, noise), noise, [1.0, 0.0], lambda i, z, x: seen.append((i, x))
    )
    # Two roundings, of numbers that are up to 4 times as large as the data.
    assert difference(made, data) <= rounding(16)
    assert seen[0][0] == 0 and difference(seen[0][1], data) <= rounding(16)


def test_path_ends_at_data_and_noise():
    data, noise = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(flow.interpolate(data, noise, torch.zeros(2)), data)
    assert torch.equal(flow.interpolate(data, noise, torch.ones(2)), noise)


def test_guidance_one_is_the_prompt_alone():
    with_prompt, without = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    # Two roundings, of numbers that are up to 4 times as large as the result.
    assert difference(flow.guided(with_prompt, without, 1.0), with_prompt) <= rounding(16)
    assert torch.equal(flow.guided(with_prompt, without, 0.0), without)


def test_training_times_are_logit_normal_shifted():
    generator = torch.Generator().manual_seed(0)
    t = flow.training_times(4096, generator, shift=6.0)
    alpha = t / (6 - 5 * t)  # undo the shift
    logit = torch.logit(alpha)
    assert logit.mean().abs() < 0.02 and (logit.std() - 1).abs() < 0.02
    assert ((t > 0) & (t < 1)).all()


def test_stratified_times_cover_every_slice():
    t = flow.training_times(64, torch.Generator().manual_seed(1))
    ranks = torch.special.ndtr(torch.logit(t)) * 64
    assert sorted(ranks.floor().long().tolist()) == list(range(64))


def test_a_uniform_share_of_one_is_uniform():
    t = flow.training_times(4096, torch.Generator().manual_seed(2), shift=6.0, uniform_share=1.0)
    assert (t.mean() - 0.5).abs() < 0.02


MEANS = torch.tensor([[-2.0, 0.5], [1.0, 1.5], [0.5, -2.0]], dtype=torch.float64)
SPREAD = 1.0


def mixture_velocity(z, t):
    """The exact velocity of the flow to three Gaussian blobs: E[noise - data | z] (at t in (0, 1])."""
    variance = ((1 - t) * SPREAD) ** 2 + t**2
    away = z[:, None] - (1 - t) * MEANS  # (points, blobs, 2)
    weight = (-(away**2).sum(-1) / (2 * variance)).softmax(1)[..., None]
    data = MEANS + (1 - t) * SPREAD**2 / variance * away
    noise = t / variance * away
    return (weight * (noise - data)).sum(1)


def distance_to_exact(solver, steps):
    start = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = flow.midpoint(mixture_velocity, start, flow.schedule(2000, 4096))
    made = solver(mixture_velocity, start, flow.schedule(steps, 4096))
    return float((made - exact).square().mean().sqrt())


@pytest.mark.parametrize("evaluations", [8, 16, 28])
def test_second_order_is_nearer_to_exact_at_equal_evaluations(evaluations):
    """On the flow to three blobs, along the schedule of a 1024 x 1024 picture.

    docs/sampling.md has the figures.
    """
    first = distance_to_exact(flow.euler, evaluations)
    assert distance_to_exact(flow.adams_bashforth, evaluations) < 0.6 * first
    assert distance_to_exact(flow.midpoint, evaluations // 2) < 0.6 * first


@pytest.mark.parametrize("name", flow.SAMPLERS)
def test_samplers_evaluate_at_the_times_they_name(name):
    sampler, times, seen = flow.SAMPLERS[name], flow.schedule(5, 256), []

    def field(z, t):
        seen.append(t)
        return mixture_velocity(z, t)

    told = []
    sampler.solve(field, torch.zeros(1, 2, dtype=torch.float64), times, lambda i, *_: told.append(i))
    assert seen == [t for ends in zip(times, times[1:]) for t in sampler.step_times(*ends)]
    assert told == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", flow.SAMPLERS)
def test_samplers_end_where_a_straight_path_leads(name):
    data, noise = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    made = flow.SAMPLERS[name].solve(lambda z, t: (z - data) / t, noise, flow.schedule(4, 256), None)
    assert difference(made, data) <= rounding(4 * 6)
