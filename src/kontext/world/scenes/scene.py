"""Scenes: everything that is in a picture, as plain data that JSON can hold, and how they come by chance.

    background  place, layout, color, time, season, weather
    character   see characters.py; None where there is none
    held        name and color of what the character holds, or None
    objects     name, color, size, x, y, ground
    sign        kind, word ("" = empty), font, color, ink, x, flip; or None
    art         drawing set of the objects
    style       look of the whole picture, or None
    box         a red box drawn over the picture (left, top, right, bottom), or None
    sheet       views of a character sheet, or None

Out-of-domain pictures have the key `foreign` instead of the first five (see out_of_domain.py).
"""

import functools
import random
from dataclasses import dataclass
from typing import Any

from ..drawing.art import font_names
from ..drawing.backgrounds import LAYOUTS, PLACES, SEASONS, WEATHERS, outdoors
from ..drawing.characters import (
    PANTS,
    SHOES,
    can_wear,
    hand_x,
    hats_under_banner,
    place_character,
    sample_character,
    settle_hidden,
)
from ..drawing.colors import OBJECT_COLORS, WALL_COLORS
from ..drawing.objects import CONCEPTS, GROUND, HOLD, SKY
from ..drawing.signs import NEW_WORD_FONT, SIDE_SIGNS, SIGN_COLORS, SIGNS, TOP_SIGNS

Scene = dict[str, Any]


