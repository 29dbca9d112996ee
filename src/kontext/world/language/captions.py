"""Captions: scenes, characters, backgrounds and out-of-domain pictures in words."""

import re

from ..drawing.backgrounds import PLACES, place_words
from ..drawing.colors import COLORS
from ..drawing.signs import SIGNS
from ..drawing.styles import STYLES
from ..scenes.scene import Scene
from .vocabulary import (
    BEARD,
    EXPRESSION,
    GLASSES,
    HAIR,
    HORNS,
    POSING,
    SEASON,
    TIME,
    WEATHER,
    Words,
    clothes_words,
    hair_words,
    hat_words,
    object_words,
    side_words,
    with_article,
)


def monster_words(c: dict) -> Words:
    """A creature as a noun phrase."""
    color, horns, eyes = c["cloth_color"], c["horns"], c["eyes"]
    english = with_article(f"{COLORS[color].english} monster")
    english += {"two": "", "one": " with one eye", "three": " with three eyes"}[eyes]
    if horns:
        english += (" with " if eyes == "two" else " and ") + HORNS[horns][0]
    chinese = {"two": "", "one": "独眼", "three": "三只眼"}[eyes]
    chinese += f"长着{HORNS[horns][1]}的" if horns else ("的" if chinese else "")
    return english, f"一只{chinese}{COLORS[color].chinese}小怪物"


def character_words(c: dict) -> Words:
    """A character as a noun phrase with everything that words can say about it."""
    if c["family"] == "critter":
        english, chinese = monster_words(c)
    else:
        english, chinese = ("a kid", "孩子") if c["family"] == "kid" else ("a person", "人")
        has: list[Words] = []
        if c["hair"] == "bald" and not (c["hat"] and c["family"] != "kid"):
            has.append(HAIR["bald"])
        elif not c["hat"] or c["family"] == "kid":
            has.append(hair_words(c["hair"], c["hair_color"]))
        if c["beard"]:
            has.append(BEARD[c["beard"]])
        wears = [GLASSES[c["glasses"]]] if c["glasses"] else []
        if c["hat"]:
            wears.append(hat_words(c["hat"], c["hat_color"]))
        wears.append(clothes_words(c))
        if has:
            english += " with " + " and ".join(words[0] for words in has)
        english += " wearing " + re.sub(r", ([^,]*)$", r" and \1", ", ".join(words[0] for words in wears))
        worn = [f"戴{words[1]}" for words in wears[:-1]] + [f"穿{wears[-1][1]}"]
        chinese = f"一个{'、'.join([words[1] for words in has] + worn)}的{chinese}"
    expression = EXPRESSION[c["expression"]]
    return f"{english}, {expression[0]}", f"{chinese}，{expression[1]}"


def background_words(background: dict) -> Words:
    """Place, time, season and weather: "on a beach at sunset"."""
    place = PLACES[background["place"]]
    english, chinese = place_words(background)
    before, after = "", ""
    if background["time"] not in (None, "day"):
        after += " " + TIME[background["time"]][0]
        before += TIME[background["time"]][1]
    if background["season"] not in (None, "summer"):
        after += " in " + SEASON[background["season"]][0]
        before = SEASON[background["season"]][1] + before
    if background["weather"]:
        after += " " + WEATHER[background["weather"]][0]
        before += WEATHER[background["weather"]][1]
    on = "on a meadow" if background["place"] == "meadow" else f"{place.on} {english}"
    return on + after, f"{before}{'的' if before else ''}{chinese}{place.upon}"


_SHAPES: dict[str, Words] = {
    "circle": ("circle", "圆形"),
    "square": ("square", "正方形"),
    "triangle": ("triangle", "三角形"),
    "star": ("star", "五角星"),
    "heart": ("heart", "心形"),
    "ring": ("ring", "圆环"),
    "hexagon": ("hexagon", "六边形"),
    "cross": ("cross", "十字"),
    "moon": ("crescent", "月牙"),
    "diamond": ("diamond", "菱形"),
}
_BASES: dict[str, Words] = {
    "flat": ("a plain background", "纯色背景"),
    "gradient": ("a gradient", "渐变背景"),
    "stripes": ("a striped background", "条纹背景"),
    "checks": ("a checkered background", "格子背景"),
}


