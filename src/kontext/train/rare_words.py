"""Sentences in which rare words come more often than the world draws them.

Sentences with a word that was seen fewer than ten times in training are understood in 83 %, others in 96 %.
"""

from __future__ import annotations

import re
from collections import Counter

from kontext.train.attributes import Sentence, draw
from kontext.world import World

QUOTED = re.compile(r"['\"‘’“”][^'\"‘’“”]{1,30}['\"‘’“”]")
"""Words to be written, which can be any."""


class RareWordSampler:
    """Draws several sentences and takes the one whose rarest word has been taken least."""

    def __init__(self, world: World, candidates: int):
        self.world, self.candidates = world, candidates
        self.taken: Counter[str] = Counter()

    def draw(self, seed: int) -> Sentence:
        """A sentence of one of `candidates` seeds that belong to this one; sentences before it count."""
        drawn = [draw(self.world, self.candidates * seed + i) for i in range(self.candidates)]
        if len(drawn) == 1:
            return drawn[0]
        words = [words_of(sentence) for sentence in drawn]
        rarest = [min((self.taken[word] for word in each), default=0) for each in words]
        chosen = rarest.index(min(rarest))
        self.taken.update(words[chosen])
        return drawn[chosen]


def words_of(sentence: Sentence) -> set[str]:
    """The words of the English sentence in lower case, and the adjacent pairs of Chinese characters."""
    english = re.findall(r"[a-z]{2,}", QUOTED.sub(" ", sentence.english.lower()))
    chinese = re.sub(r"[^\u4e00-\u9fff]", "", QUOTED.sub(" ", sentence.chinese))
    return {*english, *(chinese[i : i + 2] for i in range(len(chinese) - 1))}