@dataclass(frozen=True)
class Pool:
    """The allowed choices: a world's limits resolved for one split."""

    families: tuple[str, ...]
    places: tuple[str, ...]
    art_sets: tuple[str, ...]
    styles: tuple[str, ...]
    objects: tuple[str, ...]
    words: tuple[str, ...]
    always_sign: bool  # every picture to start from shows a word
    kinds: tuple[tuple[str, float], ...]

    def things(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of `names` that may be drawn; all of them where the limits leave none."""
        return _allowed(names, self.objects)


@functools.lru_cache(maxsize=256)
def _allowed(names: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name in allowed) or names


def copied(data: Any) -> Any:
    """A deep copy of plain data; several times faster than `copy.deepcopy`."""
    if isinstance(data, dict):
        return {key: copied(value) for key, value in data.items()}
    return [copied(value) for value in data] if isinstance(data, list) else data


def settle(scene: Scene) -> Scene:
    """Set every attribute that is not visible to its fixed value (in place)."""
    c = scene["character"]
    if c:
        settle_hidden(c)
        if c["family"] == "kid":
            if scene["held"]:
                c["pose"] = "hold"
            elif c["pose"] == "hold":
                c["pose"] = "stand"
    if not scene["objects"] and not scene["held"]:
        scene["art"] = "flat"
    return scene


def sample_background(
    r: random.Random,
    pool: Pool,
    *,
    places: tuple[str, ...] | None = None,
    new: bool = False,
    weather: float = 0.03,
) -> dict[str, Any]:
    """A background; `new` ones (brought in by an edit) have layout 0, no weather and no sunset.

    Only from `places`, where the limits allow any of them.
    """
    name = r.choice(tuple(name for name in places or PLACES if name in pool.places) or pool.places)
    place = PLACES[name]
    b: dict[str, Any] = {"place": name, "layout": 0 if new or place.colored else r.randrange(LAYOUTS)}
    b["color"] = r.choice(WALL_COLORS) if place.colored else None
    odds = {"day": 7, "night": 1.2, "sunset": 0 if new else 1.8}
    b["time"] = r.choices(place.times, [odds[time] for time in place.times])[0] if place.times else None
    b["season"] = r.choices(SEASONS, [2, 5, 2, 2])[0] if place.seasons else None
    rainy = not new and outdoors(name) and r.random() < weather
    b["weather"] = r.choice(WEATHERS) if rainy else None
    return b


def sample_sign(r: random.Random, pool: Pool, side: str, new: bool = False) -> dict[str, Any]:
    """A sign at the `top`, `left` or `right`; the word of a new one has the fixed font and ink."""
    kind = r.choice(TOP_SIGNS if side == "top" else SIDE_SIGNS)
    return {
        "kind": kind,
        "word": r.choice(pool.words),
        "font": NEW_WORD_FONT if new else r.choice(font_names()),
        "color": r.choice(SIGN_COLORS),
        "ink": SIGNS[kind].inks[0] if new else r.choice(SIGNS[kind].inks),
        "x": {"top": 128, "right": 190, "left": 66}[side],
        "flip": side == "left" and kind == "bubble",
    }


def sample_color(r: random.Random, name: str, chance: float = 0.5) -> str | None:
    """Sometimes a color, for a concept that can be recolored."""
    return r.choice(OBJECT_COLORS) if CONCEPTS[name].colorable and r.random() < chance else None


def sample_held(r: random.Random, pool: Pool) -> dict[str, Any]:
    """Something to hold."""
    name = r.choice(pool.things(HOLD))
    return {"name": name, "color": sample_color(r, name)}


def has_top_sign(scene: Scene) -> bool:
    return bool(scene["sign"] and SIGNS[scene["sign"]["kind"]].top)


def slots(scene: Scene) -> list[dict[str, Any]]:
    """Places (x, y, size, ground) where an object never sits under the character or a sign."""
    c, sign, top = scene["character"], scene["sign"], has_top_sign(scene)

    def slot(x: int, y: int, size: int, ground: bool) -> dict[str, Any]:
        return {"x": x, "y": y, "size": size, "ground": ground}

    if not c:
        pair = [slot(70, 176, 106, True), slot(188, 176, 106, True)]
        return pair + ([] if sign else [slot(48, 52, 76, False), slot(208, 52, 76, False)])
    if abs(c["x"] - 128) <= 20:
        places = [slot(36, 222, 64, True), slot(220, 222, 64, True)]
        return places + ([] if top else [slot(38, 46, 60, False), slot(218, 46, 60, False)])
    x, out = (206, 4) if c["x"] < 128 else (50, -4)
    if not sign or top:
        return [slot(x, 204, 88, True)] + ([] if top else [slot(x + out, 54, 76, False)])
    return [slot(x + out, 212, 74, True)] if sign["kind"] in ("poster", "bubble") else []


def hand_is_free(scene: Scene) -> bool:
    """Whether the character could hold something without covering an object or a sign."""
    x = hand_x(scene["character"])
    if any(abs(thing["x"] - x) < 70 and thing["ground"] for thing in scene["objects"]):
        return False
    return not scene["sign"] or scene["sign"]["kind"] not in ("board", "chalk")


def free_slots(scene: Scene) -> list[dict[str, Any]]:
    """The slots in which nothing is yet."""
    things = scene["objects"]
    if not scene["character"] and any(thing["ground"] and thing["size"] != 106 for thing in things):
        return [
            slot for slot in slots(scene) if not slot["ground"] and not any(not t["ground"] for t in things)
        ]
    hand = hand_x(scene["character"]) if scene["held"] else -1000
    return [
        slot
        for slot in slots(scene)
        if not any(abs(t["x"] - slot["x"]) < 40 and t["ground"] == slot["ground"] for t in things)
        and not (slot["ground"] and abs(slot["x"] - hand) < 70)
    ]


def sample_object(
    r: random.Random, pool: Pool, slot: dict[str, Any], others: list[dict[str, Any]], jitter: int = 0
) -> dict[str, Any]:
    """An object in a slot, of another name than `others`."""
    names = pool.things(GROUND + HOLD if slot["ground"] else SKY)
    taken = {thing["name"] for thing in others}
    name = r.choice([name for name in names if name not in taken] or names)
    thing = {"name": name, "color": sample_color(r, name), **slot}
    if jitter:
        thing["x"] += r.randint(-jitter, jitter)
        thing["y"] += r.randint(-jitter, jitter)
    return thing


def sample_scene(
    r: random.Random,
    pool: Pool,
    *,
    character: bool | None = None,
    family: str | None = None,
    sign: bool | None = None,
    objects: int | None = None,
    full: bool | None = None,
    held: bool | None = None,
    new: bool = False,
    weather: float = 0.03,
    places: tuple[str, ...] | None = None,
) -> Scene:
    """A scene by chance; what is not asked for (None) is drawn.

    `new` scenes, which an edit makes from words alone, have no jitter and layout 0, which makes them
    determined as far as words determine them.
    """
    jitter = 0 if new else 4
    background = sample_background(r, pool, new=new, weather=weather, places=places)
    scene: Scene = {
        "background": background,
        "character": None,
        "held": None,
        "objects": [],
        "sign": None,
        "art": "flat" if new else r.choices(pool.art_sets, [_ART_ODDS[art] for art in pool.art_sets])[0],
        "style": None,
        "box": None,
        "sheet": None,
    }
    if character is None:
        character = r.random() < 0.74
    if sign is None:
        sign = pool.always_sign or r.random() < 0.3
    if objects is None:
        objects = r.choices([0, 1, 2], [3, 5, 3])[0]
    if not character:
        _add_things_alone(r, pool, scene, objects, sign, jitter, new)
        return settle(scene)
    c = sample_character(r, (family,) if family else pool.families)
    if new and c["family"] == "kid":
        c.update(pants=PANTS[0], shoes=SHOES[0])  # not expressed in words
    position = r.choice(["left", "right", "middle"])
    if sign:
        if r.random() < 0.5:
            scene["sign"] = sample_sign(r, pool, "top", new)
        else:
            position = r.choice(["left", "right"])
            scene["sign"] = sample_sign(r, pool, "right" if position == "left" else "left", new)
    top = has_top_sign(scene)
    place_character(c, 128, under_banner=top, full=r.random() < 0.45 if full is None else full)
    if top and c["family"] == "kid" and c["hat"] not in hats_under_banner((c["hat"],)):
        c["hat"] = "cap" if can_wear(c, "cap") else "headphones"
    offset = {"kid": 60 if c["full"] else 50}.get(c["family"], 46)
    if scene["sign"] and not top:
        offset = 60 if scene["sign"]["kind"] == "bubble" else 68
    c["x"] = 128 + {"left": -offset, "right": offset, "middle": 0}[position]
    if jitter:
        c["x"] += r.randint(-jitter, jitter)
    c["hand"] = -1 if position == "right" else 1
    scene["character"] = c
    free = slots(scene)
    r.shuffle(free)
    for slot in free[:objects]:
        scene["objects"].append(sample_object(r, pool, slot, scene["objects"], min(jitter, 3)))
    if held is None:
        held = r.random() < 0.4 and not scene["objects"] and c["family"] != "critter"
    if held and hand_is_free(scene):
        scene["held"] = sample_held(r, pool)
    return settle(scene)


_ART_ODDS = {"flat": 6, "noto": 1.6, "twemoji": 1.6, "line": 0.8}


def _add_things_alone(
    r: random.Random, pool: Pool, scene: Scene, count: int, sign: bool, jitter: int, new: bool
) -> None:
    """Objects, and perhaps a sign above them, in a scene without a character."""
    if sign:
        scene["sign"] = sample_sign(r, pool, "top", new)
    if count < 2 and r.random() < 0.75:
        places = [{"x": 128 + r.choice([-50, 0, 50]), "y": 172, "size": 132, "ground": True}]
    else:
        places = slots(scene)[:2]
        r.shuffle(places)
        places = places[: max(1, count)]
    for slot in places:
        scene["objects"].append(sample_object(r, pool, slot, scene["objects"], jitter))
    if not sign and r.random() < 0.4:
        slot = {"x": r.choice([48, 208]), "y": 52, "size": 76, "ground": False}
        scene["objects"].append(sample_object(r, pool, slot, scene["objects"]))
