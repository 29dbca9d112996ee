"""Sentences with rare words are drawn more often."""

from collections import Counter

from kontext.train.attributes import Sentence, broad_world, draw
from kontext.train.rare_words import RareWordSampler, words_of


def test_words_are_those_of_both_languages_without_what_is_to_be_written():
    sentence = Sentence("Make the sign say 'XENON', please!", "把牌子改成“XENON”吧", frozenset())
    assert words_of(sentence) == {
        "make",
        "the",
        "sign",
        "say",
        "please",
        "把牌",
        "牌子",
        "子改",
        "改成",
        "成吧",
    }


def test_the_rarest_words_of_several_candidates_come_more_often():
    world, count = broad_world(), 300
    plain = Counter(word for seed in range(count) for word in words_of(draw(world, seed)))
    sampler = RareWordSampler(world, 3)
    rare = Counter(word for seed in range(count) for word in words_of(sampler.draw(seed)))
    assert rare == sampler.taken
    assert len(rare) > 1.03 * len(plain)  # more different words in as many sentences
    known = Counter(sampler.taken)
    candidates = [draw(world, 3 * count + i) for i in range(3)]
    rarest = [min(known[word] for word in words_of(sentence)) for sentence in candidates]
    assert sampler.draw(count) == candidates[rarest.index(min(rarest))]


def test_with_one_candidate_sentences_are_those_of_the_world():
    world = broad_world()
    assert RareWordSampler(world, 1).draw(11) == draw(world, 11)