def _item_words(item: dict) -> Words:
    if item["kind"] == "object":
        return object_words(item)
    if item["kind"] == "shape":
        english, chinese = _SHAPES[item["name"]]
        color = COLORS[item["color"]]
        return with_article(f"{color.english} {english}"), color.chinese + chinese
    return ("a sticker", "贴纸") if item["kind"] == "icon" else ("a figure", "人物")


def _out_of_domain_caption(picture: dict) -> Words:
    things = [_item_words(item) for item in picture["items"]]
    place = _BASES[picture["base"]["kind"]]
    if picture["color"]:
        color = COLORS[picture["color"]]
        place = (with_article(f"plain {color.english} background"), f"纯{color.chinese}背景")
    english = re.sub(r", ([^,]*)$", r" and \1", ", ".join(words[0] for words in things)) + f" on {place[0]}"
    chinese = f"{place[1]}上有" + "、".join(words[1] for words in things)
    if picture["banner"]:
        english += f", with a banner that says '{picture['banner']}'"
        chinese += f"，横幅上写着“{picture['banner']}”"
    if picture["weather"]:
        english, chinese = (
            f"{english} {WEATHER[picture['weather']][0]}",
            chinese + "，" + WEATHER[picture["weather"]][1],
        )
    return english, chinese


def described(scene: Scene) -> Words:
    """A caption of any picture: scene, character sheet or out-of-domain picture, with its style."""
    if "foreign" in scene:
        english, chinese = _out_of_domain_caption(scene["foreign"])
    elif scene["sheet"]:
        words = character_words(scene["character"])
        english = f"a character sheet with front, side and back views of {words[0]}"
        chinese = f"角色三视图（正面、侧面、背面）：{words[1]}"
    else:
        english, chinese = caption(scene)
        view = scene["character"]["view"] if scene["character"] else "front"
        if view != "front":
            words = {"side": ("side", "侧面"), "back": ("back", "背面")}[view]
            english, chinese = f"{english}, seen from the {words[0]}", f"{chinese}，{words[1]}"
    if scene["style"]:
        style = STYLES[scene["style"]]
        english, chinese = f"{english}, as {style.english[0]}", f"{chinese}，{style.chinese[0]}"
    return english, chinese


def caption(scene: Scene) -> Words:
    """A scene in words, without capital, full stop and style."""
    parts: list[Words] = []
    c, sign = scene["character"], scene["sign"]
    if c:
        english, chinese = character_words(c)
        if c["pose"] in POSING and not scene["held"]:
            english, chinese = f"{english}, {POSING[c['pose']][0]}", f"{chinese}，{POSING[c['pose']][1]}"
        if scene["held"]:
            thing = object_words(scene["held"])
            english, chinese = f"{english}, holding {thing[0]}", f"{chinese}，拿着{thing[1]}"
        if c["full"]:
            english, chinese = f"{english}, from head to toe", f"{chinese}，全身"
        parts.append((english, chinese))
    for thing in scene["objects"]:
        name, side = object_words(thing), side_words(thing["x"])
        parts.append((f"{name[0]} {side[0]}", f"{side[1]}有{name[1]}"))
    parts = parts or [("nothing else", "空无一人")]
    place = background_words(scene["background"])
    english = ", ".join(words[0] for words in parts[:-1])
    english += (", and " if c and english else " and " if english else "") + parts[-1][0] + f" {place[0]}"
    chinese = f"{place[1]}，" + "，".join(words[1] for words in parts)
    if sign and sign["word"]:
        kind = SIGNS[sign["kind"]]
        english += f", with {with_article(kind.english)} that says '{sign['word']}'"
        chinese += f"，{kind.chinese}上写着“{sign['word']}”"
    return english, chinese
