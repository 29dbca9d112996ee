"""Places: our own drawings of fourteen backgrounds, each in eight fixed layouts.

Outdoor places have times of day, some have seasons, plain ones have a color. An edit always draws layout 0
("put it on a beach" has one exact answer); starting pictures may have any layout.
"""

import functools
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from PIL import Image

from ..seeds import generator
from .colors import COLORS, mix, shade, wall_hex
from .raster import SIZE, Layer, Tint, cropped, rasterize, svg_document

LAYOUTS = 8
TIMES = ("day", "night", "sunset")
SEASONS = ("spring", "summer", "autumn", "winter")
WEATHERS = ("rain", "snowfall")

_SKY = {"day": ("#8fd3f7", "#e3f6ff"), "night": ("#14204d", "#34447f"), "sunset": ("#f7845d", "#ffd890")}
_LEAF = {"spring": "#f7a8c4", "summer": "#3f9e57", "autumn": "#e58a2e", "winter": "#e8f1f8"}
_GRASS = {"spring": "#8fd06a", "summer": "#6fbf5a", "autumn": "#d3a94f", "winter": "#f3f8fc"}

Number = float | str  # as it is written into the SVG


class Scenery(NamedTuple):
    """Inputs of a place's drawing: generator (layout), time, season and color."""

    r: random.Random
    time: str
    season: str
    color: str | None

    def light(self, color: str, strength: float = 0.42) -> str:
        """A color of daylight as it looks at this time; `strength` is what night leaves of it."""
        if self.time == "night":
            return mix(shade(color, strength), "#1c2c66", 0.42)
        if self.time == "sunset":
            return mix(shade(color, 0.92), "#d9603a", 0.22)
        return color


def _rect(x: Number, y: Number, width: Number, height: Number, fill: str, extra: str = "") -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{extra}/>'


def _circle(x: float, y: float, radius: Number, fill: str, extra: str = "") -> str:
    return f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{radius}" fill="{fill}"{extra}/>'


def _path(d: str, fill: str, extra: str = "") -> str:
    return f'<path d="{d}" fill="{fill}"{extra}/>'


def _stroke(d: str, color: str, width: float, extra: str = "") -> str:
    return f'<path d="{d}" stroke="{color}" stroke-width="{width}" fill="none"{extra}/>'


def _cover(color: str) -> str:
    return _rect(0, 0, SIZE, SIZE, color)


def _gradient(top: str, bottom: str, height: int) -> str:
    return (
        f'<defs><linearGradient id="fade" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{top}"/>'
        f'<stop offset="1" stop-color="{bottom}"/></linearGradient></defs>'
    ) + _rect(0, 0, SIZE, height, "url(#fade)")


def _sky(s: Scenery, horizon: int) -> str:
    r, (top, bottom) = s.r, _SKY[s.time]
    body = _gradient(top, bottom, horizon)
    x = 46 if r.choice([0, 1]) else 210
    if s.time == "night":
        for _ in range(26):
            star_x, star_y = r.uniform(0, 256), r.uniform(0, horizon * 0.75)
            body += _circle(star_x, star_y, r.choice([1.2, 1.6, 2.2]), "#fff6d0")
        return body + _circle(x, 42, 19, "#fff3c4") + _circle(x + 9, 36, 17, top)
    if s.time == "day":
        body += _circle(x, 40, 30, "#fff3b0", ' opacity=".6"') + _circle(x, 40, 20, "#ffe066")
    else:
        body += _circle(x, horizon * 0.72, 30, "#fff0b5")
    white = "#ffffff" if s.time == "day" else "#ffe9d2"
    for _ in range(r.choice([2, 3])):
        cx, cy = r.uniform(10, 246), r.uniform(20, 80)
        body += (
            f'<g fill="{white}" opacity=".9"><ellipse cx="{cx:.0f}" cy="{cy:.0f}" rx="24" ry="9"/>'
            f'<circle cx="{cx - 8:.0f}" cy="{cy - 6:.0f}" r="9"/>'
            f'<circle cx="{cx + 7:.0f}" cy="{cy - 8:.0f}" r="11"/></g>'
        )
    return body


def _hill(r: random.Random, y: float, height: float, fill: str) -> str:
    points = [(x, y + r.uniform(-height, height)) for x in range(-32, 321, 64)]
    d = f"M{points[0][0]},{points[0][1]:.0f}"
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        d += f" C{x0 + 32},{y0:.0f} {x1 - 32},{y1:.0f} {x1},{y1:.0f}"
    return _path(f"{d} L320,256 L-32,256Z", fill)


