"""A branch of a linear layer gives what the merged matrix gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kontext.model.linear import StoredLinear, linear_rows
from kontext.model.lora import AdaptedLinear, Change, FullDelta, Hadamard, Kronecker, LowRank, SwappedHalves
from kontext.model.stored import PLAIN, StoredMatrix

ROWS, COLUMNS = 24, 12
ROUNDING = 1e-5  # of float32 products of some dozen numbers, in another order


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOW_RANK = LowRank(normal(ROWS, 3, seed=1), normal(3, COLUMNS, seed=2), 0.7)
OTHER = LowRank(normal(ROWS, 2, seed=3), normal(2, COLUMNS, seed=4))
DELTAS = {
    "LoRA": LOW_RANK,
    "LoHa": Hadamard(LOW_RANK, OTHER, 0.5),
    "LoKr": Kronecker(FullDelta(normal(4, 3, seed=5)), LowRank(normal(6, 2), normal(2, 4)), 0.3),
    "difference": FullDelta(normal(ROWS, COLUMNS, seed=6), 0.2),
    "swapped LoRA": SwappedHalves(LOW_RANK),
    "swapped LoKr": SwappedHalves(Kronecker(FullDelta(normal(8, 4, seed=7)), FullDelta(normal(3, 3)))),
}
SLICES = [slice(None), slice(5, 17), slice(0, 1), slice(20, 24)]


def layer(bias=True, columns=COLUMNS):
    linear = nn.Linear(columns, ROWS, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(normal(ROWS, columns, seed=8))
        if bias:
            linear.bias.copy_(normal(ROWS, seed=9))
    return linear.requires_grad_(False)


def merged(base, changes):
    weight = base.weight.detach().clone()
    for change, scale in changes:
        weight = change.applied(weight, scale)
    return weight


def assert_equals_merged(base, changes, bias="own"):
    bias = base.bias if isinstance(bias, str) else bias
    adapted = AdaptedLinear(base, changes, bias)
    weight, x = merged(base, changes), normal(2, 5, base.in_features, seed=10)
    assert torch.equal(adapted.weight, weight)
    expected = F.linear(x, weight, bias)
    for rows in SLICES:
        output = adapted(x) if rows == slice(None) else linear_rows(adapted, x, rows)
        bound = ROUNDING * max(1, float(expected.abs().max()))
        assert (output - expected[..., rows]).abs().max() <= bound, rows
        assert torch.equal(adapted.weight_rows(rows), weight[rows])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", DELTAS)
def test_a_branch_equals_the_merged_matrix(kind, bias):
    assert_equals_merged(layer(bias), [(Change(DELTAS[kind]), 0.8)])


@pytest.mark.parametrize("kind", DELTAS)
def test_rows_of_a_delta_are_those_of_the_dense_one(kind):
    delta, x = DELTAS[kind], normal(3, COLUMNS)
    assert delta.dense().shape == delta.shape == (ROWS, COLUMNS)
    for rows in SLICES:
        expected = F.linear(x, delta.dense()[rows])
        assert (delta.product(x, rows) - expected).abs().max() <= ROUNDING * max(1, expected.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 0.4, -0.5])
def test_dora_equals_the_merged_matrix(axis, scale, bias):
    magnitude = 0.5 + normal(*((ROWS, 1) if axis == 0 else (1, COLUMNS)), seed=11).abs()
    assert_equals_merged(layer(bias), [(Change(LOW_RANK, magnitude=magnitude), scale)])


def test_changes_apply_in_their_order():
    rows = Change(LowRank(normal(6, 2, seed=12), normal(2, COLUMNS, seed=13)), first_row=9)
    magnitude = 0.5 + normal(1, COLUMNS, seed=14).abs()
    replaced = Change(FullDelta(normal(ROWS, COLUMNS, seed=15)), replaces=True)
    changes = [
        (Change(LOW_RANK), 0.5),
        (Change(OTHER, magnitude=magnitude), 0.7),
        (rows, -0.3),
        (replaced, 0.25),
        (Change(LOW_RANK, magnitude=0.5 + normal(ROWS, 1, seed=16).abs()), 0.6),
    ]
    assert_equals_merged(layer(), changes)
    assert not torch.equal(merged(layer(), changes), merged(layer(), changes[::-1]))


def test_a_change_of_some_rows_leaves_the_others_bit_equal():
    base, x = layer(), normal(4, COLUMNS)
    change = Change(LowRank(normal(6, 2), normal(2, COLUMNS)), first_row=9)
    output = AdaptedLinear(base, [(change, 1.0)], base.bias)(x)
    same = [*range(9), *range(15, ROWS)]
    assert torch.equal(output[..., same], base(x)[..., same])


def test_a_changed_bias_is_used():
    base = layer()
    assert_equals_merged(base, [(Change(LOW_RANK), 1.0)], base.bias + normal(ROWS, seed=17))
    assert_equals_merged(base, [], base.bias + 1)


def test_a_stored_matrix_in_several_parts_is_a_base_like_any_other():
    plain = layer()
    pieces = plain.weight.split((5, 19))
    parts = [
        StoredMatrix(tuple(piece.shape), PLAIN, (lambda piece=piece: piece,), piece.nbytes)
        for piece in pieces
    ]
    stored = StoredLinear(parts, plain.bias, torch.float32)
    for changes in ([(Change(LOW_RANK), 0.5)], [(Change(LOW_RANK, magnitude=torch.ones(ROWS, 1)), 0.5)]):
        adapted = AdaptedLinear(stored, changes, stored.bias)
        x = normal(3, COLUMNS)
        expected = F.linear(x, merged(plain, changes), plain.bias)
        assert (adapted(x) - expected).abs().max() <= ROUNDING * expected.abs().max()


def test_the_gain_of_dora_is_asked_for_by_its_place():
    asked = []

    def gain(index, compute):
        asked.append(index)
        return compute()

    magnitude = torch.ones(ROWS, 1)
    changes = [(Change(LOW_RANK), 1.0), (Change(OTHER, magnitude=magnitude), 1.0)]
    AdaptedLinear(layer(), changes, None, gain)(normal(1, COLUMNS))
    assert asked == [1]
