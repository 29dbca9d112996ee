"""How much the world can show: counts of characters, backgrounds, objects, signs and sentences."""

from math import prod

from .drawing.art import font_names
from .drawing.backgrounds import LAYOUTS, PLACES, SEASONS
from .drawing.characters import FAMILIES
from .drawing.colors import HAT_COLORS, OBJECT_COLORS, SKINS, WALL_COLORS
from .drawing.objects import ART_SETS, CONCEPTS
from .drawing.signs import SIGNS, WORDS
from .language.templates import TEMPLATES
from .tasks.splits import HELD_OUT_WORDS


def variety() -> dict[str, float]:
    """Name of what is counted -> number of distinct ones, before positions and combinations."""
    characters = {name: _characters(name) for name in FAMILIES}
    backgrounds = sum(
        (len(WALL_COLORS) if place.colored else LAYOUTS)
        * max(1, len(place.times))
        * (len(SEASONS) if place.seasons else 1)
        for place in PLACES.values()
    )
    colorable = sum(concept.colorable for concept in CONCEPTS.values())
    objects = len(CONCEPTS) * len(ART_SETS) + colorable * len(ART_SETS) * len(OBJECT_COLORS)
    signs = sum(len(sign.inks) for sign in SIGNS.values()) * len(WORDS) * len(font_names())
    return {
        **{f"characters: {name}": number for name, number in characters.items()},
        "backgrounds": backgrounds,
        "objects": objects,
        "signs": signs,
        "words": len(WORDS),
        "words held out": len(HELD_OUT_WORDS),
        "sentence templates": sum(len(t.english) + len(t.chinese) for t in TEMPLATES.values()),
        "characters x backgrounds": sum(characters.values()) * backgrounds,
    }


def _characters(name: str) -> float:
    options = dict(FAMILIES[name].options)
    hats = len(options.pop("hat", (None,))) - 1
    skins = 1 if name == "critter" else len(SKINS)
    return skins * prod(map(len, options.values())) * (1 + hats * len(HAT_COLORS))
