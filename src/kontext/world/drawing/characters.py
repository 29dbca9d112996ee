"""Characters: five families of people and creatures, what they can have, and how they are drawn and placed.

A character is plain data. Every family has the same keys; what a family does not have is None. What a picture
hides is the same in every picture (the hair under a hat), so that taking the hat off has one answer.
"""

import random
from typing import Any, NamedTuple

from PIL import Image

from .avatars import avatar_svg
from .colors import CLOTH_COLORS, COLORS, HAIR_COLORS, HAT_COLORS, SKINS, shade
from .kid import CLOTHES, EXPRESSIONS, HAIRS, HATS, HELD_BEHIND_ARM, POSES, TALL_HATS, kid_svg
from .objects import object_layer
from .raster import INK, Tint, layer, paste, shadow, svg_document

VIEWS = ("front", "side", "back")
_BEARDS = (None, "mustache", "beard")
_GLASSES = (None, "glasses", "sunglasses")

_PEEP_HAIR = {
    "short": "short3",
    "bob": "medium1",
    "long": "long",
    "ponytail": "cornrows2",
    "bun": "grayBun",
    "afro": "afro",
    "curly": "dreads2",
    "spiky": "shaved3",
    "mohawk": "mohawk",
    "bald": "noHair1",
    "bangs": "bangs2",
    "flattop": "flatTop",
}
_PEEP_EXPRESSION = {
    "smile": "smile",
    "laugh": "smileBig",
    "sad": "solemn",
    "surprised": "fear",
    "angry": "veryAngry",
    "closed": "calm",
}
_PERSONA_HAIR = {
    "short": "shortCombover",
    "bob": "bobCut",
    "long": "extraLong",
    "bun": "straightBun",
    "afro": "curly",
    "twintails": "pigtails",
    "mohawk": "mohawk",
    "bald": "bald",
    "flattop": "curlyHighTop",
}
_PERSONA_MOUTH = {"smile": "smile", "laugh": "bigSmile", "sad": "frown", "surprised": "surprise"}
_MICAH_HAIR = {"short": "fonze", "bob": "pixie", "long": "full", "mohawk": "mrT", "bald": "mrClean"}
_MICAH_MOUTH = {"smile": "smile", "laugh": "laughing", "sad": "frown", "surprised": "surprised"}
_CRITTER_MOUTH = {"smile": "smile", "laugh": "laugh", "sad": "sad", "surprised": "ooh", "closed": "tinySmile"}
_CRITTER_TOPS = ("horns", "antennae", "earsPointy", "crown", "sprout", "bobble")
_PERSONA_HAT_FILL = {"beanie": "#E15C66", "cap": "#F29C65"}  # fixed in the definition

_LONG_HAIR = ("long", "bob", "twintails", "ponytail", "bun", "bangs")
_HIDING_HATS = tuple(hat for hat in HATS if hat != "headphones")
_HIDDEN_HAIR = ("mohawk", "spiky", "bun")  # cannot be distinguished from other hair under a kid's hat
PANTS = ("#566a9c", "#6b5a4a", "#4d5a63", "#8a6fa8", "#3f7a6a")
SHOES = ("#d8574f", "#f0f0f0", "#f2b33d", "#4f7fc0", "#3c3a46")


class Family(NamedTuple):
    """A kind of character: drawing box (width, height, left, top), heights in pixels, what it can have."""

    noun: tuple[str, str]  # "the kid"
    weight: float
    box: tuple[int, int, int, int]
    heights: tuple[int, int]  # alone; under a banner
    options: dict[str, tuple]

    def allows(self, key: str) -> tuple:
        """All values of an attribute, () where this family has none."""
        return self.options.get(key, ())


