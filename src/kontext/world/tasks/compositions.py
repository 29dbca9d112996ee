"""Newly composed pictures: from words alone, in the style or with the character of a picture."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..drawing.characters import FAMILIES, place_character
from ..drawing.objects import ANIMALS
from ..drawing.styles import STYLES
from ..language.captions import background_words, caption
from ..language.sentences import Slots
from ..language.vocabulary import EXPRESSION, POSING, object_words
from ..scenes.scene import Pool, Scene, copied, sample_background, sample_held, sample_scene, settle


class Composed(NamedTuple):
    """Scenes, variant of the sentence and its slots, a label, and a second picture."""

    before: Scene | None
    after: Scene
    variant: str
    slots: Slots
    label: str
    reference: Scene | None = None


@dataclass(frozen=True)
class Composition:
    """A kind of task composed directly from scenes; `compose` returns None when a draw is not usable."""

    name: str
    category: str
    weight: float
    compose: Callable[[random.Random, Pool], Composed | None]


_NOUN = {"kid": ("kid", "孩子"), "critter": ("monster", "小怪物")}


def _generate(r: random.Random, pool: Pool) -> Composed:
    scene = sample_scene(r, pool, new=True)
    words = caption(scene)
    if r.random() >= 0.25:
        return Composed(None, scene, "generate", {"caption": words}, scene["background"]["place"])
    scene["style"] = r.choice(pool.styles)
    style, name = STYLES[scene["style"]], r.randrange(2)
    named = (style.english[name], style.chinese[name])
    return Composed(None, scene, "generate/style", {"caption": words, "style": named}, scene["style"])


def _style_reference(r: random.Random, pool: Pool) -> Composed:
    before = sample_scene(r, pool)
    before["style"] = r.choice(pool.styles)
    after = sample_scene(
        r, pool, character=r.random() < 0.4, sign=False, objects=r.choice([1, 1, 2]), new=True
    )
    after["style"] = before["style"]
    return Composed(before, after, "style_reference", {"caption": caption(after)}, after["style"])


def _character_scene(r: random.Random, pool: Pool) -> Composed:
    """The same character at a new place with a new expression, doing something."""
    before = sample_scene(r, pool, character=True)
    after = {**copied(before), "held": None, "objects": [], "sign": None, "art": "flat"}
    c = after["character"]
    others = tuple(place for place in pool.places if place != before["background"]["place"])
    after["background"] = sample_background(r, pool, places=others, new=True)
    family = FAMILIES[c["family"]]
    c["expression"] = r.choice(family.allows("expression"))
    if c["family"] == "kid":
        c["pose"] = r.choice(family.allows("pose"))
    doing = [EXPRESSION[c["expression"]]]
    company = r.random()
    x = 78 if company >= 0.6 else 128  # next to another character, or alone in the middle
    place_character(c, x, under_banner=False, full=bool(c["full"]))
    c["hand"] = 1
    if company < 0.5 and c["family"] != "critter":
        after["held"] = sample_held(r, pool)
        thing = object_words(after["held"])
        doing.append((f"holding {thing[0]}", f"拿着{thing[1]}"))
    elif c["pose"] in POSING:
        doing.append(POSING[c["pose"]])
    if company >= 0.6:
        name = r.choice(pool.things(ANIMALS))
        animal = {"name": name, "color": None, "size": 84, "x": 206, "y": 206, "ground": True}
        after["objects"] = [animal]
        thing = object_words(animal)
        doing.append((f"with {thing[0]} on the right", f"右边有{thing[1]}"))
    slots = {
        "noun": _NOUN.get(c["family"], ("person", "人")),
        "place": background_words(after["background"]),
        "doing": (", ".join(words[0] for words in doing), "，".join(words[1] for words in doing)),
    }
    return Composed(before, settle(after), "character_scene", slots, after["background"]["place"])


def _standing_kid(r: random.Random, pool: Pool, objects: int | None) -> Scene:
    scene = sample_scene(r, pool, character=True, family="kid", full=True, held=False, objects=objects)
    scene["character"]["pose"] = "stand"
    return settle(scene)


def _character_view(r: random.Random, pool: Pool) -> Composed:
    before = _standing_kid(r, pool, None)
    after = copied(before)
    view = r.choice(["side", "back"])
    after["character"]["view"] = view
    words = {"side": ("side", "侧面"), "back": ("back", "背面")}[view]
    return Composed(before, after, "character_view", {"who": FAMILIES["kid"].noun, "view": words}, view)


def _character_sheet(r: random.Random, pool: Pool) -> Composed:
    before = _standing_kid(r, pool, 0)
    c = before["character"]
    if c["hair"] in ("afro", "curly"):  # three of them do not fit side by side
        c["hair"] = r.choice(["short", "ponytail", "bob"])
    if c["hat"] == "strawhat":
        c["hat"] = "cap"
    after = {
        **copied(before),
        "background": None,
        "objects": [],
        "sign": None,
        "sheet": ["front", "side", "back"],
    }
    return Composed(before, after, "character_sheet", {"who": FAMILIES["kid"].noun}, "sheet")


COMPOSITIONS = {
    composition.name: composition
    for composition in (
        Composition("style_reference", "style_reference", 7, _style_reference),
        Composition("character_scene", "character_reference", 9, _character_scene),
        Composition("character_view", "character_reference", 2, _character_view),
        Composition("character_sheet", "character_reference", 2, _character_sheet),
        Composition("generate", "generate", 6, _generate),
    )
}