def _tree(x: float, y: float, height: float, crown: str, trunk: str, pointed: bool) -> str:
    h, w = height, height * 0.42
    body = _rect(f"{x - h * 0.06:.0f}", f"{y - h * 0.4:.0f}", f"{h * 0.12:.0f}", f"{h * 0.42:.0f}", trunk)
    if pointed:
        for tier in range(3):
            base, half = y - h * (0.25 + 0.25 * tier), w * (1 - 0.22 * tier)
            d = f"M{x - half:.0f},{base:.0f} L{x:.0f},{base - h * 0.36:.0f} L{x + half:.0f},{base:.0f}Z"
            body += _path(d, shade(crown, 1 - 0.06 * (2 - tier)))
        return body
    body += _circle(x, y - h * 0.66, f"{h * 0.3:.0f}", crown)
    body += _circle(x - h * 0.2, y - h * 0.52, f"{h * 0.2:.0f}", crown)
    return body + _circle(x + h * 0.2, y - h * 0.52, f"{h * 0.2:.0f}", shade(crown, 0.93))


def _wall(s: Scenery) -> str:
    return wall_hex(s.color or "white")


def _plain(s: Scenery) -> str:
    return _cover(_wall(s))


def _dots(s: Scenery) -> str:
    wall = _wall(s)
    dot = shade(wall, 0.9 if s.color == "white" else 1.5)
    dots = ((i * 42 + (21 if j % 2 else 0), j * 42 + 8) for j in range(7) for i in range(7))
    return _cover(wall) + "".join(_circle(x, y, 11, dot) for x, y in dots)


def _beach(s: Scenery) -> str:
    r, light = s.r, s.light
    body = _sky(s, 150) + _rect(0, 120, 256, 80, light("#3fb2df"))
    for _ in range(5):
        x, y = r.uniform(-10, 230), r.uniform(126, 160)
        wave = f"M{x:.0f},{y:.0f} q9,-6 18,0 q9,6 18,0"
        body += _stroke(wave, light("#a5e0f5", 0.6), 3, ' stroke-linecap="round"')
    body += _path("M0,172 Q64,158 128,170 T256,164 V256 H0Z", light("#e9fbff", 0.6))
    body += _path("M0,178 Q64,164 128,176 T256,170 V256 H0Z", light("#f6dda0", 0.5))
    for _ in range(12):
        body += _circle(r.uniform(0, 256), r.uniform(190, 252), 2, light("#dcba74", 0.5))
    if r.random() < 0.6:
        x = r.choice([18, 238])
        lean = 14 if x < 128 else -14
        top = x + lean
        body += _stroke(f"M{x},200 Q{x + lean * 0.2:.0f},140 {top},96", light("#9a6b3f"), 9)
        for angle in (-150, -115, -80, -40, -10, 25, 160):
            tip_x = top + 44 * math.cos(math.radians(angle))
            tip_y = 96 + 30 * math.sin(math.radians(angle)) + 14
            middle, bend = (top + tip_x) / 2, min(96, tip_y)
            d = f"M{top},96 Q{middle:.0f},{bend - 14:.0f} {tip_x:.0f},{tip_y:.0f} "
            body += _path(f"{d}Q{middle:.0f},{bend + 2:.0f} {top},96Z", light("#3aa35a"))
    return body


def _forest(s: Scenery) -> str:
    r, light, leaf, trunk = s.r, s.light, _LEAF[s.season], s.light("#7b5536")
    body = _sky(s, 200) + _hill(r, 128, 8, light(shade(leaf, 0.88 if s.season == "winter" else 0.8)))
    pointed = r.choice([True, False])
    for i in range(9):
        x, y, height = i * 32 + r.uniform(-8, 8), 176 + r.uniform(-8, 4), r.uniform(92, 120)
        body += _tree(x, y, height, light(shade(leaf, round(r.uniform(0.82, 1.02), 3))), trunk, pointed)
    body += _hill(r, 182, 4, light(_GRASS[s.season]))
    for x in (r.uniform(0, 26), r.uniform(232, 256)):
        body += _tree(x, 236, 150, light(leaf), trunk, pointed)
    return body


