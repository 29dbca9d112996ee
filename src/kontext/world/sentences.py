"""Instructions: templates per kind of edit in English and Chinese, captions of scenes, and two edits in one.

A variant names a kind and, where one kind says different things, what happens: "glasses/on". Its slots hold
(English, Chinese) pairs, so that one set fills both languages. `paraphrases.py` has more sentences for
training only, and `phrasings.py` some for tests only; variants and slots are the same.
"""

import random
import re
from collections.abc import Mapping
from typing import NamedTuple

from .backgrounds import PLACES, place_words
from .colors import COLORS
from .grammar import nothing, out_of_reach, worded
from .paraphrases import PARAPHRASES
from .phrasings import HELD_OUT
from .scene import Scene
from .signs import SIGNS
from .styles import STYLES
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

Slots = Mapping[str, Words]


class Templates(NamedTuple):
    """Ways to say one thing."""

    english: tuple[str, ...]
    chinese: tuple[str, ...]


def _t(english: list[str], chinese: list[str]) -> Templates:
    return Templates(tuple(english), tuple(chinese))


TEMPLATES = {
    "hair_color": _t(
        [
            "change the hair color to {color}",
            "make {who}'s hair {color}",
            "dye the hair {color}",
            "{who} should have {color} hair",
        ],
        ["把头发颜色改成{color}", "把{who}的头发染成{color}", "头发换成{color}"],
    ),
    "hair_style": _t(
        ["give {who} {hair}", "change the hairstyle to {hair}", "change {who}'s hairstyle: {hair}"],
        ["把发型换成{hair}", "给{who}换成{hair}", "让{who}留{hair}"],
    ),
    "hair_style/bald": _t(["make {who} bald", "shave off all the hair"], ["把{who}变成光头", "剃光头发"]),
    "horns/on": _t(
        ["give {who} {horns}", "add {horns} to {who}"], ["给{who}加上{horns}", "让{who}长出{horns}"]
    ),
    "horns/off": _t(["remove {horns} from the head"], ["去掉头上的{horns}"]),
    "glasses/on": _t(
        ["add {glasses}", "put {glasses} on {who}", "make {who} wear {glasses}"],
        ["给{who}戴上{glasses}", "加上{glasses}"],
    ),
    "glasses/off": _t(
        ["remove the {glasses}", "take off {who}'s {glasses}", "{who} without {glasses}"],
        ["去掉{glasses}", "摘掉{who}的{glasses}"],
    ),
    "glasses/swap": _t(
        ["replace the {old} with {glasses}", "swap the {old} for {glasses}"], ["把{old}换成{glasses}"]
    ),
    "hat/on": _t(["put {hat} on {who}", "add {hat}", "give {who} {hat}"], ["给{who}戴上{hat}", "加上{hat}"]),
    "hat/off": _t(["remove the {old}", "take off the {old}"], ["去掉{old}", "摘掉{who}的{old}"]),
    "hat/swap": _t(["replace the {old} with {hat}", "swap the {old} for {hat}"], ["把{old}换成{hat}"]),
    "expression": _t(
        ["make {who} {express}", "change the expression: {who} should {express}"],
        ["让{who}{express}", "改变表情，让{who}{express}"],
    ),
    "cloth_color": _t(
        ["change the {cloth} to {color}", "make the {cloth} {color}", "{who} should wear {colored_cloth}"],
        ["把{cloth}改成{color}", "把{who}的{cloth}换成{color}"],
    ),
    "cloth_color/monster": _t(
        ["make the monster {color}", "change the monster's color to {color}"],
        ["把小怪物变成{color}", "把小怪物的颜色改成{color}"],
    ),
    "clothes": _t(
        ["change the outfit to {clothes}", "dress {who} in {clothes}", "{who} should wear {clothes}"],
        ["把衣服换成{clothes}", "让{who}穿上{clothes}"],
    ),
    "beard/on": _t(["give {who} {beard}", "add {beard}"], ["给{who}加上{beard}", "让{who}留{beard}"]),
    "beard/off": _t(["shave {who}", "remove the facial hair"], ["去掉胡子", "把{who}的胡子刮掉"]),
    "pose": _t(["make {who} {pose}", "{who} should {pose}"], ["让{who}{pose}"]),
    "hold/give": _t(
        ["make {who} hold {thing}", "put {thing} in {who}'s hand", "give {who} {thing} to hold"],
        ["让{who}拿着{thing}", "在{who}手里放上{thing}"],
    ),
    "hold/take": _t(
        ["remove {old} from the hand", "take away {old}"], ["拿走手里的{old}", "去掉手中的{old}"]
    ),
    "hold/swap": _t(
        ["replace {old} in the hand with {thing}", "{who} should hold {thing} instead of {old}"],
        ["把手里的{old}换成{thing}"],
    ),
    "character_remove": _t(
        ["remove {who}", "erase {who} from the picture"], ["去掉{who}", "把{who}从图中删除"]
    ),
    "object_remove": _t(
        ["remove {thing}", "delete {thing} {side}", "erase {thing}"],
        ["去掉{side}的{thing}", "删除{thing}", "移除{thing}"],
    ),
    "object_add": _t(
        ["add {thing} {spot}", "put {thing} {spot}", "place {thing} {spot}"],
        ["在{spot}添加{thing}", "在{spot}放上{thing}"],
    ),
    "object_replace": _t(
        ["replace {old} with {thing}", "turn {old} into {thing}", "change {old} to {thing}"],
        ["把{old}换成{thing}", "将{old}替换为{thing}", "把{old}变成{thing}"],
    ),
    "object_box/replace": _t(
        [
            "replace the object in the red box with {thing}",
            "change what is inside the red box to {thing}",
            "turn the thing in the red box into {thing}",
        ],
        ["把红框里的物体换成{thing}", "将红色方框中的东西替换为{thing}"],
    ),
    "object_box/remove": _t(
        ["remove the object in the red box", "delete what is inside the red box"],
        ["去掉红框里的物体", "删除红色方框中的东西"],
    ),
    "object_color": _t(
        ["make {old} {color}", "change the color of {old} to {color}", "paint {old} {color}"],
        ["把{old}变成{color}", "把{old}的颜色改成{color}"],
    ),
    "object_move": _t(
        ["move {thing} to the {direction}", "put {thing} on the {direction} side instead"],
        ["把{thing}移到{direction}", "将{thing}挪到{direction}"],
    ),
    "object_size": _t(["make {thing} {size}"], ["把{thing}{size}"]),
    "background": _t(
        [
            "change the background to {place}",
            "replace the background with {place}",
            "put {who} in front of {place}",
        ],
        ["把背景换成{place}", "将背景替换为{place}"],
    ),
    "time/day": _t(["make it daytime", "change the scene to a bright day"], ["把场景改成白天", "变成白天"]),
    "time/night": _t(
        ["make it night", "change the scene to night", "turn the scene into night time"],
        ["把场景改成夜晚", "变成晚上"],
    ),
    "time/sunset": _t(["make it sunset", "change the light to a warm sunset"], ["改成日落时分", "变成黄昏"]),
    "season": _t(
        ["make it {season}", "change the season to {season}"], ["把季节改成{season}", "变成{season}"]
    ),
    "weather/rain": _t(["make it rain", "add rain"], ["让它下雨", "加上雨"]),
    "weather/snowfall": _t(["make it snow", "add falling snow"], ["让它下雪", "加上飘雪"]),
    "weather/clear_rain": _t(["stop the rain", "clear up the weather"], ["让天气放晴", "让雨停下来"]),
    "weather/clear_snowfall": _t(["stop the snow", "clear up the weather"], ["让天气放晴", "让雪停下来"]),
    "style": _t(
        [
            "turn this into {style}",
            "change the style to {style}",
            "restyle the picture as {style}",
            "make it look like {style}",
        ],
        ["变成{style}", "把整张图改成{style}", "转换为{style}"],
    ),
    "art/flat": _t(
        ["color the line icons", "fill the black and white drawings with flat colors"],
        ["给线稿图标上色", "把黑白图形涂上颜色"],
    ),
    "art/line": _t(
        [
            "redraw the objects as black and white line icons",
            "turn only the objects into black and white icons, keep the background",
        ],
        ["把物体改画成黑白线条图标", "只把物体变成黑白图标，背景不变"],
    ),
    "text": _t(
        [
            "change '{old}' to '{word}'",
            "replace the word '{old}' with '{word}'",
            "make the {sign} say '{word}'",
            "replace '{old}' by '{word}', keep the font",
        ],
        ["把“{old}”改成“{word}”", "将文字“{old}”替换为“{word}”", "让{sign}写上“{word}”"],
    ),
    "text_color": _t(
        ["make the text {color}", "change the color of the word '{old}' to {color}"],
        ["把文字改成{color}", "把“{old}”的颜色改成{color}"],
    ),
    "text_write": _t(
        ["write '{word}' on the {sign}", "add the word '{word}' to the {sign}"],
        ["在{sign}上写“{word}”", "给{sign}加上文字“{word}”"],
    ),
    "text_remove": _t(
        ["remove the word '{old}'", "erase the text from the {sign}"], ["去掉文字“{old}”", "擦掉{sign}上的字"]
    ),
    "nothing": _t(
        ["leave the picture as it is", "do not change anything", "keep everything the same"],
        ["保持图片不变", "什么都不要改", "原样保留这张图"],
    ),
    "compound": _t(
        ["{first} and {second}", "{first}, and {second}", "{first}, then {second}"],
        ["{first}，并{second}", "{first}，然后{second}"],
    ),
    "character_scene": _t(
        [
            "the same {noun} {place}, {doing}",
            "show this {noun} {place}, {doing}",
            "draw this exact {noun} {place}, {doing}",
        ],
        ["同一个{noun}在{place}，{doing}", "让这个{noun}出现在{place}，{doing}"],
    ),
    "character_view": _t(
        ["show {who} from the {view}", "turn {who} so that we see the {view}"],
        ["展示{who}的{view}", "让{who}转身露出{view}"],
    ),
    "character_sheet": _t(
        [
            "create a character sheet of {who} with front, side and back views",
            "three-view turnaround of the same character",
        ],
        ["生成这个角色的三视图：正面、侧面、背面", "画出{who}的正面、侧面和背面"],
    ),
    "style_reference": _t(
        [
            "using this style, {caption}",
            "{caption}, in the same style as this image",
            "in the style of this picture: {caption}",
        ],
        ["用这张图的风格画：{caption}", "以相同的风格画：{caption}"],
    ),
    "clothes_from": _t(
        [
            "let {who} wear the clothes of image 2",
            "dress {who} of image 1 in the outfit from image 2",
            "put the clothes from image 2 on {who} in image 1",
            "{who} in image 1 should wear what is worn in image 2",
        ],
        ["让{who}穿上图2中的衣服", "把图2的衣服穿到图1的{who}身上", "给图1里的{who}换上图2的服装"],
    ),
    "style_from": _t(
        [
            "paint image 1 in the style of image 2",
            "give image 1 the look of image 2",
            "apply the style of image 2 to image 1",
            "redraw image 1 so that it matches the style of image 2",
        ],
        ["用图2的风格画图1", "把图1变成图2的画风", "将图2的风格用到图1上"],
    ),
    "person_from": _t(
        [
            "put {other} of image 2 into image 1, {spot}",
            "add {other} from image 2 {spot} of image 1",
            "{other} from image 2 should be {spot} in image 1",
        ],
        [
            "把图2里的{other}放到图1的{spot}",
            "在图1的{spot}加上图2中的{other}",
            "让图2的{other}出现在图1的{spot}",
        ],
    ),
    "background_from": _t(
        [
            "give image 1 the background of image 2",
            "replace the background of image 1 with the one of image 2",
            "put {who} of image 1 in front of the background of image 2",
        ],
        ["把图1的背景换成图2的背景", "让图1的{who}出现在图2的背景中", "图1用图2的背景"],
    ),
    "object_from": _t(
        [
            "put {thing} of image 2 into image 1, {spot}",
            "add {thing} from image 2 {spot}",
            "copy {thing} of image 2 to image 1, {spot}",
        ],
        ["把图2里的{thing}放到图1的{spot}", "在图1的{spot}加上图2中的{thing}"],
    ),
    "generate": _t(["{caption}", "draw {caption}"], ["{caption}", "画{caption}"]),
    "generate/style": _t(
        ["{caption}, as {style}", "{style}: {caption}"], ["{caption}，{style}", "{style}：{caption}"]
    ),
    "foreign_banner": _t(
        ["add a red banner that says '{word}'", "put a red banner with the word '{word}' at the top"],
        ["加一条写着“{word}”的红色横幅", "在顶部放一条红色横幅，写上“{word}”"],
    ),
    "foreign_background": _t(
        ["make the background plain {color}", "replace the background with plain {color}"],
        ["把背景改成纯{color}", "将背景替换为纯{color}"],
    ),
    "foreign_add": _t(
        ["add {thing} in the {corner} corner", "put {thing} in the {corner} corner"],
        ["在{corner}添加{thing}", "在{corner}放上{thing}"],
    ),
}


