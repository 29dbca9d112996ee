"""Tasks with two pictures: what is taken is exactly what image 2 shows, and the rest of image 1 stays."""

import re

import numpy as np
import pytest

from kontext.world import World, distractors, render
from kontext.world.tasks.references import BY_REFERENCE, CLOTHES
from kontext.world.tasks.task_specs import CATEGORIES, SEVERAL_REFERENCES

WORLD = World()


def drawn(kind: str, count: int = 12):
    for seed in range(count):
        sample = WORLD.sample(f"two {seed}", kind=kind, pictures=False)
        yield sample.before, sample.after, sample.reference_scenes[0]


def differing(before, after) -> set[str]:
    return {key for key in before if before[key] != after[key]}


def test_clothes_are_those_of_the_second_picture_and_nothing_else_changes():
    sheets = 0
    for before, after, second in drawn("clothes_from", 30):
        assert differing(before, after) == {"character"}
        assert differing(before["character"], after["character"]) <= set(CLOTHES)
        assert all(after["character"][key] == second["character"][key] for key in CLOTHES)
        assert second["character"]["full"] or not before["character"]["full"]
        sheets += bool(second["sheet"])
    assert sheets > 0


def test_a_person_comes_as_they_are_to_a_place_without_anybody():
    for before, after, second in drawn("person_from"):
        assert before["character"] is None and differing(before, after) <= {"character", "art"}
        moved = differing(second["character"], after["character"])
        assert moved <= {"x", "height", "base", "full"}


def test_style_and_background_are_those_of_the_second_picture():
    for before, after, second in drawn("style_from"):
        assert differing(before, after) == {"style"} and after["style"] == second["style"]
    for before, after, second in drawn("background_from"):
        assert differing(before, after) == {"background"} and after["background"] == second["background"]


def test_an_object_is_drawn_as_in_the_second_picture():
    for before, after, second in drawn("object_from"):
        *kept, new = after["objects"]
        (shown,) = second["objects"]
        assert kept == before["objects"] and (new["name"], new["color"]) == (shown["name"], shown["color"])
        assert after["art"] == second["art"]


@pytest.mark.parametrize("kind", BY_REFERENCE)
def test_both_pictures_are_given_and_named(kind):
    for seed in range(3):
        sample = WORLD.sample(f"given {seed}", kind=kind)
        (second,) = sample.references
        assert second.shape == sample.source.shape and (second == render(sample.reference_scenes[0])).all()
        assert re.search("2|two|second", sample.english) and re.search("[2二]", sample.chinese)
        assert sample.mask.all() == (kind == "style_from") or kind == "background_from"


@pytest.mark.parametrize("kind", BY_REFERENCE)
def test_giving_back_the_second_picture_is_a_rival(kind):
    sample = WORLD.sample("copy", "test", kind=kind)
    found = dict(distractors(sample, 13))
    assert np.array_equal(found["edit copied: image 2"], sample.references[0])
    assert sum(label.startswith("value") for label in found) >= 4


def test_a_world_without_categories_draws_none_of_them():
    world = WORLD.without(SEVERAL_REFERENCES, "generate")
    kinds = {world.sample(seed, pictures=False).category for seed in range(200)}
    assert kinds == set(CATEGORIES) - {SEVERAL_REFERENCES, "generate"}
