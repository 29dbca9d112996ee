"""Orbits: every edit between the pictures of one scene is exact."""

import numpy as np
import pytest

from kontext.errors import BadRequest
from kontext.world import World
from kontext.world.edits import KINDS
from kontext.world.scenes.render import render
from kontext.world.tasks.orbits import labels_of
from kontext.world.tasks.splits import admits, is_test_scene, shows_held_out_pair

ORBITS = [World().orbit(seed) for seed in range(12)]
EDITS = [(orbit, edit) for orbit in ORBITS for edit in orbit.edits]


def test_an_orbit_is_decided_by_its_seed():
    again = World().orbit(3)
    assert again.scenes == ORBITS[3].scenes
    assert [edit.words for edit in again.edits] == [edit.words for edit in ORBITS[3].edits]
    assert all(np.array_equal(a, b) for a, b in zip(again.pictures, ORBITS[3].pictures, strict=True))


def test_each_edit_leads_from_its_source_to_exactly_its_target():
    checked = 0
    for orbit, edit in EDITS:
        if edit.kind not in KINDS:
            continue
        after = KINDS[edit.kind].after(orbit.scenes[edit.source], edit.value)
        target = orbit.scenes[edit.target]
        if edit.source == 0:  # the first edit may happen inside a style, which stays
            after = {**after, "style": target["style"], "box": target["box"]}
        assert after == target, edit.kind
        checked += 1
    assert checked > 100


def test_outside_of_its_mask_source_and_target_are_equal():
    for orbit, edit in EDITS:
        source, target = orbit.pictures[edit.source], orbit.pictures[edit.target]
        assert np.array_equal(source[~edit.mask], target[~edit.mask])


def test_pictures_show_their_scenes_and_none_comes_twice():
    for orbit in ORBITS[:4]:
        for scene, picture in zip(orbit.scenes, orbit.pictures, strict=True):
            assert np.array_equal(render(scene), picture)
        assert all(a != b for i, a in enumerate(orbit.scenes) for b in orbit.scenes[:i])


def test_several_pictures_give_more_pairs_than_pictures():
    pictures = sum(len(orbit.pictures) for orbit in ORBITS)
    assert len(EDITS) > 1.5 * pictures
    assert any(edit.target == 0 for _, edit in EDITS)  # back to the base
    assert any(0 not in (edit.source, edit.target) for _, edit in EDITS)  # between values


def test_training_orbits_hold_nothing_that_is_held_out():
    for orbit, edit in EDITS:
        assert not any(shows_held_out_pair(orbit.scenes[i]) for i in (edit.source, edit.target))
        assert not is_test_scene(orbit.scenes[edit.source])
        assert admits("train", orbit.scenes[edit.source], orbit.scenes[edit.target])


def test_edits_are_said_in_both_languages_and_labelled():
    for _, edit in EDITS:
        assert all(words.strip() for words in edit.words)
        assert edit.labels and all(edit.labels.values())
    assert labels_of("hair_color", {"hair_color": "blue"}) == {"hair_color": "blue"}


def test_a_world_without_orbits_is_refused():
    with pytest.raises(BadRequest, match="no orbit"):
        World(kinds={"generate": 1.0, "hair_color": 0.0}).orbit(0)