PARAPHRASED = 0.5  # of the sentences of training
_FREELY_NOTHING = 0.5  # of training's requests for no change are worded by the grammar ...
_OUT_OF_REACH = 0.2  # ... and so many ask for what the world does not have


def sentence(r: random.Random, variant: str, slots: Slots, split: str = "test") -> Words:
    """An instruction in English and Chinese, as it is said in a split."""
    templates: tuple[tuple[str, ...], ...] = (HELD_OUT if split == "phrasing" else TEMPLATES)[variant]
    if split == "train" and r.random() < PARAPHRASED:
        templates = PARAPHRASES[variant]
    english, chinese = (
        r.choice(choices).format_map({name: words[language] for name, words in slots.items()})
        for language, choices in enumerate(templates)
    )
    return capitalized(english), chinese


def request(r: random.Random, variant: str, slots: Slots, split: str = "test") -> Words:
    """A sentence as a whole request, which training rewords as many people would (`grammar.py`)."""
    words = sentence(r, variant, slots, split)
    if split != "train":
        return words
    chance = r.random() if variant == "nothing" else 1.0
    if chance < _OUT_OF_REACH:
        words = out_of_reach(r)
    elif chance < _OUT_OF_REACH + _FREELY_NOTHING:
        words = nothing(r)
    english, chinese = worded(r, *_inside(words))
    return capitalized(english), chinese


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def joined(r: random.Random, first: Words, second: Words, split: str = "test") -> Words:
    """Two instructions as one."""
    parts = {"first": _inside(first), "second": _inside(second)}
    return sentence(r, "compound", parts, split)


def _inside(words: Words) -> Words:
    """An instruction as it is written inside a sentence."""
    english, chinese = words
    return (english if re.match(r"I\b", english) else english[0].lower() + english[1:]), chinese


# ---- captions --------------------------------------------------------------------------------------------
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
    """ "on a beach at sunset": place, time, season and weather."""
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
