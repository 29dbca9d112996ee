"""Chains and distractors: what edits do one after another, and what a wrong answer looks like."""

import numpy as np
import pytest

from kontext.errors import BadRequest
from kontext.world import SPLITS, World, distractors, kind_names, render
from kontext.world.edits import KINDS
from kontext.world.tasks.splits import shows_held_out_pair

WORLD = World()


def test_a_chain_is_exact_turn_after_turn():
    chain = WORLD.chain(5, 10)
    assert len(chain.turns) == 10
    before, scene = chain.start, chain.scene
    for turn in chain.turns:
        assert (before[~turn.mask] == turn.picture[~turn.mask]).all() and turn.mask.any()
        assert KINDS[turn.kind].after(scene, turn.value) == turn.scene
        assert (render(turn.scene) == turn.picture).all()
        before, scene = turn.picture, turn.scene
    assert len({(turn.kind, repr(turn.value)) for turn in chain.turns}) == 10


def test_edits_that_are_taken_back_lead_to_the_first_picture():
    kinds = set()
    for seed in range(4):
        chain = WORLD.chain(seed, 6, back=True)
        assert [turn.takes_back for turn in chain.turns] == [False, True] * 3
        for turn in chain.turns[1::2]:
            assert (turn.picture == chain.start).all() and turn.scene == chain.scene
        kinds |= {turn.kind for turn in chain.turns}
    assert len(kinds) >= 4


@pytest.mark.parametrize("split", SPLITS)
def test_chains_keep_to_their_split(split):
    chain = WORLD.chain("split", 4, split)
    shown = [shows_held_out_pair(scene) for scene in [chain.scene] + [turn.scene for turn in chain.turns]]
    assert any(shown) == (split == "pairs")


def test_the_same_seed_gives_the_same_chain():
    first, second = (WORLD.chain("again", 3) for _ in range(2))
    assert [turn.english for turn in first.turns] == [turn.english for turn in second.turns]
    assert all((a.picture == b.picture).all() for a, b in zip(first.turns, second.turns))


def test_impossible_chains_are_refused():
    with pytest.raises(BadRequest):
        World(kinds=("nothing",)).chain(0, 2)


@pytest.mark.parametrize("kind", kind_names())
def test_rivals_differ_from_the_answer_and_from_each_other(kind):
    sample = WORLD.sample("rivals", "test", kind=kind)
    found = distractors(sample, 6)
    assert len(found) >= 4
    pictures = [sample.target] + [picture for _, picture in found]
    for index, picture in enumerate(pictures):
        for earlier in pictures[:index]:
            assert (np.abs(picture.astype(int) - earlier).max(2) > 10).sum() >= 120
    again = distractors(WORLD.sample("rivals", "test", kind=kind), 6)
    assert [label for label, _ in found] == [label for label, _ in again]
    assert all((a == b).all() for (_, a), (_, b) in zip(found, again))


def test_rivals_are_the_mistakes_that_happen():
    labels = [label for label, _ in distractors(WORLD.sample("mistakes", kind="hair_color"), 8)]
    assert "unchanged" in labels
    assert sum(label.startswith("value hair_color") for label in labels) >= 3
    assert sum(label.startswith("edit") for label in labels) >= 2
    compound = [label for label, _ in distractors(WORLD.sample("mistakes", kind="compound"), 8)]
    assert sum(label.startswith("value only") for label in compound) == 2
