"""Signs with words: boards, banners, posters, neon signs, chalkboards and speech bubbles."""

import functools
import string
from typing import Any, NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ..seeds import generator
from .art import font
from .colors import COLORS, Color, shade
from .raster import INK, Layer, Tint, layer, paste, svg_document

WORDS = tuple(
    """OPEN CAFE PIZZA BOOKS SALE HELLO MUSIC PARTY BEACH HOTEL MILK BREAD TEA COFFEE PARK ZOO BANK
    SHOP STOP EXIT LOVE HOME PEACE DREAM SMILE HAPPY MAGIC OCEAN SUMMER WINTER SPRING FRESH LUCKY
    SUPER STAR MOON SUNNY RAIN SNOW CLOUD TIGER PANDA LEMON APPLE GRAPE MANGO BERRY SUSHI TACO SOUP
    JUICE CANDY CAKE DONUT HONEY ROBOT ROCKET SPACE PLANET GARDEN FLOWER FOREST RIVER ISLAND GAMES
    MOVIE DANCE ROCK JAZZ PIANO GUITAR TOYS GIFTS BIKES CARS TAXI METRO TRAIN NORTH SOUTH EAST WEST
    CLOSED BAKERY MUSEUM SCHOOL MARKET WELCOME TODAY NEWS PLAY BRAVE QUICK JUMP FIVE SEVEN EIGHT
    ZERO VOTE KIWI YOGA OASIS UNITY VIVID XENON WAXY FLUX EDIT""".split()
)
RANDOM_LENGTHS = (3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7, 8)
"""Lengths of random words; those that occur more often here are more frequent."""
NEW_WORD_FONT = "LuckiestGuy"  # a word that an edit writes always looks the same, so its target is determined
SIGN_COLORS = ("red", "blue", "green", "purple", "orange", "teal")
INKS = {
    "wood": Color("#4a2c17", "brown", "棕色"),
    "white": Color("#ffffff", "white", "白色"),
    "signal": Color("#b3261e", "red", "红色"),
    "black": Color("#2e2233", "black", "黑色"),
    "red": Color("#c62f3b", "red", "红色"),
    "blue": Color("#1f5fa8", "blue", "蓝色"),
    "neon pink": Color("#ff5fa2", "pink", "粉色"),
    "neon cyan": Color("#5ff2ff", "cyan", "青色"),
    "neon yellow": Color("#ffe45f", "yellow", "黄色"),
    "neon green": Color("#8dff6b", "green", "绿色"),
    "chalk yellow": Color("#ffe98a", "yellow", "黄色"),
    "chalk blue": Color("#a6e8ff", "blue", "蓝色"),
}


class Sign(NamedTuple):
    """A kind of sign: words, drawing size, center and size of the writing, inks, row where it hangs."""

    english: str
    chinese: str
    size: tuple[int, int]
    center: tuple[int, int]
    writing: tuple[int, int]
    inks: tuple[str, ...]
    y: int
    top: bool  # across the top of the picture rather than next to a character


SIGNS = {
    "board": Sign(
        "wooden sign", "木牌", (128, 150), (64, 36), (108, 50), ("wood", "white", "signal"), 106, False
    ),
    "banner": Sign("banner", "横幅", (248, 62), (124, 30), (196, 38), ("white",), 2, True),
    "poster": Sign("poster", "海报", (128, 92), (64, 44), (104, 50), ("black", "red", "blue"), 30, False),
    "neon": Sign(
        *("neon sign", "霓虹灯牌", (176, 72), (88, 36), (150, 44)),
        *(("neon pink", "neon cyan", "neon yellow", "neon green"), 2, True),
    ),
    "chalk": Sign(
        *("chalkboard", "黑板", (136, 150), (68, 44), (112, 54)),
        *(("white", "chalk yellow", "chalk blue"), 108, False),
    ),
    "bubble": Sign(
        "speech bubble", "对话气泡", (132, 92), (66, 36), (112, 46), ("black", "red", "blue"), 8, False
    ),
}
TOP_SIGNS = tuple(name for name, sign in SIGNS.items() if sign.top)
SIDE_SIGNS = tuple(name for name, sign in SIGNS.items() if not sign.top)


@functools.lru_cache(maxsize=8)
def made_up_words(count: int) -> tuple[str, ...]:
    """Sequences of random letters, all different and none of them a word of `WORDS`; always the same ones."""
    r, words = generator("made-up words"), set(WORDS)
    made_up: list[str] = []
    while len(made_up) < count:
        word = "".join(r.choices(string.ascii_uppercase, k=r.choice(RANDOM_LENGTHS)))
        if word not in words:
            words.add(word)
            made_up.append(word)
    return tuple(made_up)


