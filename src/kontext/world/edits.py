"""The table of edit kinds. A kind proposes a value for a scene, applies it, says it, and may take it back.

A value is plain data, so that the same kind with other values gives the rivals of an edit, and an edit can be
kept, repeated and undone.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .backgrounds import PLACES, WEATHERS, outdoors, place_words
from .characters import FAMILIES, can_wear, hats_under_banner
from .colors import COLORS, HAIR_COLORS, HAT_COLORS, OBJECT_COLORS, WALL_COLORS
from .foreign import item_box
from .objects import CONCEPTS, GROUND, HOLD, SKY, object_box
from .scene import (
    Pool,
    Scene,
    copied,
    free_slots,
    hand_is_free,
    has_top_sign,
    sample_background,
    sample_color,
    sample_held,
    sample_object,
    settle,
)
from .sentences import Slots
from .signs import INKS, NEW_WORD_FONT, SIGNS
from .styles import STYLES
from .vocabulary import (
    BEARD,
    COLORED_CLOTH,
    EXPRESS,
    GLASSES,
    HAIR,
    HAT,
    HORNS,
    POSE,
    SEASON,
    clothes_words,
    hat_words,
    object_words,
    side_words,
    spot_words,
    with_article,
)

Value = dict[str, Any]
Said = tuple[str, Slots]  # variant of the sentence and its slots
Proposal = Value | None


@dataclass(frozen=True)
class EditKind:
    """One kind of edit.

    `propose` draws a value, or None where the scene does not allow this edit; `apply` changes a scene in
    place; `say` puts it into words, given the scene before; `undo` names the edit that would take it back.
    """

    name: str
    category: str
    weight: float
    propose: Callable[[random.Random, Scene, Pool], Proposal]
    apply: Callable[[Scene, Value], None]
    say: Callable[[Scene, Value], Said]
    undo: Callable[[Scene, Value], tuple[str, Value]] | None = None
    needs: Mapping[str, Any] = field(default_factory=dict)  # what to ask of `sample_scene`
    part: str = ""  # kinds of different parts can be joined in one instruction
    style_hides: bool = False  # meaningless inside a style without colours or letters
    on_foreign: bool = False

    def after(self, before: Scene, value: Value) -> Scene:
        """The scene that the edit makes; `before` stays as it is."""
        scene = copied(before)
        scene["box"] = None
        self.apply(scene, value)
        return scene if self.on_foreign else settle(scene)


def value_label(value: Value) -> str:
    """A value in few words: "red", "cat, blue"; equal for equal answers wherever they are given."""
    if "background" in value:
        shown = [value["background"][key] for key in ("place", "color", "time", "season")]
        return " ".join(part for part in shown if part)
    if "edits" in value:
        return " + ".join(f"{name}: {value_label(part)}" for name, part in value["edits"])
    said = {**value, **(value.get("object") or {}), **(value.get("held") or {})}
    keys = ("index", "box", "object", "x", "y", "size", "ground") if "name" in said else ("index", "box")
    if "style" in value:
        keys = ("name",)
    parts = [part for key, part in said.items() if key not in keys and not isinstance(part, dict)]
    return ", ".join(str(part) for part in parts if part is not None) or "none"


def inverse(kind: EditKind, before: Scene, value: Value) -> tuple[EditKind, Value] | None:
    """The edit that leads from the scene after back to exactly the scene before, where there is one."""
    if kind.undo is None or before["box"]:
        return None
    name, back = kind.undo(before, value)
    other = KINDS[name]
    return (other, back) if other.after(kind.after(before, value), back) == before else None


def _pick(r: random.Random, values, current) -> Any:
    """One of `values` that is not the current one; None where there is none."""
    others = [value for value in values if value != current]
    return r.choice(others) if others else None


def _who(scene: Scene) -> tuple[str, str]:
    if "foreign" in scene or not scene["character"]:
        return "everything", "所有东西"
    return FAMILIES[scene["character"]["family"]].noun


# ---- characters ------------------------------------------------------------------------------------------
def _trait(
    name: str,
    key: str,
    weight: float,
    say: Callable[[Scene, Any], Said],
    allowed: Callable[[Scene], bool] = lambda scene: True,
    *,
    part: str,
    needs: Mapping[str, Any] | None = None,
    style_hides: bool = False,
) -> EditKind:
    """A kind that gives one attribute of the character another value."""

    def propose(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
        c = scene["character"]
        if not c or not FAMILIES[c["family"]].allows(key) or not allowed(scene):
            return None
        return {key: _pick(r, FAMILIES[c["family"]].allows(key), c[key])}

    return EditKind(
        name=name,
        category="local",
        weight=weight,
        propose=propose,
        apply=lambda scene, value: scene["character"].update(value),
        say=lambda scene, value: say(scene, value[key]),
        undo=lambda scene, value: (name, {key: scene["character"][key]}),
        needs={"character": True, **(needs or {})},
        part=part,
        style_hides=style_hides,
    )


def _hair_shows(scene: Scene) -> bool:
    c = scene["character"]
    return c["hair"] != "bald" and (not c["hat"] or c["family"] == "kid")


def _say_hair_color(scene: Scene, color: str) -> Said:
    return "hair_color", {"who": _who(scene), "color": HAIR_COLORS[color].words}


def _say_hair_style(scene: Scene, hair: str) -> Said:
    variant = "hair_style/bald" if hair == "bald" else "hair_style"
    return variant, {"who": _who(scene), "hair": HAIR[hair]}


def _say_glasses(scene: Scene, glasses: str | None) -> Said:
    old = scene["character"]["glasses"]
    slots = {"who": _who(scene)}
    if glasses is None:
        return "glasses/off", {**slots, "glasses": GLASSES[old]}
    if old:
        return "glasses/swap", {**slots, "old": GLASSES[old], "glasses": GLASSES[glasses]}
    return "glasses/on", {**slots, "glasses": GLASSES[glasses]}


def _say_cloth_color(scene: Scene, color: str) -> Said:
    c = scene["character"]
    if c["family"] == "critter":
        return "cloth_color/monster", {"color": COLORS[color].words}
    plain = ("shirt", "衬衫") if c["clothes"] in ("overalls", "collared") else ("shirt", "上衣")
    cloth = COLORED_CLOTH.get(c["clothes"], plain)
    colored = (with_article(f"{COLORS[color].english} {cloth[0]}"), COLORS[color].chinese + cloth[1])
    return "cloth_color", {
        "who": _who(scene),
        "cloth": cloth,
        "color": COLORS[color].words,
        "colored_cloth": colored,
    }


def _say_clothes(scene: Scene, clothes: str) -> Said:
    worn = clothes_words({**scene["character"], "clothes": clothes})
    return "clothes", {"who": _who(scene), "clothes": worn}


def _say_beard(scene: Scene, beard: str | None) -> Said:
    if beard is None:
        return "beard/off", {"who": _who(scene)}
    return "beard/on", {"who": _who(scene), "beard": BEARD[beard]}


def _say_horns(scene: Scene, horns: str | None) -> Said:
    if horns is None:
        old = HORNS[scene["character"]["horns"]]
        return "horns/off", {"horns": ("the " + old[0].removeprefix("a "), old[1])}
    return "horns/on", {"who": _who(scene), "horns": HORNS[horns]}


def _propose_hat(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    c = scene["character"]
    if not c or not FAMILIES[c["family"]].allows("hat"):
        return None
    if c["hat"] and r.random() < 0.5:
        return {"hat": None, "hat_color": c["hat_color"]}
    hats = FAMILIES[c["family"]].allows("hat")[1:]
    hats = [hat for hat in (hats_under_banner(hats) if has_top_sign(scene) else hats)]
    if not c["hat"] or c["family"] == "kid":
        hats = [hat for hat in hats if can_wear(c, hat)]
    hat, color = _pick(r, hats, c["hat"]), _pick(r, HAT_COLORS, c["hat_color"] if c["hat"] else None)
    return {"hat": hat, "hat_color": color} if hat else None


def _say_hat(scene: Scene, value: Value) -> Said:
    old, slots = scene["character"]["hat"], {"who": _who(scene)}
    if value["hat"] is None:
        return "hat/off", {**slots, "old": HAT[old]}
    hat = hat_words(value["hat"], value["hat_color"])
    return ("hat/swap", {**slots, "old": HAT[old], "hat": hat}) if old else ("hat/on", {**slots, "hat": hat})


def _undo_hat(scene: Scene, value: Value) -> tuple[str, Value]:
    c = scene["character"]
    return "hat", {"hat": c["hat"], "hat_color": c["hat_color"]}


def _propose_held(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    if not scene["character"] or scene["character"]["view"] != "front":
        return None
    if scene["held"] and r.random() < 0.3:
        return {"held": None}
    if not scene["held"] and not hand_is_free(scene):
        return None
    held = sample_held(r, pool)
    return None if scene["held"] and held["name"] == scene["held"]["name"] else {"held": held}


def _say_held(scene: Scene, value: Value) -> Said:
    slots = {"who": _who(scene)}
    if value["held"] is None:
        return "hold/take", {**slots, "old": object_words(scene["held"], "the")}
    slots["thing"] = object_words(value["held"])
    if scene["held"]:
        return "hold/swap", {**slots, "old": object_words(scene["held"], "the")}
    return "hold/give", slots


def _propose_character_remove(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    side_sign = scene["sign"] and scene["sign"]["kind"] == "bubble"
    return {} if scene["character"] and not scene["held"] and not side_sign else None


# ---- objects ---------------------------------------------------------------------------------------------
def _index(r: random.Random, scene: Scene) -> int | None:
    return r.randrange(len(scene["objects"])) if scene["objects"] else None


def _propose_object_remove(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    if len(scene["objects"]) < (1 if scene["character"] else 2):
        return None
    return {"index": _index(r, scene)}


def _say_object_remove(scene: Scene, value: Value) -> Said:
    thing = scene["objects"][value["index"]]
    return "object_remove", {"thing": object_words(thing, "the"), "side": side_words(thing["x"])}


def _undo_object_remove(scene: Scene, value: Value) -> tuple[str, Value]:
    return "object_add", {"index": value["index"], "object": scene["objects"][value["index"]]}


def _propose_object_add(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    free = free_slots(scene)
    if not free:
        return None
    thing = sample_object(r, pool, r.choice(free), scene["objects"])
    return {"index": len(scene["objects"]), "object": thing}


def _apply_object_add(scene: Scene, value: Value) -> None:
    scene["objects"].insert(value["index"], dict(value["object"]))


def _say_object_add(scene: Scene, value: Value) -> Said:
    return "object_add", {"thing": object_words(value["object"]), "spot": spot_words(value["object"])}


def _other_object(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    index = _index(r, scene)
    if index is None:
        return None
    names = pool.things(GROUND + HOLD if scene["objects"][index]["ground"] else SKY)
    taken = [thing["name"] for thing in scene["objects"]]
    names = tuple(name for name in names if name not in taken)
    if not names:
        return None
    name = r.choice(names)
    return {"index": index, "name": name, "color": sample_color(r, name, 0.4)}


def _apply_object_replace(scene: Scene, value: Value) -> None:
    scene["objects"][value["index"]].update(name=value["name"], color=value["color"])


def _say_object_replace(scene: Scene, value: Value) -> Said:
    old = object_words(scene["objects"][value["index"]], "the")
    return "object_replace", {"old": old, "thing": object_words(value)}


def _undo_object_replace(scene: Scene, value: Value) -> tuple[str, Value]:
    old = scene["objects"][value["index"]]
    return "object_replace", {"index": value["index"], "name": old["name"], "color": old["color"]}


def _framed(box: tuple[int, int, int, int]) -> list[int]:
    left, top, right, bottom = box
    return [max(2, left - 5), max(2, top - 5), min(253, right + 5), min(253, bottom + 5)]


def _propose_object_box(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    value = _propose_object_remove(r, scene, pool) if r.random() < 0.25 else _other_object(r, scene, pool)
    if value is None:
        return None
    return {"box": _framed(object_box(scene["objects"][value["index"]], scene["art"])), **value}


def _apply_object_box(scene: Scene, value: Value) -> None:
    if "name" in value:
        _apply_object_replace(scene, value)
    else:
        scene["objects"].pop(value["index"])


def _say_object_box(scene: Scene, value: Value) -> Said:
    if "name" in value:
        return "object_box/replace", {"thing": object_words(value)}
    return "object_box/remove", {}


def _propose_object_color(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    indices = [i for i, thing in enumerate(scene["objects"]) if CONCEPTS[thing["name"]].colorable]
    if not indices:
        return None
    index = r.choice(indices)
    return {"index": index, "color": _pick(r, OBJECT_COLORS, scene["objects"][index]["color"])}


def _say_object_color(scene: Scene, value: Value) -> Said:
    old = object_words({"name": scene["objects"][value["index"]]["name"]}, "the")
    return "object_color", {"old": old, "color": COLORS[value["color"]].words}


def _propose_object_move(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    c, sign = scene["character"], scene["sign"]
    if len(scene["objects"]) != 1 or scene["held"] or (sign and not has_top_sign(scene)):
        return None
    if c and abs(c["x"] - 128) > 20:
        return None
    x = scene["objects"][0]["x"]
    return {"x": r.choice([66, 190]) if abs(x - 128) < 30 else 256 - x}


def _say_object_move(scene: Scene, value: Value) -> Said:
    thing = scene["objects"][0]
    direction = ("left", "左边") if value["x"] < thing["x"] else ("right", "右边")
    return "object_move", {"thing": object_words(thing, "the"), "direction": direction}


_SIZES = {"bigger": (172, 150), "smaller": (76, 198)}  # pixels, row of the centre


def _propose_object_size(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    if scene["character"] or len(scene["objects"]) != 1 or scene["objects"][0]["size"] != 132:
        return None
    return {"size": r.choice(list(_SIZES))}


def _apply_object_size(scene: Scene, value: Value) -> None:
    size, y = _SIZES[value["size"]]
    scene["objects"][0].update(size=size, y=y)


def _say_object_size(scene: Scene, value: Value) -> Said:
    chinese = {"bigger": "变大", "smaller": "变小"}[value["size"]]
    return "object_size", {
        "thing": object_words(scene["objects"][0], "the"),
        "size": (value["size"], chinese),
    }


def _propose_art(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    things = scene["objects"]
    if scene["character"] or not things or any(thing["color"] for thing in things):
        return None
    return {"art": "flat" if scene["art"] == "line" else "line"}


# ---- the whole picture -----------------------------------------------------------------------------------
def _propose_background(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    others = tuple(place for place in PLACES if place != scene["background"]["place"])
    background = sample_background(r, pool, places=others, new=True)
    return None if background["place"] == scene["background"]["place"] else {"background": background}


def _say_background(scene: Scene, value: Value) -> Said:
    b = value["background"]
    english, chinese = place_words(b)
    if b["season"] not in (None, "summer"):
        english, chinese = f"{english} in {SEASON[b['season']][0]}", f"{SEASON[b['season']][1]}的{chinese}"
    if b["time"] == "night":
        english, chinese = f"{english} at night", f"夜晚的{chinese}"
    return "background", {"who": _who(scene), "place": (english, chinese)}


def _propose_time(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    b = scene["background"]
    times = PLACES[b["place"]].times
    return {"time": _pick(r, times, b["time"])} if times else None


def _propose_season(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    season = scene["background"]["season"]
    return {"season": _pick(r, SEASON, season)} if season else None


def _propose_weather(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    b = scene["background"]
    if not outdoors(b["place"]):
        return None
    return {"weather": None if b["weather"] else r.choice(WEATHERS)}


def _say_weather(scene: Scene, value: Value) -> Said:
    old = (scene["foreign"] if "foreign" in scene else scene["background"])["weather"]
    return f"weather/{value['weather'] or f'clear_{old}'}", {}


def _propose_style(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    return None if scene["style"] else {"style": r.choice(pool.styles), "name": r.randrange(2)}


def _say_style(scene: Scene, value: Value) -> Said:
    style, name = STYLES[value["style"]], value["name"]
    return "style", {"style": (style.english[name], style.chinese[name])}


def _apply_style(scene: Scene, value: Value) -> None:
    scene["style"] = value["style"]


def _setting(key: str) -> tuple[Callable[[Scene, Value], None], Callable[[Scene, Value], tuple[str, Value]]]:
    """How a property of the background is set, and set back."""

    def undo(scene: Scene, value: Value) -> tuple[str, Value]:
        return key, {key: scene["background"][key]}

    return lambda scene, value: scene["background"].update(value), undo


# ---- words -----------------------------------------------------------------------------------------------
def _propose_text(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    if not scene["sign"] or not scene["sign"]["word"]:
        return None
    old = scene["sign"]["word"]
    near = [word for word in pool.words if abs(len(word) - len(old)) <= 2]
    word = _pick(r, near, old)
    return {"word": word} if word else None


def _sign_slots(scene: Scene) -> dict[str, tuple[str, str]]:
    sign = SIGNS[scene["sign"]["kind"]]
    return {"sign": (sign.english, sign.chinese), "old": (scene["sign"]["word"],) * 2}


def _propose_text_color(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    sign = scene["sign"]
    if not sign or not sign["word"]:
        return None
    ink = _pick(r, SIGNS[sign["kind"]].inks, sign["ink"])
    return {"ink": ink} if ink else None


def _propose_text_write(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    return {"word": r.choice(pool.words)} if scene["sign"] and not scene["sign"]["word"] else None


def _apply_text_write(scene: Scene, value: Value) -> None:
    sign = scene["sign"]
    sign.update(word=value["word"], font=NEW_WORD_FONT, ink=SIGNS[sign["kind"]].inks[0])


def _propose_text_remove(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    return {} if scene["sign"] and scene["sign"]["word"] else None


# ---- pictures foreign to the world -----------------------------------------------------------------------
_CORNERS = {
    "top left": ("左上角", 50, 50),
    "top right": ("右上角", 206, 50),
    "bottom left": ("左下角", 50, 206),
    "bottom right": ("右下角", 206, 206),
}


def _propose_foreign_box(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    items = scene["foreign"]["items"]
    index = r.randrange(len(items))
    value: Value = {"box": _framed(item_box(items[index])), "index": index}
    if r.random() < 0.5:
        value["name"] = r.choice(pool.things(GROUND + HOLD))
        value["color"] = sample_color(r, value["name"])
    return value


def _apply_foreign_box(scene: Scene, value: Value) -> None:
    item = scene["foreign"]["items"].pop(value["index"])
    if "name" in value:
        place = {key: item[key] for key in ("x", "y", "size")}
        item = {"kind": "object", "name": value["name"], "color": value["color"], "turn": 0, **place}
        scene["foreign"]["items"].insert(value["index"], item)


def _propose_foreign_weather(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    return {"weather": None if scene["foreign"]["weather"] else r.choice(WEATHERS)}


def _propose_foreign_banner(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    return None if scene["foreign"]["banner"] else {"banner": r.choice(pool.words)}


def _propose_foreign_background(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    return {"color": _pick(r, WALL_COLORS, scene["foreign"]["color"])}


def _propose_foreign_add(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    corners = [corner for corner in _CORNERS if not (corner.startswith("top") and scene["foreign"]["banner"])]
    name = r.choice(pool.things(GROUND + HOLD))
    return {"corner": r.choice(corners), "name": name, "color": sample_color(r, name)}


def _apply_foreign_add(scene: Scene, value: Value) -> None:
    _, x, y = _CORNERS[value["corner"]]
    item = {"kind": "object", "name": value["name"], "color": value["color"], "x": x, "y": y}
    scene["foreign"]["items"].append({**item, "size": 84, "turn": 0})


def _say_foreign_add(scene: Scene, value: Value) -> Said:
    corner = (value["corner"], _CORNERS[value["corner"]][0])
    return "foreign_add", {"thing": object_words(value), "corner": corner}


# ---- none and two ----------------------------------------------------------------------------------------
def _propose_compound(r: random.Random, scene: Scene, pool: Pool) -> Proposal:
    allowed = {name for name, _ in pool.kinds}
    names = [name for name in JOINABLE if name in allowed] or list(JOINABLE)
    done: list[tuple[EditKind, Value]] = []
    for name in r.sample(names, len(names)):
        kind = KINDS[name]
        if any(kind.part == other.part for other, _ in done):
            continue
        value = kind.propose(r, scene, pool)
        if value is None:
            continue
        done.append((kind, value))
        scene = kind.after(scene, value)
        if len(done) == 2:
            return {"edits": [[kind.name, value] for kind, value in done]}
    return None


def _apply_compound(scene: Scene, value: Value) -> None:
    for name, part in value["edits"]:
        KINDS[name].apply(scene, part)
        settle(scene)


def _say_compound(scene: Scene, value: Value) -> Said:
    raise TypeError("a compound edit is said by its two parts")


_apply_time, _undo_time = _setting("time")
_apply_season, _undo_season = _setting("season")
_apply_weather, _undo_weather = _setting("weather")

_FOREIGN: dict[str, Any] = {"on_foreign": True}
_SIGN = {"sign": True}
_ALL = (
    _trait("hair_color", "hair_color", 3, _say_hair_color, _hair_shows, part="hair", style_hides=True),
    _trait("hair_style", "hair", 3, _say_hair_style, lambda s: not s["character"]["hat"], part="hair"),
    _trait("horns", "horns", 0.7, _say_horns, part="hair", needs={"family": "critter"}),
    _trait("glasses", "glasses", 3, _say_glasses, part="eyes"),
    EditKind(
        *("hat", "local", 3, _propose_hat, lambda scene, value: scene["character"].update(value), _say_hat),
        *(_undo_hat, {"character": True}, "hair"),
    ),
    _trait(
        "expression",
        "expression",
        3,
        lambda s, v: ("expression", {"who": _who(s), "express": EXPRESS[v]}),
        part="mouth",
    ),
    _trait("cloth_color", "cloth_color", 3, _say_cloth_color, part="clothes", style_hides=True),
    _trait("clothes", "clothes", 2.5, _say_clothes, part="clothes"),
    _trait("beard", "beard", 1.5, _say_beard, part="mouth"),
    _trait(
        "pose",
        "pose",
        2,
        lambda s, v: ("pose", {"who": _who(s), "pose": POSE[v]}),
        lambda s: not s["held"],
        part="arms",
        needs={"family": "kid", "held": False},
    ),
    EditKind(
        *("hold", "local", 3, _propose_held, lambda scene, value: scene.update(copied(value)), _say_held),
        *(lambda scene, value: ("hold", {"held": scene["held"]}), {"character": True, "objects": 0}, "arms"),
    ),
    EditKind(
        *("character_remove", "local", 1, _propose_character_remove),
        *(lambda scene, value: scene.update(character=None),),
        *(lambda scene, value: ("character_remove", {"who": _who(scene)}), None, {"character": True}),
    ),
    EditKind(
        *("object_remove", "local", 3, _propose_object_remove),
        *(lambda scene, value: scene["objects"].pop(value["index"]),),
        *(_say_object_remove, _undo_object_remove, {"objects": 2}, "objects"),
    ),
    EditKind(
        *("object_add", "local", 3, _propose_object_add, _apply_object_add, _say_object_add),
        *(lambda scene, value: ("object_remove", {"index": value["index"]}), {}, "objects"),
    ),
    EditKind(
        *("object_replace", "local", 3, _other_object, _apply_object_replace),
        *(_say_object_replace, _undo_object_replace, {"objects": 2}, "objects"),
    ),
    EditKind(
        *(
            "object_box",
            "local",
            3,
            _propose_object_box,
            _apply_object_box,
            _say_object_box,
            None,
            {"objects": 2},
        ),
    ),
    EditKind(
        *("object_color", "local", 3, _propose_object_color),
        *(lambda scene, value: scene["objects"][value["index"]].update(color=value["color"]),),
        *(_say_object_color,),
        *(lambda s, v: ("object_color", {"index": v["index"], "color": s["objects"][v["index"]]["color"]}),),
        *({"objects": 2}, "objects", True),
    ),
    EditKind(
        *("object_move", "local", 2, _propose_object_move),
        *(lambda scene, value: scene["objects"][0].update(x=value["x"]), _say_object_move),
        *(lambda scene, value: ("object_move", {"x": scene["objects"][0]["x"]}), {"objects": 1}, "objects"),
    ),
    EditKind(
        *("object_size", "local", 1, _propose_object_size, _apply_object_size, _say_object_size),
        *(None, {"character": False, "objects": 1}, "objects"),
    ),
    EditKind(
        *("nothing", "local", 1.2, lambda r, scene, pool: {}, lambda scene, value: None),
        *(lambda scene, value: ("nothing", {}),),
    ),
    EditKind("compound", "local", 4, _propose_compound, _apply_compound, _say_compound, style_hides=True),
    EditKind(
        *("background", "global", 4.5, _propose_background),
        *(lambda scene, value: scene.update(copied(value)), _say_background),
        *(lambda scene, value: ("background", {"background": scene["background"]}), {}, "background"),
    ),
    EditKind(
        *(
            "time",
            "global",
            3,
            _propose_time,
            _apply_time,
            lambda s, v: (f"time/{v['time']}", {}),
            _undo_time,
        ),
        *({}, "background"),
    ),
    EditKind(
        *("season", "global", 1.5, _propose_season, _apply_season),
        *(lambda s, v: ("season", {"season": SEASON[v["season"]]}), _undo_season),
        *({"places": ("forest", "meadow")}, "background"),
    ),
    EditKind(
        *("weather", "global", 1.5, _propose_weather, _apply_weather, _say_weather, _undo_weather),
        *({"weather": 0.4}, "background"),
    ),
    EditKind(
        "style", "global", 7.5, _propose_style, _apply_style, _say_style, part="style", style_hides=True
    ),
    EditKind(
        *("art", "global", 1.5, _propose_art, lambda scene, value: scene.update(value)),
        *(lambda scene, value: (f"art/{value['art']}", {}),),
        *(lambda scene, value: ("art", {"art": scene["art"]}), {"character": False}, "objects", True),
    ),
    EditKind(
        *("text", "text", 9, _propose_text, lambda scene, value: scene["sign"].update(value)),
        *(lambda s, v: ("text", {**_sign_slots(s), "word": (v["word"],) * 2}),),
        *(lambda s, v: ("text", {"word": s["sign"]["word"]}), _SIGN, "text", True),
    ),
    EditKind(
        *("text_color", "text", 2, _propose_text_color, lambda scene, value: scene["sign"].update(value)),
        *(lambda s, v: ("text_color", {**_sign_slots(s), "color": INKS[v["ink"]].words}),),
        *(lambda s, v: ("text_color", {"ink": s["sign"]["ink"]}), _SIGN, "text", True),
    ),
    EditKind(
        *("text_write", "text", 1.2, _propose_text_write, _apply_text_write),
        *(lambda s, v: ("text_write", {**_sign_slots(s), "word": (v["word"],) * 2}),),
        *(lambda s, v: ("text_remove", {}), {"sign": True, "empty": True}, "text", True),
    ),
    EditKind(
        *("text_remove", "text", 1, _propose_text_remove),
        *(lambda scene, value: scene["sign"].update(word=""), lambda s, v: ("text_remove", _sign_slots(s))),
        *(lambda s, v: ("text_write", {"word": s["sign"]["word"]}), _SIGN, "text", True),
    ),
    EditKind(
        "foreign_style", "global", 2, _propose_style, _apply_style, _say_style, **_FOREIGN, style_hides=True
    ),
    EditKind(
        *("foreign_weather", "global", 0.5, _propose_foreign_weather),
        *(lambda scene, value: scene["foreign"].update(value), _say_weather),
        **_FOREIGN,
    ),
    EditKind(
        *("foreign_banner", "text", 1, _propose_foreign_banner),
        *(lambda scene, value: scene["foreign"].update(value),),
        *(lambda s, v: ("foreign_banner", {"word": (v["banner"],) * 2}),),
        needs={"banner": False},
        style_hides=True,
        **_FOREIGN,
    ),
    EditKind(
        *("foreign_box", "local", 2, _propose_foreign_box, _apply_foreign_box, _say_object_box), **_FOREIGN
    ),
    EditKind(
        *("foreign_background", "global", 1, _propose_foreign_background),
        *(lambda scene, value: scene["foreign"].update(value),),
        *(lambda s, v: ("foreign_background", {"color": COLORS[v["color"]].words}),),
        style_hides=True,
        **_FOREIGN,
    ),
    EditKind(
        *("foreign_add", "local", 1.5, _propose_foreign_add, _apply_foreign_add, _say_foreign_add), **_FOREIGN
    ),
)
KINDS = {kind.name: kind for kind in _ALL}
JOINABLE = tuple(kind.name for kind in _ALL if kind.part)