def _meadow(s: Scenery) -> str:
    r, light, grass = s.r, s.light, _GRASS[s.season]
    body = _sky(s, 200)
    for level, rise, tone in ((140, 14, 0.86), (172, 12, 0.93), (196, 5, 1.0)):
        body += _hill(r, level, rise, light(shade(grass, tone)))
    for _ in range(3):
        x = r.choice([r.uniform(8, 70), r.uniform(190, 250)])
        y, height = r.uniform(160, 176), r.uniform(42, 58)
        body += _tree(x, y, height, light(_LEAF[s.season]), light("#7b5536"), False)
    if s.season in ("spring", "summer"):
        for _ in range(18):
            x, y = r.uniform(0, 256), r.uniform(204, 252)
            body += _circle(x, y, 3.4, light(r.choice(["#ffffff", "#ffe066", "#ff9fb8"]), 0.6))
    return body


def _city(s: Scenery) -> str:
    r, light = s.r, s.light
    body = _sky(s, 210)
    x = -10
    while x < 256:
        width, height = r.choice([34, 44, 54]), round(r.uniform(70, 150))
        wall = r.choice(["#f2a57c", "#e9c46a", "#8ab6d6", "#c79bd1", "#9ccbb4", "#d98880"])
        body += _rect(x, 208 - height, width, height, light(wall, 0.36))
        for wy in range(218 - height, 196, 20):
            for wx in range(x + 7, x + width - 8, 13):
                lit = r.random() < 0.6
                night = "#ffe27a" if lit else "#27315c"
                body += _rect(wx, wy, 7, 10, night if s.time == "night" else "#fdf6e3")
        x += width + 3
    body += _rect(0, 206, 256, 50, light("#8d939c", 0.4)) + _rect(0, 204, 256, 6, light("#c9ced6", 0.5))
    return body + "".join(_rect(x + 10, 230, 28, 5, light("#f5f1e3", 0.7)) for x in range(0, 256, 52))


def _mountains(s: Scenery) -> str:
    r, light = s.r, s.light
    body = _sky(s, 220)
    for base, rock in ((150, "#9db3d8"), (176, "#7c93bf")):
        for i in range(3):
            x, h, w = i * 100 + r.uniform(-30, 30), r.uniform(78, 118), r.uniform(70, 92)
            top = base - h
            body += _path(
                f"M{x - w:.0f},{base + 30} L{x:.0f},{top:.0f} L{x + w:.0f},{base + 30}Z", light(rock)
            )
            edge = top + (h + 30) * 0.25
            cap = f"M{x - w * 0.25:.0f},{edge:.0f} L{x:.0f},{top:.0f} L{x + w * 0.25:.0f},{edge:.0f} "
            cap += f"l{-w * 0.12:.0f},-5 l{-w * 0.13:.0f},8 l{-w * 0.12:.0f},-8Z"
            body += _path(cap, light("#ffffff", 0.7))
    return body + _hill(r, 188, 8, light("#74b36c")) + _hill(r, 208, 6, light("#8bc777"))


def _desert(s: Scenery) -> str:
    r, light = s.r, s.light
    body = _sky(s, 200)
    for level, rise, sand in ((150, 16, "#efc27a"), (178, 12, "#e5ac5c"), (206, 6, "#f3cf8e")):
        body += _hill(r, level, rise, light(sand))
    for x in r.sample([22, 60, 196, 234], 2):
        y = r.uniform(186, 206)
        body += (
            f'<g stroke="{light("#4f9a5b")}" stroke-width="13" fill="none" stroke-linecap="round">'
            f'<path d="M{x},{y:.0f} v-58"/><path d="M{x},{y - 20:.0f} h-17 v-18" stroke-width="9"/>'
            f'<path d="M{x},{y - 30:.0f} h17 v-16" stroke-width="9"/></g>'
        )
    return body


def _snow(s: Scenery) -> str:
    r, light = s.r, s.light
    body = _sky(s, 200) + _hill(r, 150, 12, light("#d5e6f3", 0.5))
    for i in range(6):
        x, height = i * 48 + r.uniform(-10, 10), r.uniform(52, 76)
        body += _tree(x, 176, height, light("#7fb0a4"), light("#7b5536"), True)
    body += _hill(r, 180, 8, light("#eaf3fa", 0.55)) + _hill(r, 208, 6, light("#ffffff", 0.6))
    for _ in range(34):
        body += _circle(r.uniform(0, 256), r.uniform(0, 256), r.choice([1.8, 2.6]), "#fff")
    return body


