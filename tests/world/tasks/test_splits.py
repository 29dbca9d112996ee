"""Training never sees held-out pairs, words, sentences or scenes; the splits for tests show them."""

import re

import numpy as np
import pytest

from kontext.world import World, kind_names
from kontext.world.drawing.backgrounds import PLACES
from kontext.world.drawing.colors import CLOTH_COLORS, HAIR_COLORS
from kontext.world.drawing.kid import CLOTHES, HAIRS
from kontext.world.drawing.objects import CONCEPTS
from kontext.world.drawing.signs import WORDS
from kontext.world.language.phrasings import HELD_OUT
from kontext.world.language.templates import TEMPLATES
from kontext.world.tasks.splits import (
    HELD_OUT_WORDS,
    TRAIN_WORDS,
    is_held_out,
    is_test_scene,
    pairs,
    shows_held_out_pair,
    words_of,
)

WORLD = World()


@pytest.fixture(scope="module")
def train():
    return [WORLD.sample(seed, pictures=False) for seed in range(2500)]


def drawn(split: str, count: int):
    return [WORLD.sample(seed, split, pictures=False) for seed in range(count)]


def scenes(sample):
    return [scene for scene in (sample.before, sample.after) if scene is not None]


def pattern(template: str) -> re.Pattern:
    """A template as an expression that its sentences match."""
    parts = re.split(r"\{\w+\}", template)
    return re.compile(".+".join(map(re.escape, parts)), re.IGNORECASE)


def test_train_shows_no_held_out_pair(train):
    assert not any(shows_held_out_pair(scene) for sample in train for scene in scenes(sample))


def test_train_shows_and_says_no_held_out_word(train):
    said = re.compile(r"\b(" + "|".join(HELD_OUT_WORDS) + r")\b")
    for sample in train:
        assert not any(word in HELD_OUT_WORDS for scene in scenes(sample) for word in words_of(scene))
        assert not said.search(sample.english) and not said.search(sample.chinese)


def held_out_texts(kind: str, language: int) -> list[re.Pattern]:
    same = {"foreign_box": "object_box", "foreign_style": "style", "foreign_weather": "weather"}.get(
        kind, kind
    )
    variants = [variant for variant in HELD_OUT if variant.split("/")[0] == same]
    return [pattern(text) for variant in variants for text in HELD_OUT[variant][language]]


def test_train_says_no_held_out_sentence(train):
    held_out = {
        (kind, language): held_out_texts(kind, language) for kind in kind_names() for language in (0, 1)
    }
    for sample in train:
        for language, text in enumerate((sample.english, sample.chinese)):
            assert held_out[sample.kind, language]
            assert not any(pattern.fullmatch(text) for pattern in held_out[sample.kind, language]), text


def test_train_and_test_share_no_scene(train):
    started = {repr({**scenes(sample)[0], "box": None}) for sample in train}
    for sample in drawn("test", 150) + drawn("phrasing", 60):
        assert is_test_scene(scenes(sample)[0])
        assert repr({**scenes(sample)[0], "box": None}) not in started
        assert not any(shows_held_out_pair(scene) for scene in scenes(sample))
    assert not any(is_test_scene(scenes(sample)[0]) for sample in train)


def test_pairs_show_a_held_out_pair():
    for sample in drawn("pairs", 150):
        assert any(is_held_out(*pair) for pair in pairs(sample.after))


def test_words_show_a_held_out_word():
    for sample in drawn("words", 150):
        shown = [word for scene in scenes(sample) for word in words_of(scene)]
        assert any(word in HELD_OUT_WORDS for word in shown)
        assert not any(word in TRAIN_WORDS for word in shown)


def test_phrasing_uses_the_held_out_sentences_only():
    held_out = {text for texts in HELD_OUT.values() for language in texts for text in language}
    templates = {text for texts in TEMPLATES.values() for language in texts for text in language}
    assert not held_out & templates
    for sample in drawn("phrasing", 150):
        if sample.kind != "compound":
            assert any(pattern(text).fullmatch(sample.english) for text in held_out), sample.english
            assert any(pattern(text).fullmatch(sample.chinese) for text in held_out), sample.chinese


def test_only_training_rewords(train):
    known = [
        pattern(text)
        for name, group in TEMPLATES.items()
        for text in group.english
        if name.split("/")[0] not in ("generate", "compound")
    ]

    def new(samples) -> list[bool]:
        texts = [s.english for s in samples if s.kind not in ("generate", "compound")]
        return [not any(pattern.fullmatch(text) for pattern in known) for text in texts]

    assert not any(new(drawn("test", 200)))
    assert 0.4 < np.mean(new(train[:400])) < 0.75


def test_each_value_is_trained_with_most_others():
    """A held-out pair is new only as a pair: each side of it is common in training."""
    for kind, first, second in (
        ("hair", HAIRS, HAIR_COLORS),
        ("clothes", CLOTHES, CLOTH_COLORS),
        ("place", PLACES, CONCEPTS),
    ):
        table = {(a, b): is_held_out(kind, a, b) for a in first for b in second}
        assert 0 < sum(table.values()) < 0.2 * len(table)
        for a in first:
            assert sum(table[a, b] for b in second) <= 0.5 * len(second)
        for b in second:
            assert sum(table[a, b] for a in first) <= 0.5 * len(first)


def test_words_are_divided():
    assert set(HELD_OUT_WORDS) | set(TRAIN_WORDS) == set(WORDS)
    assert 10 <= len(HELD_OUT_WORDS) <= 25


def test_second_pictures_keep_to_their_split():
    for split in ("train", "test", "words"):
        for seed in range(60):
            sample = WORLD.sample(seed, split, category="several_references", pictures=False)
            (second,) = sample.reference_scenes
            assert not shows_held_out_pair(second)
            assert split != "train" or not is_test_scene(second)
            assert split != "words" or not any(word in TRAIN_WORDS for word in words_of(second))
