"""Words of slots that mean the same: "the kid" or "the child", "blond" or "golden", "donut" or "doughnut".

Training says these as well; labels and the benchmark keep the first word. The words are those of
`data/synonyms.toml`.
"""

from __future__ import annotations

import random
import re

from .forms import data


def _table(language: str) -> dict[str, tuple[str, ...]]:
    return {word: tuple(others.split(" | ")) for word, others in data("synonyms")[language].items()}


def _longest_first(words: dict[str, tuple[str, ...]]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_TABLES = (_table("english"), _table("chinese"))
_WORDS = (re.compile(rf"\b(?:{_longest_first(_TABLES[0])})\b"), re.compile(_longest_first(_TABLES[1])))
_WRITTEN = re.compile(r"('[A-Z]+'|“[^”]*”)")
"""Quoted words, which are to be written and stay as they are."""


def with_synonyms(r: random.Random, text: str, language: int, share: float) -> str:
    """A text (0: English, 1: Chinese) in which a share of the known words has become a synonym."""
    table, words = _TABLES[language], _WORDS[language]

    def other(match: re.Match[str]) -> str:
        return r.choice(table[match.group()]) if r.random() < share else match.group()

    parts = _WRITTEN.split(text)
    return "".join(part if i % 2 else words.sub(other, part) for i, part in enumerate(parts))