_PERSON = ("the person", "这个人")
FAMILIES = {
    "kid": Family(
        ("the kid", "这个孩子"),
        4,
        (240, 340, -20, -40),
        (372, 236),
        {
            "hair": HAIRS,
            "hair_color": tuple(HAIR_COLORS),
            "expression": EXPRESSIONS,
            "glasses": _GLASSES,
            "hat": (None, *HATS),
            "clothes": CLOTHES,
            "cloth_color": CLOTH_COLORS,
            "beard": _BEARDS,
            "pose": POSES,
        },
    ),
    "peep": Family(
        _PERSON,
        3,
        (704, 704, 0, 0),
        (232, 186),
        {
            "hair": tuple(_PEEP_HAIR),
            "hair_color": tuple(HAIR_COLORS),
            "expression": tuple(_PEEP_EXPRESSION),
            "glasses": _GLASSES,
            "hat": (None, "beanie", "hat"),
            "cloth_color": CLOTH_COLORS,
            "beard": _BEARDS,
        },
    ),
    "persona": Family(
        _PERSON,
        2,
        (64, 64, 0, 0),
        (242, 196),
        {
            "hair": tuple(_PERSONA_HAIR),
            "hair_color": tuple(HAIR_COLORS),
            "expression": tuple(_PERSONA_MOUTH),
            "glasses": _GLASSES,
            "hat": (None, "beanie", "cap"),
            "clothes": ("plain", "checkered"),
            "cloth_color": CLOTH_COLORS,
            "beard": _BEARDS,
        },
    ),
    "micah": Family(
        _PERSON,
        1.5,
        (360, 360, 0, 0),
        (236, 190),
        {
            "hair": tuple(_MICAH_HAIR),
            "hair_color": tuple(HAIR_COLORS),
            "expression": tuple(_MICAH_MOUTH),
            "glasses": (None, "glasses"),
            "clothes": ("crew", "collared"),
            "cloth_color": CLOTH_COLORS,
            "beard": (None, "beard"),
        },
    ),
    "critter": Family(
        ("the monster", "这只小怪物"),
        1.5,
        (100, 100, 0, 0),
        (200, 160),
        {
            "horns": (None, *_CRITTER_TOPS),
            "expression": tuple(_CRITTER_MOUTH),
            "cloth_color": HAT_COLORS,
            "eyes": ("two", "one", "three"),
            "pattern": (None, "dots", "stripes"),
        },
    ),
}
_OPTIONAL = {"glasses": 0.4, "beard": 0.4, "hat": 0.27, "horns": 0.85, "pattern": 0.67}  # how often not None
_KEYS = (
    *("hair", "hair_color", "expression", "glasses", "hat", "clothes", "cloth_color"),
    *("beard", "pose", "horns", "eyes", "pattern"),
)


def sample_character(r: random.Random, families: tuple[str, ...]) -> dict[str, Any]:
    """A character of one of `families`, not yet placed."""
    name = r.choices(families, [FAMILIES[family].weight for family in families])[0]
    family = FAMILIES[name]
    c: dict[str, Any] = {"family": name, "skin": r.choice(SKINS), "view": "front", "hand": 1}
    for key in _KEYS:
        values = family.allows(key)
        if key in _OPTIONAL and values:
            c[key] = r.choice(values[1:]) if r.random() < _OPTIONAL[key] else None
        else:
            c[key] = r.choice(values) if values else None
    if c["hair"] == "bald" and r.random() < 0.6:
        c["hair"] = r.choice(family.allows("hair"))
    if c["hair"] in _LONG_HAIR:
        c["beard"] = None
    c["hat_color"] = r.choice([color for color in HAT_COLORS if color != c["cloth_color"]])
    c["pants"], c["shoes"] = (r.choice(PANTS), r.choice(SHOES)) if name == "kid" else (None, None)
    if c["hat"] and not can_wear(c, c["hat"]):
        c["hat"] = None
    settle_hidden(c)
    return c


def can_wear(c: dict[str, Any], hat: str) -> bool:
    """Whether a hat fits over the hair of a character that wears none."""
    if c["family"] == "kid":
        return hat not in _HIDING_HATS or c["hair"] not in _HIDDEN_HAIR
    return c["hair"] in ("short", "bald", "flattop")


def settle_hidden(c: dict[str, Any]) -> None:
    """Set attributes that are not visible to their fixed values."""
    if c["hat"] and c["family"] == "peep":
        c.update(hair="short", hair_color="black")
    if c["hat"] and c["family"] == "persona":
        c.update(hair="bald", hair_color="black")
    if c["hair"] == "bald" and not c["beard"]:
        c["hair_color"] = "black"
    if c["hat"] is None and "hat_color" in c:
        c["hat_color"] = "red"


