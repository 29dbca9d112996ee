"""Edits of out-of-domain pictures, which depend on the picture alone."""

import random

from ..drawing.backgrounds import WEATHERS
from ..drawing.colors import COLORS, WALL_COLORS
from ..drawing.objects import GROUND, HOLD
from ..drawing.out_of_domain import item_box
from ..language.vocabulary import object_words
from ..scenes.scene import Pool, Scene, sample_color
from .kind import EditKind, Phrase, Value, other
from .objects import framed, phrase_box
from .picture import apply_style, phrase_style, phrase_weather, propose_style

_CORNERS = {
    "top left": ("左上角", 50, 50),
    "top right": ("右上角", 206, 50),
    "bottom left": ("左下角", 50, 206),
    "bottom right": ("右下角", 206, 206),
}


def _set(scene: Scene, value: Value) -> None:
    scene["foreign"].update(value)


def _propose_box(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    items = scene["foreign"]["items"]
    index = r.randrange(len(items))
    value: Value = {"box": framed(item_box(items[index])), "index": index}
    if r.random() < 0.5:
        value["name"] = r.choice(pool.things(GROUND + HOLD))
        value["color"] = sample_color(r, value["name"])
    return value


def _apply_box(scene: Scene, value: Value) -> None:
    items = scene["foreign"]["items"]
    old = items.pop(value["index"])
    if "name" in value:
        place = {key: old[key] for key in ("x", "y", "size")}
        new = {"kind": "object", "name": value["name"], "color": value["color"], "turn": 0}
        items.insert(value["index"], {**new, **place})


def _propose_weather(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    return {"weather": None if scene["foreign"]["weather"] else r.choice(WEATHERS)}


def _propose_banner(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    return None if scene["foreign"]["banner"] else {"banner": r.choice(pool.words)}


def _phrase_banner(scene: Scene, value: Value) -> Phrase:
    return "foreign_banner", {"word": (value["banner"],) * 2}


def _propose_background(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    return {"color": other(r, WALL_COLORS, scene["foreign"]["color"])}


def _phrase_background(scene: Scene, value: Value) -> Phrase:
    return "foreign_background", {"color": COLORS[value["color"]].words}


def _free(scene: Scene, corner: str) -> bool:
    _, x, y = _CORNERS[corner]
    if scene["foreign"]["banner"] and corner.startswith("top"):
        return False
    items = scene["foreign"]["items"]
    return all(max(abs(i["x"] - x), abs(i["y"] - y)) > 36 + i["size"] / 2 for i in items)


def _propose_add(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    corners = [corner for corner in _CORNERS if _free(scene, corner)]
    if not corners:
        return None
    name = r.choice(pool.things(GROUND + HOLD))
    return {"corner": r.choice(corners), "name": name, "color": sample_color(r, name)}


def _apply_add(scene: Scene, value: Value) -> None:
    _, x, y = _CORNERS[value["corner"]]
    item = {"kind": "object", "name": value["name"], "color": value["color"], "turn": 0}
    scene["foreign"]["items"].append({**item, "x": x, "y": y, "size": 84})


def _phrase_add(scene: Scene, value: Value) -> Phrase:
    corner = (value["corner"], _CORNERS[value["corner"]][0])
    return "foreign_add", {"thing": object_words(value), "corner": corner}


OUT_OF_DOMAIN_KINDS = (
    EditKind(
        name="foreign_style",
        category="global",
        weight=2,
        propose=propose_style,
        apply=apply_style,
        phrase=phrase_style,
        style_hides=True,
        out_of_domain=True,
    ),
    EditKind(
        name="foreign_weather",
        category="global",
        weight=0.5,
        propose=_propose_weather,
        apply=_set,
        phrase=phrase_weather,
        out_of_domain=True,
    ),
    EditKind(
        name="foreign_banner",
        category="text",
        weight=1,
        propose=_propose_banner,
        apply=_set,
        phrase=_phrase_banner,
        needs={"banner": False},
        style_hides=True,
        out_of_domain=True,
    ),
    EditKind(
        name="foreign_box",
        category="local",
        weight=2,
        propose=_propose_box,
        apply=_apply_box,
        phrase=phrase_box,
        out_of_domain=True,
    ),
    EditKind(
        name="foreign_background",
        category="global",
        weight=1,
        propose=_propose_background,
        apply=_set,
        phrase=_phrase_background,
        style_hides=True,
        out_of_domain=True,
    ),
    EditKind(
        name="foreign_add",
        category="local",
        weight=1.5,
        propose=_propose_add,
        apply=_apply_add,
        phrase=_phrase_add,
        out_of_domain=True,
    ),
)