def _space(s: Scenery) -> str:
    r = s.r
    body = _cover("#1a1440") + '<ellipse cx="90" cy="120" rx="150" ry="60" fill="#3a2a78" opacity=".5" '
    body += 'transform="rotate(-24 90 120)"/>'
    for _ in range(60):
        x, y, radius = r.uniform(0, 256), r.uniform(0, 256), r.choice([1, 1.4, 2.2])
        body += _circle(x, y, radius, r.choice(["#fff", "#ffe9a8", "#bfe0ff"]))
    planet = r.choice(["#f2a65a", "#6cc3d5", "#d77fa1", "#9ad17b"])
    x, y = r.choice([(44, 54), (212, 50)])
    body += _circle(x, y, 28, planet)
    body += _path(f"M{x - 26},{y + 8} a28,28 0 0 0 52,0 q-26,14 -52,0", shade(planet, 0.8))
    body += f'<ellipse cx="{x}" cy="{y}" rx="44" ry="10" fill="none" stroke="#f6e3b4" stroke-width="5" '
    body += f'transform="rotate(-18 {x} {y})"/>'
    return body + _hill(r, 226, 8, "#8f86b8")


def _sea(s: Scenery) -> str:
    r = s.r
    body = _gradient("#58c6e8", "#1a5fa8", 256)
    for i in range(4):
        x = i * 70 + r.uniform(-20, 20)
        beam = f"M{x:.0f},0 L{x + 26:.0f},0 L{x - 24:.0f},256 L{x - 74:.0f},256Z"
        body += _path(beam, "#fff", ' opacity=".09"')
    body += _hill(r, 220, 8, "#e2cd94")
    for x in r.sample([12, 34, 58, 200, 224, 246], 4):
        weed = r.choice(["#e5706f", "#3c9e6b", "#f0a04b", "#b06fc0"])
        body += _stroke(f"M{x},236 q-10,-24 2,-44 q12,-22 0,-46", weed, 9, ' stroke-linecap="round"')
    for _ in range(12):
        x, y, radius = r.uniform(0, 256), r.uniform(0, 200), round(r.uniform(3, 7))
        body += _circle(x, y, radius, "none", ' stroke="#d9f4ff" stroke-width="2"')
    return body


def _room(s: Scenery) -> str:
    r, night = s.r, s.time == "night"
    wall = r.choice(["#f4d9b8", "#cfe3d4", "#f3c9c9", "#cdd7ee", "#eadcf2"])
    x = r.choice([18, 158])

    def light(color: str) -> str:
        return shade(color, 0.6) if night else color

    frame = light("#fff8ee")
    body = _cover(light(wall)) + "".join(
        _rect(i * 34, 0, 12, 200, light(shade(wall, 0.96))) for i in range(8)
    )
    body += _rect(0, 196, 256, 60, light("#b9814f")) + _rect(0, 190, 256, 8, light("#fff6ea"))
    body += _rect(x, 30, 80, 90, frame) + _rect(x + 7, 37, 66, 76, _SKY[s.time][0])
    if night:
        body += _circle(x + 52, 58, 10, "#fff3c4")
        body += "".join(_circle(x + 12 + i * 9, 48 + (i * 17) % 50, 1.5, "#fff") for i in range(6))
    else:
        body += _rect(x + 7, 88, 66, 25, "#8fce7a")
    body += _rect(x + 37, 37, 6, 76, frame) + _rect(x + 7, 72, 66, 6, frame)
    lamp = 196 if x < 100 else 30
    body += _path(f"M{lamp - 16},86 L{lamp + 16},86 L{lamp + 24},116 L{lamp - 24},116Z", "#ffe9a0")
    body += _rect(lamp - 3, 116, 6, 92, light("#6d5a4a"))
    body += f'<ellipse cx="{lamp}" cy="210" rx="18" ry="5" fill="{light("#6d5a4a")}"/>'
    rug = light(r.choice(["#d9655f", "#5f8fd9", "#7fb77e"]))
    return body + f'<ellipse cx="128" cy="240" rx="110" ry="18" fill="{rug}"/>'


def _stage(s: Scenery) -> str:
    body = _cover("#4a2140") + _path("M100,0 L156,0 L236,216 L20,216Z", "#fff2c8", ' opacity=".28"')
    body += _rect(0, 208, 256, 48, "#c08552")
    body += "".join(_stroke(f"M{i * 32},208 l{(i - 4) * 8},48", "#9c683d", 2) for i in range(1, 8))
    for x in (0, 24, 204, 228):
        curtain = "#c93c46" if x in (0, 228) else "#dd5058"
        body += _path(f"M{x},0 h28 q-6,110 0,214 h-28 q6,-110 0,-214Z", curtain)
    return body + "".join(_path(f"M{x},0 h64 v14 q-32,34 -64,0Z", "#b7323d") for x in range(0, 256, 64))


