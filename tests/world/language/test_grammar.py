"""The grammar of requests: many frames, meaning kept, nothing held out said."""

import random
import re
from string import Formatter

import pytest

from kontext.world import World
from kontext.world.drawing.objects import CONCEPTS
from kontext.world.edits import KINDS
from kontext.world.language.forms import FORMS
from kontext.world.language.frames import FRAMES
from kontext.world.language.grammar import finished, frame_count, gerund, sloppy, third_person, worded
from kontext.world.language.held_out import is_held_out_pattern, normalized, says_held_out
from kontext.world.language.phrasings import HELD_OUT
from kontext.world.language.synonyms import with_synonyms
from kontext.world.language.templates import TEMPLATES
from kontext.world.language.unchanged import nothing, unsupported
from kontext.world.language.vocabulary import with_articles
from kontext.world.tasks.attributes import attributes

WORLD = World()
SAMPLES = [WORLD.sample(seed, pictures=False) for seed in range(2500)]
BLUE_HAIR = {"who": ("the kid", "这个孩子"), "color": ("blue", "蓝色")}


def slots(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("language", [0, 1])
def test_every_variant_has_two_hundred_frames(language):
    assert FORMS.keys() == TEMPLATES.keys() - {"nothing", "nothing/unsupported", "compound"}
    for variant in FORMS:
        assert frame_count(variant, language) >= 200, variant


def test_one_edit_is_asked_for_in_many_ways():
    r = random.Random(0)
    for language, word, count in ((0, "blue", 1500), (1, "蓝色", 1200)):
        texts = {worded(r, "hair_color", BLUE_HAIR, language) for _ in range(2000)} - {None}
        assert len(texts) > count and all(word in text for text in texts)


def test_every_form_says_the_values_of_its_variant():
    """Labels are read off the slots, so a form without the value would teach what it does not say."""
    values = {
        **{"hair_color": {"color"}, "hair_style": {"hair"}, "horns/on": {"horns"}, "horns/off": {"horns"}},
        **{"glasses/on": {"glasses"}, "glasses/off": {"glasses"}, "glasses/swap": {"old", "glasses"}},
        **{"hat/on": {"hat"}, "hat/off": {"old"}, "hat/swap": {"old", "hat"}, "expression": {"express"}},
        **{"cloth_color/monster": {"color"}, "clothes": {"clothes"}, "beard/on": {"beard"}, "pose": {"pose"}},
        **{"hold/give": {"thing"}, "hold/take": {"old"}, "hold/swap": {"old", "thing"}, "style": {"style"}},
        **{"object_remove": {"thing"}, "object_add": {"thing", "spot"}, "object_replace": {"old", "thing"}},
        **{
            "object_box/replace": {"thing"},
            "object_color": {"old", "color"},
            "object_size": {"thing", "size"},
        },
        **{"object_move": {"thing", "direction"}, "background": {"place"}, "season": {"season"}},
        **{"text": {"word"}, "text_color": {"color"}, "text_write": {"word"}, "foreign_banner": {"word"}},
        **{"foreign_background": {"color"}, "foreign_add": {"thing", "corner"}, "generate": {"caption"}},
    }
    for variant, names in values.items():
        for forms in FORMS[variant]:
            by_pronoun = [forms.topic + request for request in forms.it]
            for pattern in (*forms.do, *forms.be, *forms.have, *forms.say, *by_pronoun):
                alternatives = [[""]]
                for piece in re.split(r"(\([^()]*\))", pattern):
                    choices = piece[1:-1].split("|") if piece.startswith("(") else [piece]
                    alternatives.append(choices)
                for name in names:
                    said = any(all(f"{{{name}}}" in choice for choice in choices) for choices in alternatives)
                    assert said, (variant, pattern, name)


def test_every_slot_of_a_form_is_given():
    seen = set()
    for sample in SAMPLES:
        if sample.kind in KINDS and sample.kind != "compound":
            variant, given = KINDS[sample.kind].phrase(sample.before, sample.value)
            seen.add(variant)
            for forms in FORMS.get(variant, ()):
                for pattern in (*forms.do, *forms.be, *forms.have, *forms.it, *forms.say, forms.topic):
                    assert slots(pattern) <= given.keys(), (variant, pattern)
    assert len(seen) > 45


def test_every_state_has_a_subject_and_a_predicate():
    for variant, languages in FORMS.items():
        for forms in languages:
            assert all(pattern.count(" ~ ") == 1 for pattern in forms.be), variant


def test_held_out_sentences_are_never_said():
    """Not even in other case, punctuation, with other articles, or more or less politely."""
    held_out: list[set[str]] = [set(), set()]
    for seed in range(1500):
        sample = WORLD.sample(seed, "phrasing", pictures=False)
        for language, text in enumerate((sample.english, sample.chinese)):
            held_out[language].add(normalized(text, language))
    for sample in SAMPLES:
        for language, text in enumerate((sample.english, sample.chinese)):
            variants = [variant for variant in HELD_OUT if variant.split("/")[0] == sample.kind]
            assert not any(says_held_out(variant, language, text) for variant in variants), text
            assert normalized(text, language) not in held_out[language], text


def test_held_out_sentences_are_recognized_in_other_words_of_politeness():
    assert says_held_out("expression", 0, "Could you have the kid smile, please?")
    assert says_held_out("expression", 0, "please have Kid SMILE!")
    assert not says_held_out("expression", 0, "make the kid smile")
    assert says_held_out("beard/off", 1, "麻烦你把脸刮干净，谢谢")
    assert is_held_out_pattern("Get rid of {anything}!", 0) and not is_held_out_pattern("remove {thing}", 0)


def test_words_to_be_written_stay_as_they_are():
    r = random.Random(1)
    given = {"sign": ("poster", "海报"), "old": ("CAKE", "CAKE"), "word": ("PARTY", "PARTY")}
    for _ in range(500):
        english, chinese = (finished(r, worded(r, "text", given, language), language) for language in (0, 1))
        assert "'PARTY'" in english and "“PARTY”" in chinese


def test_a_slip_is_one_slip_and_leaves_the_first_letters():
    r = random.Random(2)
    for _ in range(500):
        text = sloppy(r, "change the background to a library, please")
        assert text[0] == "c" and abs(len(text) - 42) <= 8 and "  " not in text


def test_verbs_and_articles_are_inflected():
    assert gerund("dye the hair") == "dyeing the hair" and gerund("put it there") == "putting it there"
    assert third_person("be blue") == "is blue" and third_person("not wear a hat") == "does not wear a hat"
    assert (
        third_person("no longer hold it") == "no longer holds it"
        and third_person("try to cry") == "tries to cry"
    )
    assert gerund("remove it") == "removing it" and gerund("free the hand") == "freeing the hand"
    assert with_articles("a orange hat and an umbrella, a UFO, an unicorn") == (
        "an orange hat and an umbrella, a UFO, a unicorn"
    )


def test_synonyms_leave_longer_words_alone():
    r = random.Random(3)
    assert {with_synonyms(r, "熊猫", 1, 1.0) for _ in range(50)} == {"熊猫", "大熊猫"}
    assert with_synonyms(r, "the 'RED' catfish", 0, 1.0) == "the 'RED' catfish"


def test_requests_after_which_nothing_changes_have_many_words():
    r = random.Random(4)
    assert len({nothing(r) for _ in range(3000)}) > 1500
    assert len({unsupported(r, ("the kid", "这个孩子")) for _ in range(3000)}) > 1500
    asked = [WORLD.sample(seed, kind="nothing", pictures=False) for seed in range(80)]
    assert all(sample.before == sample.after for sample in asked)
    labels = {label for sample in asked for label in attributes(sample)}
    assert labels == {"kind:nothing", "kind:nothing/unsupported"}


def test_what_the_world_does_not_have_is_not_among_its_things():
    r = random.Random(5)
    names = {name.replace("_", " ") for name in CONCEPTS}
    for _ in range(600):
        text = unsupported(r, ("the kid", "这个孩子"))[0]
        assert not any(re.search(rf"\b(?:add|put|insert) an? {name}\b(?! )", text) for name in names), text


def test_training_keeps_a_share_of_plain_templates():
    plain = {
        text.split("{")[0].lower() for texts in TEMPLATES.values() for text in texts.english if "{" in text
    }
    starts = tuple(start for start in plain if len(start) > 5)
    assert 0.25 < sum(sample.english.lower().startswith(starts) for sample in SAMPLES) / len(SAMPLES) < 0.75


@pytest.mark.parametrize("split", ["test", "phrasing", "pairs"])
def test_the_benchmark_keeps_its_own_sentences(split):
    table = HELD_OUT if split == "phrasing" else TEMPLATES
    for seed in range(60):
        text = WORLD.sample(seed, split, kind="cloth_color", pictures=False).english
        patterns = [text for variant in ("cloth_color", "cloth_color/monster") for text in table[variant][0]]
        fixed = (".+".join(map(re.escape, re.split(r"\{\w+\}", pattern))) for pattern in patterns)
        assert any(re.fullmatch(pattern, text, re.IGNORECASE) for pattern in fixed), text


def test_both_languages_have_all_frames():
    for language in FRAMES:
        for name in ("do", "be", "have"):
            assert len(set(getattr(language, name))) == len(getattr(language, name)) >= 45
    assert all("{request}" in frame or "{doing}" in frame for language in FRAMES for frame in language.do)
    assert all("{wanted}" in frame for language in FRAMES for frame in language.have)
    assert all(re.search(r"\{(p|p3|ping)\}", frame) for language in FRAMES for frame in language.be)
