"""Edits by a second picture: clothes, style, person, background or object of image 2, brought into image 1.

What is taken shows completely in image 2, and its destination is stated, so that the answer is exact.
"""

import random

from ..drawing.characters import FAMILIES, hats_under_banner, place_character
from ..language.vocabulary import clothes_words, object_words, side_words, spot_words
from ..scenes.scene import Pool, copied, free_slots, has_top_sign, sample_object, sample_scene, settle
from .compositions import Composed, Composition

CATEGORY = "several_references"
CLOTHES = ("clothes", "cloth_color", "pants", "shoes")
_OFFSET = 50  # pixels from the center; next to a sign 68, as in sample_scene
_OFFSET_SIGN = 68


def _clothes(r: random.Random, pool: Pool) -> Composed | None:
    """The clothes of another character of the same family; a kid's also from a sheet with three views."""
    families = tuple(name for name in pool.families if name != "critter") or ("kid",)
    before = sample_scene(r, pool, character=True, family=r.choice(families))
    c = before["character"]
    other = sample_scene(r, pool, character=True, family=c["family"], full=c["full"])
    if c["family"] == "kid" and r.random() < 0.3:
        other.update(background=None, objects=[], sign=None, held=None, sheet=["front", "side", "back"])
    after = copied(before)
    after["character"].update({key: other["character"][key] for key in CLOTHES})
    label = clothes_words(after["character"])[0]
    return Composed(before, settle(after), "clothes_from", {"who": FAMILIES[c["family"]].noun}, label, other)


def _style(r: random.Random, pool: Pool) -> Composed:
    before, other = sample_scene(r, pool), sample_scene(r, pool)
    other["style"] = r.choice(pool.styles)
    after = {**copied(before), "style": other["style"]}
    return Composed(before, after, "style_from", {}, other["style"], other)


def _person(r: random.Random, pool: Pool) -> Composed | None:
    """A character from another place, unchanged, to a place without characters."""
    place = sample_scene(r, pool, character=True, held=False)
    if place["sign"] and place["sign"]["kind"] == "bubble":
        return None  # a speech bubble needs a speaker
    original, top = place["character"], has_top_sign(place)
    other = sample_scene(r, pool, character=True, held=False, full=original["full"])
    c = copied(other["character"])
    if top and c["hat"] not in hats_under_banner((c["hat"],)):
        return None
    side = round((original["x"] - 128) / _OFFSET)
    x = 128 + side * (_OFFSET_SIGN if place["sign"] and not top else _OFFSET)
    place_character(c, x, under_banner=top, full=c["full"])
    before = {**place, "character": None}
    after = settle({**copied(place), "character": c})
    noun = FAMILIES[c["family"]].noun
    return Composed(before, after, "person_from", {"other": noun, "spot": side_words(x)}, noun[0], other)


def _background(r: random.Random, pool: Pool) -> Composed | None:
    before = sample_scene(r, pool)
    other = sample_scene(r, pool, character=r.random() < 0.4, objects=r.choice([0, 1]))
    if other["background"] == before["background"]:
        return None
    after = {**copied(before), "background": copied(other["background"])}
    c = before["character"]
    who = FAMILIES[c["family"]].noun if c else ("everything", "所有东西")
    return Composed(before, after, "background_from", {"who": who}, other["background"]["place"], other)


def _object(r: random.Random, pool: Pool) -> Composed | None:
    """A thing that stands alone in image 2, drawn as there, to a free spot of image 1."""
    before = sample_scene(r, pool, objects=r.choice([0, 1]))
    other = sample_scene(r, pool, character=False, objects=1)
    free = free_slots(before)
    if not free or len(other["objects"]) != 1:
        return None
    thing = sample_object(r, pool, r.choice(free), before["objects"])
    other["objects"][0].update(name=thing["name"], color=thing["color"])
    after = copied(before)
    if before["objects"] or before["held"]:
        other["art"] = before["art"]
    after["art"] = other["art"]
    after["objects"].append(thing)
    said = {"thing": object_words({**thing, "color": None}, "the"), "spot": spot_words(thing)}
    return Composed(before, settle(after), "object_from", said, object_words(thing)[0], other)


BY_REFERENCE = {
    name: Composition(name, CATEGORY, weight, compose)
    for name, weight, compose in (
        ("clothes_from", 2.5, _clothes),
        ("style_from", 2, _style),
        ("person_from", 2.5, _person),
        ("background_from", 1.5, _background),
        ("object_from", 1.5, _object),
    )
}