def hats_under_banner(hats: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """The hats that leave room for a sign above."""
    return tuple(hat for hat in hats if hat not in TALL_HATS)


def place_character(c: dict[str, Any], x: int, *, under_banner: bool, full: bool) -> None:
    """Set center, height of the drawing box and its lowest row; `full` shows a kid from head to toe."""
    family = FAMILIES[c["family"]]
    c["x"], c["full"] = x, c["family"] == "kid" and (full or under_banner)
    c["height"] = family.heights[under_banner]
    c["base"] = 257
    if c["family"] == "kid":
        if c["full"]:
            c["height"] = 236 if under_banner else 284
            c["base"] = round(252 + 18 * c["height"] / 340)
        else:
            c["base"] = round(58 + 264 * c["height"] / 340) + 2


def _peep_svg(c: dict[str, Any]) -> str:
    hair, ink = HAIR_COLORS[c["hair_color"]].hex, "#1d1a22"
    variants = {
        "head": _PEEP_HAIR[c["hair"]],
        "expression": _PEEP_EXPRESSION[c["expression"]],
        "accessories": {"glasses": "glasses3", "sunglasses": "sunglasses2"}.get(c["glasses"]),
        "facialHair": {"mustache": "moustache5", "beard": "full3"}.get(c["beard"]),
    }
    colors: dict[Any, str] = {
        "skin": c["skin"],
        "headContrast": hair,
        "clothing": COLORS[c["cloth_color"]].hex,
        "ink": ink,
        ("facialHair", "ink"): shade(hair, 0.8),
        ("facialHair", "headContrast"): hair,
    }
    if c["hair"] not in ("mohawk", "bun", "bald") and c["hair_color"] != "black" and not c["hat"]:
        colors["head", "ink"] = hair
    if c["hat"] == "beanie":
        variants["head"] = "hatBeanie"
        colors["head", "headContrast"] = colors["head", "clothing"] = COLORS[c["hat_color"]].hex
    if c["hat"] == "hat":
        variants["head"] = "hatHip"
    return avatar_svg("open-peeps", variants, colors)


def _persona_svg(c: dict[str, Any]) -> str:
    hair = HAIR_COLORS[c["hair_color"]].hex
    variants = {
        "hair": c["hat"] or _PERSONA_HAIR[c["hair"]],
        "eyes": c["glasses"] or "open",
        "mouth": _PERSONA_MOUTH[c["expression"]],
        "nose": "mediumRound",
        "clothes": {"plain": "squared", "checkered": "checkered"}[c["clothes"]],
        "facialHair": {"mustache": "walrus", "beard": "beardMustache"}.get(c["beard"]),
    }
    colors = {
        "skin": c["skin"],
        "hair": hair,
        "clothing": COLORS[c["cloth_color"]].hex,
        "facialHair": shade(hair, 0.85),
    }
    body = avatar_svg("personas", variants, colors)
    return body.replace(_PERSONA_HAT_FILL[c["hat"]], COLORS[c["hat_color"]].hex) if c["hat"] else body


def _micah_svg(c: dict[str, Any]) -> str:
    hair = HAIR_COLORS[c["hair_color"]].hex
    variants = {
        "head": "standard",
        "mouth": _MICAH_MOUTH[c["expression"]],
        "eyebrows": "down" if c["expression"] == "sad" else "up",
        "eyes": "eyes",
        "hair": _MICAH_HAIR[c["hair"]],
        "nose": "curve",
        "ears": "attached",
        "clothes": c["clothes"],
        "glasses": "round" if c["glasses"] else None,
        "facialHair": c["beard"],
    }
    colors = {
        "base": c["skin"],
        "hair": hair,
        "shirt": COLORS[c["cloth_color"]].hex,
        "facialHair": shade(hair, 0.8),
        "glasses": "#222222",
        "earring": "#f9cf3a",
    }
    return avatar_svg("micah", variants, colors)


def _critter_svg(c: dict[str, Any]) -> str:
    color = shade(COLORS[c["cloth_color"]].hex, 1.15)
    pair = {"surprised": "wide", "closed": "closedLine", "laugh": "happy"}.get(c["expression"], "round")
    variants = {
        "body": "dome",
        "top": c["horns"],
        "eyes": {"two": pair, "one": "mono", "three": "trio"}[c["eyes"]],
        "mouth": _CRITTER_MOUTH[c["expression"]],
        "pattern": c["pattern"],
        "cheeks": "blush",
    }
    colors = {"body": color, "accent": shade(color, 0.72), "ink": "#2a2440", "background": "#ffffff"}
    return avatar_svg("critters", variants, colors)


_DRAW = {"peep": _peep_svg, "persona": _persona_svg, "micah": _micah_svg, "critter": _critter_svg}


def hand_x(c: dict[str, Any]) -> float:
    """Where a character would hold something."""
    return c["x"] + c["hand"] * c["height"] * (0.14 if c["family"] == "critter" else 0.36)


def _forearm(c: dict[str, Any]) -> str:
    """A sleeve and a fist in a box of 64 x 78, for the families whose drawings have no hands."""
    sleeve, skin = COLORS[c["cloth_color"]].hex, c["skin"]
    line = f'stroke="{INK}" stroke-width="3.5" stroke-linejoin="round"' if c["family"] != "persona" else ""
    return (
        f'<path d="M14,78 L16,28 L48,28 L52,78Z" fill="{sleeve}" {line}/>'
        f'<rect x="13" y="24" width="38" height="11" rx="5" fill="{shade(sleeve, 0.85)}" {line}/>'
        f'<path d="M16,26 q-6,-18 6,-22 h22 q10,6 4,22Z" fill="{skin}" {line}/>'
        f'<path d="M26,8 v9 M34,7 v10" stroke="{shade(skin, 0.62)}" stroke-width="2.4" '
        'stroke-linecap="round"/>'
    )


def _paw(c: dict[str, Any]) -> str:
    fur = COLORS[c["cloth_color"]].hex
    return (
        f'<ellipse cx="20" cy="16" rx="17" ry="12" fill="{shade(fur, 0.98)}" '
        f'stroke="{shade(fur, 0.7)}" stroke-width="3"/>'
    )


def draw_character(
    canvas: Image.Image, c: dict[str, Any], held: dict[str, Any] | None, art: str, tint: Tint
) -> None:
    """Draw a placed character, and what it holds in a hand."""
    box_width, box_height, left, top = FAMILIES[c["family"]].box
    height = c["height"]
    width, scale = round(height * box_width / box_height), height / box_height
    x, y = round(c["x"] - width / 2), round(c["base"] - height)

    def draw(body: str) -> None:
        svg = svg_document(body, box_width, box_height, pixels=(width, height), origin=(left, top))
        paste(canvas, layer(svg, width, height), x, y, tint)

    def draw_held(thing: dict[str, Any], at_x: int, at_y: int, size: int) -> None:
        paste(canvas, object_layer(art, thing["name"], size, thing["color"]), at_x, at_y, tint)

    if c["family"] == "kid":
        if c["full"]:
            shadow_width = round(height * 0.34) // 4 * 4
            paste(
                canvas,
                shadow(shadow_width),
                round(c["x"] - shadow_width / 2),
                round(y + (279 - top) * scale) - 7,
            )
        body, _, arm = kid_svg(c, c["view"]).partition(HELD_BEHIND_ARM)
        draw(body)
        if held and arm:
            size, side = round(86 * scale), c["hand"]
            hx, hy = x + (100 + 54 * side - left) * scale, y + (198 - top) * scale
            draw_held(held, round(hx - size * (0.36 if side > 0 else 0.64)), round(hy - size * 0.88), size)
        if arm:
            draw(arm)
        return
    draw(_DRAW[c["family"]](c))
    if held and c["family"] == "critter":
        hx = round(hand_x(c))
        draw_held(held, hx, 172, 70)
        paste(canvas, layer(svg_document(_paw(c), 40, 32), 40, 32), hx + 14, 226, tint)
    elif held:
        hx = round(hand_x(c))
        draw_held(held, hx - 37, 146, 74)
        paste(canvas, layer(svg_document(_forearm(c), 64, 78), 64, 78), hx - 32, 202, tint)
