"""Sentences: complete, in both languages, with the same variants held out as trained."""

import re
from string import Formatter

import pytest

from kontext.world import SPLITS, World, kind_names
from kontext.world.edits import KINDS
from kontext.world.language.phrasings import HELD_OUT
from kontext.world.language.templates import TEMPLATES

WORLD = World()


def slots(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("split", SPLITS)
def test_sentences_have_no_unfilled_slot_in_either_language(split):
    for seed in range(2):
        for kind in kind_names():
            sample = WORLD.sample(seed, split, kind=kind, pictures=False)
            for text in (sample.english, sample.chinese, *sample.captions):
                assert text.strip() and not re.search(r"[{}]|None|\ban? an? |  ", text), text
            assert re.search(r"[a-zA-Z]{3}", sample.english) and not re.search(r"[一-鿿]", sample.english)
            assert re.search(r"[一-鿿]", sample.chinese)


def test_articles_fit_their_words():
    for seed in range(400):
        text = WORLD.sample(seed, pictures=False).english.lower().replace("a ufo", "")
        assert not re.search(r"\ba [aeio]\w|\ban [^aeiou8 ]", text), text


def test_every_variant_has_templates_and_held_out_sentences():
    assert HELD_OUT.keys() == TEMPLATES.keys()
    for templates in (*HELD_OUT.values(), *TEMPLATES.values()):
        assert templates[0] and templates[1]


def test_every_variant_has_four_held_out_sentences_and_more():
    for english, chinese in HELD_OUT.values():
        assert len(english) >= 2 and len(chinese) >= 2 and len(english) + len(chinese) >= 4


def test_every_slot_of_a_sentence_is_given():
    seen = set()
    for seed in range(900):
        sample = WORLD.sample(seed, pictures=False)
        if sample.kind not in KINDS or sample.kind == "compound":
            continue
        variant, given = KINDS[sample.kind].phrase(sample.before, sample.value)
        seen.add(variant)
        for texts in (*TEMPLATES[variant], *HELD_OUT[variant]):
            assert all(slots(text) <= given.keys() for text in texts), variant
    assert len(seen) > 35


def test_one_instruction_is_one_sentence_for_two_edits():
    for seed in range(20):
        sample = WORLD.sample(seed, kind="compound", pictures=False)
        assert len(sample.labels) == 2 and len(sample.value["edits"]) == 2
        assert sample.english[0].isupper()
