"""Muon makes updates with singular values near one; AdamW is torch's own; parameters go to the right one."""

import copy

import pytest
import torch
from torch import nn

from kontext.errors import BadCheckpoint
from kontext.model.presets import PRESETS
from kontext.model.text import T5Encoder
from kontext.train.optimizer import (
    COEFFICIENTS,
    POSITION_RATE,
    MuonAdamW,
    orthogonalize,
    split_parameters,
)
from support.numeric import difference, rounding


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 16, 64), (2, 64, 16)])
def test_orthogonalized_momentum_has_singular_values_near_one(shape):
    update = orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(update)
    assert update.shape == torch.Size(shape)
    assert values.min() > 0.3 and values.max() < 1.6  # five steps of this iteration reach about [0.7, 1.2]


@pytest.mark.parametrize("shape", [(2, 48, 48), (2, 32, 160), (2, 160, 32)])
@pytest.mark.parametrize("smallest", [1.0, 1e-4, 1e-8])
def test_orthogonalizing_in_float32_equals_the_iteration_in_float64(monkeypatch, shape, smallest):
    monkeypatch.setattr("kontext.train.optimizer.bfloat16_is_faster", lambda device: False)
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    spectrum = smallest ** torch.linspace(0, 1, min(shape[1:]))  # gradients have few large singular values
    momentum = left @ torch.diag(spectrum) @ right
    x = momentum.double() / momentum.double().norm(dim=(1, 2), keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    # Four steps amplify the rounding of the smallest eigenvalues by a^8 = 20 000; bfloat16, in which the
    # iteration runs elsewhere, rounds each number of its result by more.
    assert difference(orthogonalize(momentum), x, size=1) <= torch.finfo(torch.bfloat16).eps / 8


def test_adamw_equals_the_library_step_for_step():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    mine = MuonAdamW([], ours.parameters(), muon_rate=0.0, adamw_rate=1e-2, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(5):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
        for model, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    # Five steps, each of sums over seven rows of five numbers, a square root and a quotient.
    assert difference(ours.weight, theirs.weight, size=1) <= rounding(5 * 2 * 7 * 5)
    assert difference(ours.bias, theirs.bias, size=1) <= rounding(5 * 2 * 7 * 5)


def test_muon_learns_a_linear_map():
    torch.manual_seed(0)
    model, truth = nn.Linear(16, 16, bias=False), torch.randn(16, 16)
    optimizer = MuonAdamW(model.parameters(), [], muon_rate=0.2, adamw_rate=0.0, weight_decay=0.0)
    first = None
    for step in range(200):
        x = torch.randn(64, 16)
        loss = (model(x) - x @ truth.T).square().mean()
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.scale_rates(1 - step / 200)
        optimizer.step()
    assert loss.item() < 0.01 * first


def test_vectors_and_named_parameters_go_to_adamw():
    module = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(2, 2, 3), nn.Embedding(5, 4))
    muon, adamw, _ = split_parameters([module], ("2.",))
    assert {p.ndim for p in muon} == {2, 4}
    assert len(muon) == 2 and len(adamw) == 3


def test_state_survives_saving():
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer = MuonAdamW([model.weight], [model.bias], muon_rate=0.1, adamw_rate=0.1)

    def step(network, rule):
        rule.zero_grad()
        network(torch.ones(2, 4)).sum().backward()
        rule.step()

    step(model, optimizer)
    again = nn.Linear(4, 4)
    again.load_state_dict(model.state_dict())
    resumed = MuonAdamW([again.weight], [again.bias], muon_rate=0.1, adamw_rate=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(again, resumed)
    assert torch.equal(model.weight, again.weight) and torch.equal(model.bias, again.bias)


def test_position_biases_are_trained_at_a_rate_of_their_own():
    encoder = T5Encoder(PRESETS["tiny"].t5)
    muon, adamw, positions = split_parameters([encoder], ("shared",))
    assert [tuple(p.shape) for p in positions] == [(32, PRESETS["tiny"].t5.heads)]
    assert len(muon) + len(adamw) + 1 == len(list(encoder.parameters()))
    before = positions[0].detach().clone()
    optimizer = MuonAdamW(muon, adamw, positions, muon_rate=0.0, adamw_rate=1e-3, weight_decay=0.0)
    positions[0].grad = torch.ones_like(before)
    optimizer.step()
    torch.testing.assert_close(positions[0].detach(), before - POSITION_RATE * 1e-3)


def test_a_state_of_other_parameters_is_refused():
    model = nn.Linear(2, 2)
    both = MuonAdamW([model.weight], [model.bias], muon_rate=0.1, adamw_rate=0.1)
    bias_alone = MuonAdamW([], [model.bias], muon_rate=0.1, adamw_rate=0.1)
    bias_alone.resume(bias_alone.state_dict())
    with pytest.raises(BadCheckpoint, match="--start"):
        bias_alone.resume(both.state_dict())
