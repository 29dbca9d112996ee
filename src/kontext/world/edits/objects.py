"""Edits of things: remove, add, replace, change the thing in the red box, recolor, move, resize, redraw."""

import random

from ..drawing.colors import COLORS, OBJECT_COLORS
from ..drawing.objects import CONCEPTS, GROUND, HOLD, SKY, object_box
from ..language.vocabulary import object_words, side_words, spot_words
from ..scenes.scene import Pool, Scene, free_slots, has_top_sign, sample_color, sample_object
from .kind import EditKind, Phrase, Value, other

_SIZES = {"bigger": (172, 150, "变大"), "smaller": (76, 198, "变小")}  # pixels, row of the center, Chinese


def _propose_remove(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    count = len(scene["objects"])
    return {"index": r.randrange(count)} if count >= (1 if scene["character"] else 2) else None


def _phrase_remove(scene: Scene, value: Value) -> Phrase:
    thing = scene["objects"][value["index"]]
    return "object_remove", {"thing": object_words(thing, "the"), "side": side_words(thing["x"])}


def _undo_remove(scene: Scene, value: Value) -> tuple[str, Value]:
    return "object_add", {"index": value["index"], "object": scene["objects"][value["index"]]}


def _propose_add(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    free = free_slots(scene)
    if not free:
        return None
    thing = sample_object(r, pool, r.choice(free), scene["objects"])
    return {"index": len(scene["objects"]), "object": thing}


def _phrase_add(scene: Scene, value: Value) -> Phrase:
    return "object_add", {"thing": object_words(value["object"]), "spot": spot_words(value["object"])}


def _propose_replace(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    if not scene["objects"]:
        return None
    index = r.randrange(len(scene["objects"]))
    names = pool.things(GROUND + HOLD if scene["objects"][index]["ground"] else SKY)
    taken = [thing["name"] for thing in scene["objects"]]
    free = [name for name in names if name not in taken]
    if not free:
        return None
    name = r.choice(free)
    return {"index": index, "name": name, "color": sample_color(r, name, 0.4)}


def _apply_replace(scene: Scene, value: Value) -> None:
    scene["objects"][value["index"]].update(name=value["name"], color=value["color"])


def _phrase_replace(scene: Scene, value: Value) -> Phrase:
    old = object_words(scene["objects"][value["index"]], "the")
    return "object_replace", {"old": old, "thing": object_words(value)}


def _undo_replace(scene: Scene, value: Value) -> tuple[str, Value]:
    old = scene["objects"][value["index"]]
    return "object_replace", {"index": value["index"], "name": old["name"], "color": old["color"]}


def framed(box: tuple[int, int, int, int]) -> list[int]:
    """A red box around something: left, top, right, bottom, inside the picture."""
    left, top, right, bottom = box
    return [max(2, left - 5), max(2, top - 5), min(253, right + 5), min(253, bottom + 5)]


def _propose_box(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    value = (_propose_remove if r.random() < 0.25 else _propose_replace)(r, scene, pool)
    if value is None:
        return None
    return {"box": framed(object_box(scene["objects"][value["index"]], scene["art"])), **value}


def _apply_box(scene: Scene, value: Value) -> None:
    if "name" in value:
        _apply_replace(scene, value)
    else:
        scene["objects"].pop(value["index"])


def phrase_box(scene: Scene, value: Value) -> Phrase:
    """What happens to the thing in the red box."""
    if "name" in value:
        return "object_box/replace", {"thing": object_words(value)}
    return "object_box/remove", {}


def _propose_color(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    things = scene["objects"]
    indices = [index for index, thing in enumerate(things) if CONCEPTS[thing["name"]].colorable]
    if not indices:
        return None
    index = r.choice(indices)
    return {"index": index, "color": other(r, OBJECT_COLORS, things[index]["color"])}


def _apply_color(scene: Scene, value: Value) -> None:
    scene["objects"][value["index"]]["color"] = value["color"]


def _phrase_color(scene: Scene, value: Value) -> Phrase:
    plain = {"name": scene["objects"][value["index"]]["name"]}
    return "object_color", {"old": object_words(plain, "the"), "color": COLORS[value["color"]].words}


def _undo_color(scene: Scene, value: Value) -> tuple[str, Value]:
    return "object_color", {**value, "color": scene["objects"][value["index"]]["color"]}


def _propose_move(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    c, sign = scene["character"], scene["sign"]
    if len(scene["objects"]) != 1 or scene["held"] or (sign and not has_top_sign(scene)):
        return None
    if c and abs(c["x"] - 128) > 20:
        return None
    x = scene["objects"][0]["x"]
    return {"x": r.choice([66, 190]) if abs(x - 128) < 30 else 256 - x}


def _phrase_move(scene: Scene, value: Value) -> Phrase:
    thing = scene["objects"][0]
    direction = ("left", "左边") if value["x"] < thing["x"] else ("right", "右边")
    return "object_move", {"thing": object_words(thing, "the"), "direction": direction}


def _propose_size(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    if scene["character"] or len(scene["objects"]) != 1 or scene["objects"][0]["size"] != 132:
        return None
    return {"size": r.choice(list(_SIZES))}


def _apply_size(scene: Scene, value: Value) -> None:
    size, y, _ = _SIZES[value["size"]]
    scene["objects"][0].update(size=size, y=y)


def _phrase_size(scene: Scene, value: Value) -> Phrase:
    size = (value["size"], _SIZES[value["size"]][2])
    return "object_size", {"thing": object_words(scene["objects"][0], "the"), "size": size}


def _propose_art(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    things = scene["objects"]
    if scene["character"] or not things or any(thing["color"] for thing in things):
        return None
    return {"art": "flat" if scene["art"] == "line" else "line"}


OBJECT_KINDS = (
    EditKind(
        name="object_remove",
        category="local",
        weight=3,
        propose=_propose_remove,
        apply=lambda scene, value: scene["objects"].pop(value["index"]),
        phrase=_phrase_remove,
        undo=_undo_remove,
        needs={"objects": 2},
        part="objects",
    ),
    EditKind(
        name="object_add",
        category="local",
        weight=3,
        propose=_propose_add,
        apply=lambda scene, value: scene["objects"].insert(value["index"], dict(value["object"])),
        phrase=_phrase_add,
        undo=lambda scene, value: ("object_remove", {"index": value["index"]}),
        part="objects",
    ),
    EditKind(
        name="object_replace",
        category="local",
        weight=3,
        propose=_propose_replace,
        apply=_apply_replace,
        phrase=_phrase_replace,
        undo=_undo_replace,
        needs={"objects": 2},
        part="objects",
    ),
    EditKind(
        name="object_box",
        category="local",
        weight=3,
        propose=_propose_box,
        apply=_apply_box,
        phrase=phrase_box,
        needs={"objects": 2},
    ),
    EditKind(
        name="object_color",
        category="local",
        weight=3,
        propose=_propose_color,
        apply=_apply_color,
        phrase=_phrase_color,
        undo=_undo_color,
        needs={"objects": 2},
        part="objects",
        style_hides=True,
    ),
    EditKind(
        name="object_move",
        category="local",
        weight=2,
        propose=_propose_move,
        apply=lambda scene, value: scene["objects"][0].update(x=value["x"]),
        phrase=_phrase_move,
        undo=lambda scene, value: ("object_move", {"x": scene["objects"][0]["x"]}),
        needs={"objects": 1},
        part="objects",
    ),
    EditKind(
        name="object_size",
        category="local",
        weight=1,
        propose=_propose_size,
        apply=_apply_size,
        phrase=_phrase_size,
        needs={"character": False, "objects": 1},
        part="objects",
    ),
    EditKind(
        name="art",
        category="global",
        weight=1.5,
        propose=_propose_art,
        apply=lambda scene, value: scene.update(value),
        phrase=lambda scene, value: (f"art/{value['art']}", {}),
        undo=lambda scene, value: ("art", {"art": scene["art"]}),
        needs={"character": False},
        part="objects",
        style_hides=True,
    ),
)
