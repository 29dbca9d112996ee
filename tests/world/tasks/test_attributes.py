"""Labels of an instruction: its kind, and the words that it must say."""

import pytest

from kontext.world import World, kind_names
from kontext.world.drawing.styles import STYLES
from kontext.world.edits import KINDS
from kontext.world.tasks.attributes import all_labels, attributes, words_to_write

WORLD = World()


@pytest.mark.parametrize("kind", kind_names())
def test_every_labeled_word_is_said(kind):
    for seed in range(5):
        sample = WORLD.sample(seed, "test", kind=kind, pictures=False)
        labels = [label.split(":", 1) for label in attributes(sample)]
        kinds = [word for slot, word in labels if slot == "kind"]
        assert len(kinds) == (2 if kind == "compound" else 1)
        if kind in KINDS:
            said = sample.english.lower()
            assert all(word in said for slot, word in labels if slot not in ("kind", "style")), (labels, said)
            assert all(word in STYLES for slot, word in labels if slot == "style")
        else:
            assert kinds == [kind]


def test_another_value_has_other_labels():
    colors = {
        frozenset(attributes(WORLD.sample(seed, kind="hair_color", pictures=False))) for seed in range(30)
    }
    assert len(colors) > 3


def test_every_thing_has_labels_for_both_of_its_roles():
    labels = all_labels(WORLD.sample(seed, pictures=False) for seed in range(3))
    assert {"thing:penguin", "old:penguin", "thing:coffee", "old:coffee"} <= set(labels)
    assert labels == sorted(labels) and len(labels) == len(set(labels))


def test_words_to_write_are_those_that_the_edit_sets():
    both = {"edits": [("hat", {"hat": "cap"}), ("text", {"word": "TEA"})]}
    assert words_to_write("compound", both) == ("TEA",)
    for kind in ("text", "text_write", "foreign_banner", "text_color", "hat"):
        for seed in range(8):
            sample = WORLD.sample(seed, kind=kind, pictures=False)
            words = words_to_write(sample.kind, sample.value)
            assert all(f"'{word}'" in sample.english for word in words)
            assert len(words) == (kind in ("text", "text_write", "foreign_banner"))
