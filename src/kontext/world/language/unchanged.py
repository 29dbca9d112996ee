"""Requests after which the picture is the same: those for no change, and those that cannot be met.

Their words are those of `data/unchanged.toml`.
"""

from __future__ import annotations

import itertools
import random

from ..drawing.colors import COLORS
from .forms import FORMS, data, expand, lines
from .vocabulary import GLASSES, Words, hat_words, with_article

_DATA = data("unchanged")


def _pairs(name: str) -> tuple[Words, ...]:
    """Things that the world does not have, English and Chinese."""
    pairs = (line.split(" = ") for line in lines(_DATA["unknown"][name]))
    return tuple((english, chinese) for english, chinese in pairs)


_NOTHING = (lines(_DATA["nothing"]["english"]), lines(_DATA["nothing"]["chinese"]))
_NEGATED = (lines(_DATA["negated"]["english"]), lines(_DATA["negated"]["chinese"]))
_EDITS, _THINGS, _WORN = _pairs("edits"), _pairs("things"), _pairs("worn")
_UNKNOWN = (
    *(("object_add", "thing", _THINGS),) * 3,
    ("hold/give", "thing", _THINGS),
    ("object_box/replace", "thing", _THINGS),
    ("background", "place", _pairs("places")),
    ("style", "style", _pairs("styles")),
    ("hat/on", "hat", _WORN),
    ("clothes", "clothes", _WORN),
)
"""Variant, slot, and its content."""
_SOUNDS = _DATA["invented"]
_ADJECTIVES = _pairs("adjectives")
_INVENTED = 0.35  # of the unknown things are words that do not exist
_UNKNOWN_EDITS = 0.35  # of the requests that cannot be met
_NEGATED_SHARE = 0.25  # of the requests for no change
_KID: Words = ("the kid", "这个孩子")
_SIDES: tuple[Words, ...] = (("on the left", "左边"), ("on the right", "右边"), ("in the middle", "中间"))
_COLORS = tuple(COLORS[name].words for name in ("red", "blue", "green", "pink", "yellow", "purple"))


def _examples(**slots: tuple[Words, ...]) -> tuple[dict[str, Words], ...]:
    """Every combination of values for the slots."""
    return tuple(dict(zip(slots, values)) for values in itertools.product(*slots.values()))


_FOR_EXAMPLE = {
    "hair_color": _examples(who=(_KID, ("the person", "这个人")), color=_COLORS),
    "hat/on": _examples(
        who=(_KID,), hat=tuple(hat_words("beanie", name) for name in ("red", "blue", "green"))
    ),
    "glasses/on": _examples(who=(_KID,), glasses=tuple(GLASSES.values())),
    "glasses/off": _examples(who=(_KID,), glasses=tuple(GLASSES.values())),
    "character_remove": _examples(who=(_KID, ("the person", "这个人"))),
    "object_add": _examples(thing=(("a cat", "猫"), ("a car", "汽车"), ("a balloon", "气球")), spot=_SIDES),
    "object_remove": _examples(
        thing=(("the dog", "狗"), ("the star", "星星"), ("the house", "房子")), side=_SIDES
    ),
    "object_color": _examples(
        old=(("the book", "书"), ("the car", "汽车"), ("the rose", "玫瑰")), color=_COLORS
    ),
    "background": _examples(
        who=(_KID,), place=(("a beach", "海滩"), ("a forest", "森林"), ("a library", "图书馆"))
    ),
    "style": _examples(
        style=(("pixel art", "像素画"), ("a pencil sketch", "铅笔素描"), ("a blueprint", "蓝图"))
    ),
    "time/night": _examples(),
    "weather/rain": _examples(),
}
"""Edits that a request may say not to make."""


def nothing(r: random.Random) -> Words:
    """A request for no change at all."""
    if r.random() < _NEGATED_SHARE:
        variant = r.choice(list(_FOR_EXAMPLE))
        slots = r.choice(_FOR_EXAMPLE[variant])
        english, chinese = (
            expand(r, r.choice(FORMS[variant][language].do)).format_map(
                {name: words[language] for name, words in slots.items()}
            )
            for language in (0, 1)
        )
        return (
            r.choice(_NEGATED[0]).replace("{request}", english),
            r.choice(_NEGATED[1]).replace("{request}", chinese),
        )
    return expand(r, r.choice(_NOTHING[0])), expand(r, r.choice(_NOTHING[1]))


def unsupported(r: random.Random, who: Words) -> Words:
    """A request for what the world does not have: things, places, styles, clothes, edits."""
    if r.random() < _UNKNOWN_EDITS:
        edits = r.choice(_EDITS)
        return expand(r, edits[0]).replace("{who}", who[0]), expand(r, edits[1]).replace("{who}", who[1])
    variant, slot, unknown = r.choice(_UNKNOWN)
    thing = _invented(r) if r.random() < _INVENTED else r.choice(unknown)
    slots = {"who": who, "spot": r.choice(_SIDES), slot: thing}
    english, chinese = (
        expand(r, r.choice(FORMS[variant][language].do + FORMS[variant][language].have)).format_map(
            {name: words[language] for name, words in slots.items()}
        )
        for language in (0, 1)
    )
    return english, chinese


def _invented(r: random.Random) -> Words:
    """An invented thing: any unknown word should be treated like it."""
    onsets, rimes = _SOUNDS["onsets"].split(), _SOUNDS["rimes"].split()
    word = "".join(r.choice(onsets) + r.choice(rimes) for _ in range(r.choice((2, 2, 3))))
    characters = "".join(r.choice(_SOUNDS["characters"]) for _ in range(r.choice((2, 2, 3))))
    english, chinese = r.choice(_ADJECTIVES) if r.random() < 0.3 else ("", "")
    return with_article(f"{english} {word}".strip()), chinese + characters