def _panel(kind: str, color: str) -> str:
    line = f'stroke="{INK}" stroke-width="3.5" stroke-linejoin="round"'
    if kind == "board":
        return (
            f'<rect x="56" y="60" width="16" height="90" fill="#8b5e3a" {line}/>'
            f'<rect x="4" y="4" width="120" height="64" rx="7" fill="#d9a066" {line}/>'
            '<path d="M10,26 h70 M40,48 h76" stroke="#c08a50" stroke-width="3"/>'
        )
    if kind == "banner":
        ends = "M2,14 h40 v44 h-40 l14,-22Z M246,14 h-40 v44 h40 l-14,-22Z"
        return (
            f'<path d="{ends}" fill="{shade(color, 0.75)}" {line}/>'
            f'<path d="M20,4 h208 v50 h-208Z" fill="{color}" {line}/>'
        )
    if kind == "poster":
        return (
            f'<rect x="4" y="6" width="120" height="80" fill="#fffdf5" {line}/>'
            f'<rect x="10" y="12" width="108" height="68" fill="none" stroke="{color}" stroke-width="4"/>'
            f'<circle cx="64" cy="7" r="6" fill="#e8483f" {line}/>'
        )
    if kind == "neon":
        edge = 'stroke="#0f0b1a" stroke-width="4"'
        return f'<rect x="4" y="4" width="168" height="64" rx="14" fill="#221a33" {edge}/>'
    if kind == "chalk":
        return (
            '<path d="M34,84 L14,148 M102,84 L122,148" stroke="#8b5e3a" stroke-width="10"/>'
            '<rect x="4" y="4" width="128" height="82" rx="4" fill="#2f4a40" '
            'stroke="#a8713f" stroke-width="8"/>'
        )
    bubble = (
        "M20,4 h92 q16,0 16,16 v34 q0,16 -16,16 h-52 l-22,18 l4,-18 h-22 q-16,0 -16,-16 v-34 q0,-16 16,-16Z"
    )
    return f'<path d="{bubble}" fill="#ffffff" {line}/>'


@functools.lru_cache(maxsize=4000)
def _font_size(word: str, name: str, width: int, height: int) -> int:
    """The largest size (8 to 72) at which a word fits."""
    low, high = 8, 72
    while low < high:
        middle = (low + high + 1) // 2
        left, top, right, bottom = font(name, middle).getbbox(word)
        if right - left <= width and bottom - top <= height:
            low = middle
        else:
            high = middle - 1
    return low


@functools.lru_cache(maxsize=3000)
def word_layer(word: str, name: str, width: int, height: int, color: str, glow: bool = False) -> Layer:
    """A word as large as fits into width x height, its center at the origin."""
    face = font(name, _font_size(word, name, width, height))
    left, top, right, bottom = face.getbbox(word)
    margin = 12
    size = (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).text((margin - left, margin - top), word, font=face, fill=255)
    colors = Image.new("RGB", size, color)
    if glow:
        halo = mask.filter(ImageFilter.GaussianBlur(5)).point(lambda v: min(255, int(v * 0.9)))
        inner = mask.filter(ImageFilter.GaussianBlur(0.8)).point(lambda v: 255 if v > 190 else 0)
        core = inner.filter(ImageFilter.MinFilter(3)).point(lambda v: int(v * 0.75))
        colors.paste("#ffffff", (0, 0, *size), core)
        mask = ImageChops.lighter(mask, halo)
    return Layer(colors, mask, (-size[0] // 2, -size[1] // 2))


def letter_boxes(s: dict[str, Any]) -> list[tuple[str, tuple[float, float, float, float]]]:
    """The letters of a placed sign's word, with left, top, right and bottom in pixels of the picture."""
    sign, word = SIGNS[s["kind"]], s["word"]
    if not word:
        return []
    face = font(s["font"], _font_size(word, s["font"], *sign.writing))
    left, top, right, bottom = face.getbbox(word)
    x = s["x"] - sign.size[0] // 2 + sign.center[0] - (left + right) / 2
    y = sign.y + sign.center[1] - (top + bottom) / 2
    edges = [x + face.getlength(word[:i]) for i in range(len(word) + 1)]
    return [(letter, (start, y + top, end, y + bottom)) for letter, start, end in zip(word, edges, edges[1:])]


def draw_sign(canvas: Image.Image, s: dict[str, Any], tint: Tint) -> None:
    """Draw a placed sign with its word; neon shines by itself, so no light tints it."""
    sign = SIGNS[s["kind"]]
    glow = s["kind"] == "neon"
    tint = None if glow else tint
    (width, height), (cx, cy) = sign.size, sign.center
    x = s["x"] - width // 2
    body = _panel(s["kind"], COLORS[s["color"]].hex)
    if s["flip"]:
        body = f'<g transform="translate({width},0) scale(-1,1)">{body}</g>'
    paste(canvas, layer(svg_document(body, width, height), width, height), x, sign.y, tint)
    if s["word"]:
        word = word_layer(s["word"], s["font"], *sign.writing, INKS[s["ink"]].hex, glow)
        paste(canvas, word, x + cx, sign.y + cy, tint)