def _library(s: Scenery) -> str:
    r = s.r
    body = _cover("#7a4f32")
    for y in range(0, 208, 52):
        body += _rect(6, y + 6, 244, 42, "#56351f")
        x = 10
        while x < 240:
            width, height = r.choice([8, 10, 13]), round(r.uniform(28, 38))
            book = r.choice(["#d8574f", "#e8b04b", "#4f8fc0", "#6aa870", "#b88ac0", "#efe0c2"])
            body += _rect(x, y + 48 - height, width, height, book)
            x += width + r.choice([1, 1, 6])
    return body + _rect(0, 212, 256, 44, "#a8713f")


class Place(NamedTuple):
    """A kind of background: words ({color} is filled), prepositions, what varies, and its drawing."""

    english: str
    chinese: str
    on: str  # English preposition
    upon: str  # Chinese word after the place
    times: tuple[str, ...]
    seasons: bool
    colored: bool
    draw: Callable[[Scenery], str]


_INDOORS = ("day", "night")
PLACES = {
    "plain": Place("a plain {color} background", "纯{color}背景", "on", "上", (), False, True, _plain),
    "dots": Place("a {color} polka dot background", "{color}波点背景", "on", "上", (), False, True, _dots),
    "beach": Place("a beach", "海滩", "on", "上", TIMES, False, False, _beach),
    "forest": Place("a forest", "森林", "in", "里", TIMES, True, False, _forest),
    "meadow": Place("a meadow", "草地", "on", "上", TIMES, True, False, _meadow),
    "city": Place("a city street", "城市街道", "on", "上", TIMES, False, False, _city),
    "mountains": Place("the mountains", "雪山", "in", "间", TIMES, False, False, _mountains),
    "desert": Place("a desert", "沙漠", "in", "里", TIMES, False, False, _desert),
    "snow": Place("a snowy field", "雪地", "on", "上", TIMES, False, False, _snow),
    "space": Place("outer space", "太空", "in", "里", (), False, False, _space),
    "sea": Place("the bottom of the sea", "海底", "at", "", (), False, False, _sea),
    "room": Place("a living room", "客厅", "in", "里", _INDOORS, False, False, _room),
    "stage": Place("a theater stage", "舞台", "on", "上", (), False, False, _stage),
    "library": Place("a library", "图书馆", "in", "里", (), False, False, _library),
}


def outdoors(place: str) -> bool:
    """Whether the sky of a place can be seen, so that weather makes sense."""
    return PLACES[place].times == TIMES


@functools.lru_cache(maxsize=600)
def _picture(place: str, layout: int, time: str, season: str, color: str | None) -> Image.Image:
    scenery = Scenery(generator("background", place, layout), time, season, color)
    return rasterize(svg_document(PLACES[place].draw(scenery), SIZE, SIZE), SIZE, SIZE).convert("RGB")


def background_picture(background: dict[str, Any]) -> Image.Image:
    """The empty background (RGB, not to be changed in place), without weather."""
    b = background
    return _picture(b["place"], b["layout"], b["time"] or "day", b["season"] or "summer", b["color"])


def tint_of(background: dict[str, Any]) -> Tint:
    """The tint of the place's light on things in it."""
    place, time = background["place"], background["time"]
    if place == "sea":
        return (0.88, 0.96, 1.0)
    if place == "room":
        return (0.80, 0.78, 0.86) if time == "night" else None
    return {"night": (0.68, 0.70, 0.94), "sunset": (1.0, 0.88, 0.78)}.get(time)


@functools.lru_cache(maxsize=4)
def weather_layer(kind: str) -> Layer:
    """Falling rain or snow over the whole picture."""
    r = generator("weather", kind)
    if kind == "rain":
        body = _rect(0, 0, SIZE, SIZE, "#4a5f78", ' opacity=".30"')
        for _ in range(95):
            drop = f"M{r.uniform(0, 270):.0f},{r.uniform(-20, 256):.0f} l-7,20"
            body += _stroke(drop, "#dcefff", 2.4, ' stroke-linecap="round" opacity=".85"')
    else:
        flakes = ((r.uniform(0, 256), r.uniform(0, 256), r.choice([2.2, 3, 4])) for _ in range(95))
        body = "".join(_circle(x, y, radius, "#fff") for x, y, radius in flakes)
    return cropped(rasterize(svg_document(body, SIZE, SIZE), SIZE, SIZE))


def place_words(background: dict[str, Any]) -> tuple[str, str]:
    """The place in words: "a plain red background"."""
    place = PLACES[background["place"]]
    if not place.colored:
        return place.english, place.chinese
    color = COLORS[background["color"]]
    english = place.english.format(color=color.english).replace("a orange", "an orange")
    return english, place.chinese.format(color=color.chinese)
