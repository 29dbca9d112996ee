"""Out-of-domain pictures: random shapes, scattered icons and other avatars on all sorts of grounds.

They stand for pictures that users upload. Edits on them require no scene knowledge, only the picture.

    base     kind ("flat", "gradient", "stripes", "checks") and colors
    items    name, color, size, x, y, turn, and kind: "shape", "icon", "avatar" (with `variants` and `colors`)
             or "object" (a concept of objects.py that an edit brought in)
    banner   a word on a banner across the top, or None
    weather  rain, snowfall or None
    color    a plain background that replaced the base, or None
"""

import math
import random
from typing import Any

from PIL import Image, ImageDraw

from .art import pack
from .avatars import avatar_svg
from .backgrounds import weather_layer
from .colors import COLORS, WALL_COLORS, hex_color, wall_hex
from .objects import object_layer
from .raster import SIZE, layer, paste, svg_document
from .signs import NEW_WORD_FONT, draw_sign

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "hexagon", "cross", "moon", "diamond")
SHAPE_COLORS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "teal",
    "black",
    "white",
    "brown",
)
AVATARS = ("lorelei", "pixel-art", "moods", "cutouts", "clay", "sprouts", "thumbs")
_AVATAR_SPOTS = ([(128, 168)], [(70, 176), (188, 176)])
_BASES = ("flat", "gradient", "gradient", "stripes", "checks")
_SPOTS = [(x, y) for y in (108, 190) for x in (46, 128, 210)]


def _polygon(corners: int, inner: float, turn: float = 0) -> str:
    points = []
    for index in range(corners * (2 if inner < 1 else 1)):
        radius = 46 * (inner if inner < 1 and index % 2 else 1)
        angle = turn + index * math.tau / (corners * (2 if inner < 1 else 1)) - math.pi / 2
        points.append(f"{50 + radius * math.cos(angle):.1f},{50 + radius * math.sin(angle):.1f}")
    return "M" + " L".join(points) + "Z"


_OUTLINES = {
    "square": "M12,12 H88 V88 H12Z",
    "triangle": _polygon(3, 1),
    "star": _polygon(5, 0.45),
    "heart": "M50,90 C10,58 4,40 10,26 C18,8 42,10 50,30 C58,10 82,8 90,26 C96,40 90,58 50,90Z",
    "hexagon": _polygon(6, 1),
    "cross": "M36,6 H64 V36 H94 V64 H64 V94 H36 V64 H6 V36 H36Z",
    "moon": "M66,6 A46,46 0 1 0 66,94 A36,36 0 1 1 66,6Z",
    "diamond": "M50,4 L84,50 L50,96 L16,50Z",
}


def _shape_svg(item: dict[str, Any]) -> str:
    color = COLORS[item["color"]].hex
    if item["name"] == "circle":
        body = f'<circle cx="50" cy="50" r="44" fill="{color}"/>'
    elif item["name"] == "ring":
        body = f'<circle cx="50" cy="50" r="34" fill="none" stroke="{color}" stroke-width="20"/>'
    else:
        body = f'<path d="{_OUTLINES[item["name"]]}" fill="{color}"/>'
    return svg_document(f'<g transform="rotate({item["turn"]} 50 50)">{body}</g>', 100, 100)


def _icon_svg(item: dict[str, Any]) -> str:
    width, height, body = pack()["icons"][item["name"]]
    return svg_document(body, width, height)


def _avatar_svg(item: dict[str, Any]) -> str:
    canvas = pack()["styles"][item["name"]]["canvas"]
    body = avatar_svg(item["name"], item["variants"], item["colors"])
    return svg_document(body, canvas["width"], canvas["height"])


_SVG = {"shape": _shape_svg, "icon": _icon_svg, "avatar": _avatar_svg}


def _sample_avatar(r: random.Random) -> dict[str, Any]:
    """An avatar of any style: one variant per component, different colors where there are several."""
    name = r.choice(AVATARS)
    style = pack()["styles"][name]
    variants = {}
    for component, about in style["components"].items():
        if component != "animation" and r.random() * 100 < about.get("probability", 100):
            variants[component] = r.choice(sorted(about["variants"]))
    colors: dict[str, str] = {}
    for slot, about in sorted(style["colors"].items()):
        free = [color for color in about["values"] if color not in colors.values()]
        colors[slot] = r.choice(free or about["values"])
    return {"kind": "avatar", "name": name, "color": None, "turn": 0, "variants": variants, "colors": colors}


