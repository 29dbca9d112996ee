"""Instructions as sentences: templates filled in, requests reworded for training, two edits in one.

`paraphrases.py` has more sentences for training only, and `phrasings.py` some for tests only; variants and
slots are those of `templates.py`.
"""

import random
import re
from collections.abc import Mapping

from .grammar import nothing, out_of_reach, worded
from .paraphrases import PARAPHRASES
from .phrasings import HELD_OUT
from .templates import TEMPLATES
from .vocabulary import Words

Slots = Mapping[str, Words]

PARAPHRASED = 0.5  # of the sentences of training
_FREELY_NOTHING = 0.5  # of training's requests for no change are worded by the grammar ...
_OUT_OF_REACH = 0.2  # ... and so many ask for what the world does not have


def sentence(r: random.Random, variant: str, slots: Slots, split: str = "test") -> Words:
    """An instruction in English and Chinese, as it is said in a split."""
    templates: tuple[tuple[str, ...], ...] = (HELD_OUT if split == "phrasing" else TEMPLATES)[variant]
    if split == "train" and r.random() < PARAPHRASED:
        templates = PARAPHRASES[variant]
    english, chinese = (
        r.choice(choices).format_map({name: words[language] for name, words in slots.items()})
        for language, choices in enumerate(templates)
    )
    return capitalized(english), chinese


def request(r: random.Random, variant: str, slots: Slots, split: str = "test") -> Words:
    """A sentence as a whole request, which training rewords as many people would (`grammar.py`)."""
    words = sentence(r, variant, slots, split)
    if split != "train":
        return words
    chance = r.random() if variant == "nothing" else 1.0
    if chance < _OUT_OF_REACH:
        words = out_of_reach(r)
    elif chance < _OUT_OF_REACH + _FREELY_NOTHING:
        words = nothing(r)
    english, chinese = worded(r, *_inside(words))
    return capitalized(english), chinese


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def joined(r: random.Random, first: Words, second: Words, split: str = "test") -> Words:
    """Two instructions as one."""
    parts = {"first": _inside(first), "second": _inside(second)}
    return sentence(r, "compound", parts, split)


def _inside(words: Words) -> Words:
    """An instruction as it is written inside a sentence."""
    english, chinese = words
    return (english if re.match(r"I\b", english) else english[0].lower() + english[1:]), chinese
