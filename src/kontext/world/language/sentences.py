"""Instructions as sentences: templates filled in, requests reworded for training, two edits in one.

`grammar.py` words requests in many ways for training only, `phrasings.py` has sentences for tests only;
variants and slots are those of `templates.py`.
"""

import random
import re

from .frames import FRAMES
from .grammar import Slots, finished, part, worded
from .held_out import says_held_out
from .phrasings import HELD_OUT
from .templates import TEMPLATES
from .unchanged import nothing, unsupported
from .vocabulary import Words

Phrase = tuple[str, Slots]  # variant of the sentence and its slots

_PLAIN = 0.4  # of the sentences of training are the benchmark's templates
_TRIES = 40


def sentence(r: random.Random, variant: str, slots: Slots, split: str = "test") -> Words:
    """An instruction in English and Chinese, from the templates of a split."""
    templates: tuple[tuple[str, ...], ...] = (HELD_OUT if split == "phrasing" else TEMPLATES)[variant]
    english, chinese = (
        r.choice(choices).format_map({name: words[language] for name, words in slots.items()})
        for language, choices in enumerate(templates)
    )
    return capitalized(english), chinese


def request(r: random.Random, variant: str, slots: Slots, split: str = "test") -> Words:
    """A sentence as a whole request, which training words as many people would (`grammar.py`)."""
    words = sentence(r, variant, slots, split)
    if split != "train":
        return words
    english, chinese = (_worded(r, variant, slots, language, words[language]) for language in (0, 1))
    return capitalized(english), chinese


def joined(r: random.Random, first: Phrase, second: Phrase, split: str = "test") -> Words:
    """Two requests, given as variants with their slots, as one."""
    parts = {"first": _inside(sentence(r, *first, split)), "second": _inside(sentence(r, *second, split))}
    words = sentence(r, "compound", parts, split)
    if split != "train":
        return words
    english, chinese = (_joined(r, (first, second), language, words[language]) for language in (0, 1))
    return capitalized(english), chinese


def _worded(r: random.Random, variant: str, slots: Slots, language: int, plain: str) -> str:
    """A request of training in one language, `plain` in a share of the cases."""
    for _ in range(_TRIES):
        text: str | None = plain
        if r.random() >= _PLAIN:
            text = _unchanged(r, variant, slots, language) or worded(r, variant, slots, language)
        if text is not None:
            text = finished(r, text, language)
            if not says_held_out(variant, language, text):
                return text
    return plain


def _unchanged(r: random.Random, variant: str, slots: Slots, language: int) -> str | None:
    if variant == "nothing":
        return nothing(r)[language]
    return unsupported(r, slots["who"])[language] if variant == "nothing/unsupported" else None


def _joined(r: random.Random, phrases: tuple[Phrase, Phrase], language: int, plain: str) -> str:
    """Two requests of training as one, in one language."""
    for _ in range(_TRIES):
        text, parts = plain, [part(r, *phrase, language) for phrase in phrases]
        if r.random() >= _PLAIN and parts[0] and parts[1]:
            frame = r.choice(FRAMES[language].joined)
            text = frame.replace("{first}", parts[0]).replace("{second}", parts[1])
        text = finished(r, text, language)
        if not says_held_out("compound", language, text):
            return text
    return plain


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def _inside(words: Words) -> Words:
    """An instruction as it is written inside a sentence."""
    english, chinese = words
    return (english if re.match(r"I\b", english) else english[0].lower() + english[1:]), chinese
