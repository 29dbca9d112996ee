"""Named colors of the world, and arithmetic on hex colors and on the colors of a drawing."""

import colorsys
import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .raster import rasterize


class Color(NamedTuple):
    """A color with its names."""

    hex: str
    english: str
    chinese: str

    @property
    def words(self) -> tuple[str, str]:
        return self.english, self.chinese


COLORS = {
    "red": Color("#e8483f", "red", "红色"),
    "orange": Color("#f58b2e", "orange", "橙色"),
    "yellow": Color("#f9cf3a", "yellow", "黄色"),
    "green": Color("#3fae5a", "green", "绿色"),
    "blue": Color("#3b7fe0", "blue", "蓝色"),
    "purple": Color("#8b55cc", "purple", "紫色"),
    "pink": Color("#f58ab4", "pink", "粉色"),
    "black": Color("#34313a", "black", "黑色"),
    "white": Color("#f6f3ee", "white", "白色"),
    "teal": Color("#2ea8a0", "teal", "青色"),
    "brown": Color("#8a5a3a", "brown", "棕色"),
    "gray": Color("#9aa0a8", "gray", "灰色"),
}
HAIR_COLORS = {
    "black": Color("#2b2730", "black", "黑色"),
    "brown": Color("#7a4a2b", "brown", "棕色"),
    "blond": Color("#f2c75c", "blond", "金色"),
    "red": Color("#d2482e", "red", "红色"),
    "gray": Color("#b9bcc4", "gray", "灰色"),
    "blue": Color("#4a86e8", "blue", "蓝色"),
    "pink": Color("#f285b5", "pink", "粉色"),
    "green": Color("#4fb46a", "green", "绿色"),
    "purple": Color("#8e5fd0", "purple", "紫色"),
}
SKINS = ("#ffdfc4", "#f3c09a", "#dfa070", "#b97a4b", "#8a5534", "#64402c")
CLOTH_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "teal", "white", "gray")
HAT_COLORS = CLOTH_COLORS[:8]
OBJECT_COLORS = ("red", "yellow", "green", "blue", "purple", "pink", "orange")
WALL_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "teal", "gray", "white")


def channels(color: str) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of `#rrggbb` or `#rgb`."""
    digits = color[1:]
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def hex_color(values: Iterable[float]) -> str:
    """`#rrggbb` of three channels (0 to 255)."""
    return "#" + "".join(f"{int(value):02x}" for value in values)


@functools.lru_cache(maxsize=4000)
def shade(color: str, factor: float) -> str:
    """Darker below 1 (toward black at 0), lighter above 1 (toward white at 2)."""
    if factor <= 1:
        return hex_color(value * factor for value in channels(color))
    return hex_color(255 - (255 - value) * (2 - factor) for value in channels(color))


@functools.lru_cache(maxsize=4000)
def mix(a: str, b: str, amount: float) -> str:
    """From `a` (amount 0) to `b` (amount 1)."""
    return hex_color(x + (y - x) * amount for x, y in zip(channels(a), channels(b)))


def wall_hex(name: str) -> str:
    """The pale form of a color that plain backgrounds have."""
    return COLORS[name].hex if name in ("white", "gray") else shade(COLORS[name].hex, 1.45)


_HEX = re.compile(r"#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")


@functools.lru_cache(maxsize=2000)
def main_hue(svg: str) -> float | None:
    """The hue (0 to 1) that covers most of the area of a drawing; None where there is hardly any color."""
    picture = rasterize(svg, 40, 40)
    drawn = np.asarray(picture.getchannel("A")) > 128
    hsv = np.asarray(picture.convert("RGB").convert("HSV"), np.float32)[drawn] / 255
    hues = hsv[(hsv[:, 1] > 0.2) & (hsv[:, 2] > 0.25), 0]
    if len(hues) < 20:
        return None
    histogram = np.bincount((hues * 48).astype(int) % 48, minlength=48).astype(float)
    smooth = sum(np.roll(histogram, shift) for shift in (-2, -1, 0, 1, 2))
    return (int(np.argmax(smooth)) + 0.5) / 48


def recolored(svg: str, name: str) -> str:
    """A flat drawing with its main hue turned into a named color; light and dark parts stay so."""
    main = main_hue(svg)
    if main is None:
        return svg
    hue, light, saturation = colorsys.rgb_to_hls(*(value / 255 for value in channels(COLORS[name].hex)))

    def replace(match: re.Match) -> str:
        h, lightness, s = colorsys.rgb_to_hls(*(value / 255 for value in channels(match.group(0))))
        distance = min(abs(h - main), 1 - abs(h - main))
        if s <= 0.25 or distance >= 0.13:
            return match.group(0)
        lightness = min(0.92, max(0.12, light + (lightness - 0.55) * 0.75))
        return hex_color(value * 255 for value in colorsys.hls_to_rgb(hue, lightness, saturation))

    return _HEX.sub(replace, svg)
