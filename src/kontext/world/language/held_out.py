"""Recognizes held-out phrasings in sentences of training, whatever their case, punctuation and politeness."""

from __future__ import annotations

import functools
import re

from .phrasings import HELD_OUT

_POLITE = (
    re.compile(
        r"\b(?:please|pls|kindly|thanks|thank you|thx|(?:could|can|would|will) you|maybe|perhaps|now|just)\b"
    ),
    re.compile("麻烦你|麻烦|拜托|帮我|帮忙|谢谢你|谢谢|谢啦|请|一下|好吗|可以吗|好不好|吧"),
)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_SLOT = re.compile(r"\{\w+\}")
_HOLE = "\x00"


def normalized(text: str, language: int, politeness: bool = False) -> str:
    """A sentence (0: English, 1: Chinese) in lower case without punctuation, articles and politeness."""
    text = text.lower()
    if not politeness:
        text = _POLITE[language].sub("", text)
    if language == 1:
        return re.sub(rf"[^\w{_HOLE}]", "", text)
    return " ".join(re.sub(rf"[^\w\s{_HOLE}]", "", _ARTICLES.sub("", text)).split())


def says_held_out(variant: str, language: int, text: str) -> bool:
    """Whether a sentence is, but for its slots, a held-out phrasing of the same kind."""
    pattern = _pattern(variant.split("/")[0], language)
    return any(pattern.fullmatch(normalized(text, language, politeness)) for politeness in (False, True))


def is_held_out_pattern(pattern: str, language: int) -> bool:
    """Whether a pattern with slots is, but for their names, a held-out phrasing of any kind."""
    text = _SLOT.sub(_HOLE, pattern)
    skeletons = _skeletons(language)
    return any(normalized(text, language, politeness) in skeletons for politeness in (False, True))


@functools.cache
def _skeletons(language: int) -> frozenset[str]:
    return frozenset(_skeleton(text, language) for group in HELD_OUT.values() for text in group[language])


@functools.cache
def _pattern(kind: str, language: int) -> re.Pattern[str]:
    texts = [
        text
        for variant, group in HELD_OUT.items()
        if variant.split("/")[0] == kind
        for text in group[language]
    ]
    skeletons = (_skeleton(text, language).split(_HOLE) for text in texts)
    return re.compile("|".join(".+".join(map(re.escape, skeleton)) for skeleton in skeletons))


def _skeleton(text: str, language: int) -> str:
    """A held-out phrasing, normalized; one that has only politeness besides its slots keeps it."""
    text = _SLOT.sub(_HOLE, text)
    plain = normalized(text, language)
    return plain if plain.strip(_HOLE) else normalized(text, language, politeness=True)