def sample_out_of_domain(r: random.Random, words: tuple[str, ...], banner: bool) -> dict[str, Any]:
    """A random out-of-domain picture; `banner` puts one of `words` across the top."""
    colors = r.sample(
        [COLORS[name].hex for name in SHAPE_COLORS] + [wall_hex(name) for name in WALL_COLORS], 2
    )
    if r.random() < 0.4:
        colors = [hex_color(r.randrange(256) for _ in range(3)) for _ in range(2)]
    content = r.choices(["shape", "icon", "avatar"], [4, 4, 3])[0]
    items: list[dict[str, Any]] = []
    if content == "avatar":
        spots = list(r.choice(_AVATAR_SPOTS))
        size = (170, 170) if len(spots) == 1 else (96, 120)
    else:
        spots, size = r.sample(_SPOTS, r.randint(2, 5)), (48, 84)
    for x, y in spots:
        if content == "avatar":
            item = _sample_avatar(r)
        elif content == "icon":
            item = {"kind": "icon", "name": r.choice(sorted(pack()["icons"])), "color": None, "turn": 0}
        else:
            item = {"kind": "shape", "name": r.choice(SHAPES), "color": r.choice(SHAPE_COLORS)}
            item["turn"] = r.randrange(0, 360, 15)
        place = {"x": x + r.randint(-8, 8), "y": y + r.randint(-8, 8), "size": r.randint(*size)}
        items.append({**item, **place})
    return {
        "base": {"kind": r.choice(_BASES), "colors": colors},
        "items": items,
        "banner": r.choice(words) if banner else None,
        "weather": None,
        "color": None,
    }


def item_box(item: dict[str, Any]) -> tuple[int, int, int, int]:
    """The square that an item lies in: left, top, right, bottom."""
    half = item["size"] // 2
    return item["x"] - half, item["y"] - half, item["x"] + half, item["y"] + half


def _draw_base(picture: dict[str, Any]) -> Image.Image:
    if picture["color"]:
        return Image.new("RGB", (SIZE, SIZE), wall_hex(picture["color"]))
    kind, (first, second) = picture["base"]["kind"], picture["base"]["colors"]
    canvas = Image.new("RGB", (SIZE, SIZE), first)
    if kind == "gradient":
        ramp = Image.linear_gradient("L").resize((SIZE, SIZE))
        canvas.paste(second, (0, 0, SIZE, SIZE), ramp)
    draw = ImageDraw.Draw(canvas)
    if kind == "stripes":
        for x in range(0, SIZE, 64):
            draw.rectangle((x, 0, x + 31, SIZE), fill=second)
    if kind == "checks":
        for index in range(64):
            x, y = index % 8 * 32, index // 8 * 32
            if (index + index // 8) % 2:
                draw.rectangle((x, y, x + 31, y + 31), fill=second)
    return canvas


def draw_out_of_domain(picture: dict[str, Any]) -> Image.Image:
    """An out-of-domain picture (RGB), without style and red box."""
    canvas = _draw_base(picture)
    for item in picture["items"]:
        size = item["size"]
        if item["kind"] == "object":
            drawing = object_layer("flat", item["name"], size, item["color"])
        else:
            drawing = layer(_SVG[item["kind"]](item), size, size)
        paste(canvas, drawing, item["x"] - size // 2, item["y"] - size // 2)
    if picture["banner"]:
        draw_sign(canvas, banner_sign(picture["banner"]), None)
    if picture["weather"]:
        paste(canvas, weather_layer(picture["weather"]), 0, 0)
    return canvas


def banner_sign(word: str) -> dict[str, Any]:
    """The fixed look of a banner on an out-of-domain picture."""
    return {
        "kind": "banner",
        "word": word,
        "font": NEW_WORD_FONT,
        "color": "red",
        "ink": "white",
        "x": 128,
        "flip": False,
    }
