"""Edits of the character: hair, glasses, hat, expression, clothes, beard, pose, held things, presence."""

import random
from collections.abc import Callable, Mapping
from typing import Any

from ..drawing.characters import FAMILIES, can_wear, hats_under_banner
from ..drawing.colors import COLORS, HAIR_COLORS, HAT_COLORS
from ..language.vocabulary import (
    BEARD,
    COLORED_CLOTH,
    EXPRESS,
    GLASSES,
    HAIR,
    HAT,
    HORNS,
    POSE,
    clothes_words,
    hat_words,
    object_words,
    with_article,
)
from ..scenes.scene import Pool, Scene, copied, hand_is_free, has_top_sign, sample_held
from .kind import EditKind, Phrase, Value, other, who


def _trait(
    name: str,
    key: str,
    weight: float,
    phrase: Callable[[Scene, Any], Phrase],
    *,
    part: str,
    allowed: Callable[[Scene], bool] = lambda scene: True,
    needs: Mapping[str, Any] | None = None,
    style_hides: bool = False,
) -> EditKind:
    """A kind that gives one attribute of the character another value."""

    def propose(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
        c = scene["character"]
        if not c or not FAMILIES[c["family"]].allows(key) or not allowed(scene):
            return None
        return {key: other(r, FAMILIES[c["family"]].allows(key), c[key])}

    return EditKind(
        name=name,
        category="local",
        weight=weight,
        propose=propose,
        apply=lambda scene, value: scene["character"].update(value),
        phrase=lambda scene, value: phrase(scene, value[key]),
        undo=lambda scene, value: (name, {key: scene["character"][key]}),
        needs={"character": True, **(needs or {})},
        part=part,
        style_hides=style_hides,
    )


def _hair_shows(scene: Scene) -> bool:
    c = scene["character"]
    return c["hair"] != "bald" and (not c["hat"] or c["family"] == "kid")


def _phrase_hair_color(scene: Scene, color: str) -> Phrase:
    return "hair_color", {"who": who(scene), "color": HAIR_COLORS[color].words}


def _phrase_hair_style(scene: Scene, hair: str) -> Phrase:
    variant = "hair_style/bald" if hair == "bald" else "hair_style"
    return variant, {"who": who(scene), "hair": HAIR[hair]}


def _phrase_glasses(scene: Scene, glasses: str | None) -> Phrase:
    old = scene["character"]["glasses"]
    slots = {"who": who(scene)}
    if glasses is None:
        return "glasses/off", {**slots, "glasses": GLASSES[old]}
    if old:
        return "glasses/swap", {**slots, "old": GLASSES[old], "glasses": GLASSES[glasses]}
    return "glasses/on", {**slots, "glasses": GLASSES[glasses]}


def _phrase_expression(scene: Scene, expression: str) -> Phrase:
    return "expression", {"who": who(scene), "express": EXPRESS[expression]}


def _phrase_cloth_color(scene: Scene, color: str) -> Phrase:
    c, (english, chinese) = scene["character"], COLORS[color].words
    if c["family"] == "critter":
        return "cloth_color/monster", {"who": who(scene), "color": (english, chinese)}
    shirt = ("shirt", "衬衫" if c["clothes"] in ("overalls", "collared") else "上衣")
    cloth = COLORED_CLOTH.get(c["clothes"], shirt)
    slots = {"who": who(scene), "cloth": cloth, "color": (english, chinese)}
    return "cloth_color", {
        **slots,
        "colored_cloth": (with_article(f"{english} {cloth[0]}"), chinese + cloth[1]),
    }


def _phrase_clothes(scene: Scene, clothes: str) -> Phrase:
    worn = clothes_words({**scene["character"], "clothes": clothes})
    return "clothes", {"who": who(scene), "clothes": worn}


def _phrase_beard(scene: Scene, beard: str | None) -> Phrase:
    if beard is None:
        return "beard/off", {"who": who(scene)}
    return "beard/on", {"who": who(scene), "beard": BEARD[beard]}


def _phrase_horns(scene: Scene, horns: str | None) -> Phrase:
    slots = {"who": who(scene)}
    if horns is None:
        english, chinese = HORNS[scene["character"]["horns"]]
        return "horns/off", {**slots, "horns": ("the " + english.removeprefix("a "), chinese)}
    return "horns/on", {**slots, "horns": HORNS[horns]}


def _phrase_pose(scene: Scene, pose: str) -> Phrase:
    return "pose", {"who": who(scene), "pose": POSE[pose]}


def _propose_hat(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    c = scene["character"]
    if not c or not FAMILIES[c["family"]].allows("hat"):
        return None
    if c["hat"] and r.random() < 0.5:
        return {"hat": None, "hat_color": c["hat_color"]}
    hats = FAMILIES[c["family"]].allows("hat")[1:]
    if has_top_sign(scene):
        hats = hats_under_banner(hats)
    if not c["hat"] or c["family"] == "kid":
        hats = tuple(hat for hat in hats if can_wear(c, hat))
    hat = other(r, hats, c["hat"])
    return (
        {"hat": hat, "hat_color": other(r, HAT_COLORS, c["hat_color"] if c["hat"] else None)} if hat else None
    )


def _phrase_hat(scene: Scene, value: Value) -> Phrase:
    old, slots = scene["character"]["hat"], {"who": who(scene)}
    if value["hat"] is None:
        return "hat/off", {**slots, "old": HAT[old]}
    slots["hat"] = hat_words(value["hat"], value["hat_color"])
    return ("hat/swap", {**slots, "old": HAT[old]}) if old else ("hat/on", slots)


def _undo_hat(scene: Scene, value: Value) -> tuple[str, Value]:
    return "hat", {key: scene["character"][key] for key in ("hat", "hat_color")}


def _propose_held(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    if not scene["character"] or scene["character"]["view"] != "front":
        return None
    if scene["held"] and r.random() < 0.3:
        return {"held": None}
    if not scene["held"] and not hand_is_free(scene):
        return None
    held = sample_held(r, pool)
    return None if scene["held"] and held["name"] == scene["held"]["name"] else {"held": held}


def _phrase_held(scene: Scene, value: Value) -> Phrase:
    slots = {"who": who(scene)}
    if scene["held"]:
        slots["old"] = object_words(scene["held"], "the")
    if value["held"] is None:
        return "hold/take", slots
    slots["thing"] = object_words(value["held"])
    return ("hold/swap" if scene["held"] else "hold/give"), slots


def _propose_remove(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    speaks = scene["sign"] and scene["sign"]["kind"] == "bubble"
    return {} if scene["character"] and not scene["held"] and not speaks else None


CHARACTER_KINDS = (
    _trait(
        "hair_color", "hair_color", 3, _phrase_hair_color, part="hair", allowed=_hair_shows, style_hides=True
    ),
    _trait(
        "hair_style", "hair", 3, _phrase_hair_style, part="hair", allowed=lambda s: not s["character"]["hat"]
    ),
    _trait("horns", "horns", 0.7, _phrase_horns, part="hair", needs={"family": "critter"}),
    _trait("glasses", "glasses", 3, _phrase_glasses, part="eyes"),
    EditKind(
        name="hat",
        category="local",
        weight=3,
        propose=_propose_hat,
        apply=lambda scene, value: scene["character"].update(value),
        phrase=_phrase_hat,
        undo=_undo_hat,
        needs={"character": True},
        part="hair",
    ),
    _trait("expression", "expression", 3, _phrase_expression, part="mouth"),
    _trait("cloth_color", "cloth_color", 3, _phrase_cloth_color, part="clothes", style_hides=True),
    _trait("clothes", "clothes", 2.5, _phrase_clothes, part="clothes"),
    _trait("beard", "beard", 1.5, _phrase_beard, part="mouth"),
    _trait(
        "pose",
        "pose",
        2,
        _phrase_pose,
        part="arms",
        allowed=lambda scene: not scene["held"],
        needs={"family": "kid", "held": False},
    ),
    EditKind(
        name="hold",
        category="local",
        weight=3,
        propose=_propose_held,
        apply=lambda scene, value: scene.update(copied(value)),
        phrase=_phrase_held,
        undo=lambda scene, value: ("hold", {"held": scene["held"]}),
        needs={"character": True, "objects": 0},
        part="arms",
    ),
    EditKind(
        name="character_remove",
        category="local",
        weight=1,
        propose=_propose_remove,
        apply=lambda scene, value: scene.update(character=None),
        phrase=lambda scene, value: ("character_remove", {"who": who(scene)}),
        needs={"character": True},
    ),
)
