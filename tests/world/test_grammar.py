"""The grammar of requests: many frames, meaning kept, nothing held out said."""

import random
import re

import pytest

from kontext.world import World
from kontext.world.drawing.objects import CONCEPTS
from kontext.world.language.grammar import POLITE, frame_count, nothing, out_of_reach, sloppy, worded
from kontext.world.language.paraphrases import PARAPHRASES
from kontext.world.language.phrasings import HELD_OUT
from kontext.world.language.templates import TEMPLATES

SAMPLES = [World().sample(seed, pictures=False) for seed in range(1500)]


def test_every_kind_of_edit_has_two_hundred_frames():
    for variant, (english, _) in TEMPLATES.items():
        assert frame_count(len(english) + len(PARAPHRASES[variant][0])) >= 200, variant


def test_one_edit_is_asked_for_in_many_ways():
    r = random.Random(0)
    ways = {worded(r, "make the hair blue", "把头发染成蓝色") for _ in range(3000)}
    english, chinese = ({way[i].lower() for way in ways} for i in (0, 1))
    assert len(english) > 200 and len(chinese) > 100
    assert all("蓝色" in text for text in chinese)
    whole = [text for text in english if "blue" in text]
    assert len(whole) > 0.9 * len(english)  # the rest has its slip in that very word


def test_held_out_sentences_are_never_said():
    held_out: dict[tuple[str, int], list[re.Pattern[str]]] = {}
    for variant, languages in HELD_OUT.items():
        for language, texts in enumerate(languages):
            for text in texts:
                fixed = map(re.escape, re.split(r"\{\w+\}", text))
                found = held_out.setdefault((variant.split("/")[0], language), [])
                found.append(re.compile(".+".join(fixed), re.IGNORECASE))
    for sample in SAMPLES:
        for language, text in enumerate((sample.english, sample.chinese)):
            patterns = held_out.get((sample.kind, language), [])
            assert not any(pattern.fullmatch(text) for pattern in patterns), text


def test_words_to_be_written_stay_as_they_are():
    r = random.Random(1)
    for _ in range(500):
        english, chinese = worded(r, "replace the word 'CAKE' with 'PARTY'", "把“CAKE”改成“PARTY”")
        assert "'CAKE'" in english and "'PARTY'" in english and "“CAKE”" in chinese and "“PARTY”" in chinese


def test_a_slip_is_one_slip_and_leaves_the_first_letters():
    r = random.Random(2)
    for _ in range(500):
        text = sloppy(r, "change the background to a library, please")
        assert text[0] == "c" and abs(len(text) - 42) <= 8 and "  " not in text


def test_asking_for_nothing_has_many_words_and_changes_nothing():
    r = random.Random(3)
    assert len({nothing(r)[0] for _ in range(4000)}) > 300
    asked = [World().sample(seed, kind="nothing", pictures=False) for seed in range(40)]
    assert len({sample.english for sample in asked}) > 30 and all(
        sample.before == sample.after for sample in asked
    )


def test_what_the_world_does_not_have_is_not_among_its_things():
    r = random.Random(4)
    names = {name.replace("_", " ") for name in CONCEPTS}
    for _ in range(300):
        assert not any(re.search(rf"\b{name}$", out_of_reach(r)[0]) for name in names)


@pytest.mark.parametrize("split", ["test", "phrasing", "pairs"])
def test_the_benchmark_keeps_its_own_sentences(split):
    starts = tuple(
        frame.split("{request}")[0] for frame in POLITE if not frame.startswith(("{", "now", "please"))
    )
    for seed in range(60):
        text = World().sample(seed, split, kind="cloth_color", pictures=False).english.lower()
        assert split == "phrasing" or not text.startswith(starts)
