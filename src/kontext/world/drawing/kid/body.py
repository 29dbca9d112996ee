"""Body of a kid: arms, legs and clothes."""

import re

from ..colors import shade
from ..raster import INK
from .strokes import disc, limb, rect, shape

DENIM, DARK_CLOTH = "#4a6fae", "#3c4258"

ARMS = {  # outline from shoulder to wrist, and the hand
    "left_down": ("M70,160 Q58,182 58,204", (58, 208)),
    "right_down": ("M130,160 Q142,182 142,204", (142, 208)),
    "left_up": ("M70,160 Q44,156 34,132", (32, 126)),
    "right_up": ("M130,160 Q156,156 166,132", (168, 126)),
    "left_hold": ("M70,160 Q50,182 48,196", (46, 200)),
    "right_hold": ("M130,160 Q150,182 152,196", (154, 200)),
}
SIDE_ARM = {
    "stand": ("M100,162 Q98,186 100,204", (100, 208)),
    "wave": ("M100,160 Q132,156 142,132", (144, 126)),
    "cheer": ("M100,160 Q132,156 142,132", (144, 126)),
    "hold": ("M100,162 Q122,186 138,190", (142, 192)),
}
_TORSO = {
    "front": "M64,158 Q72,142 100,142 Q128,142 136,158 L134,222 Q100,230 66,222Z",
    "side": "M78,150 Q100,138 122,150 L126,222 Q101,230 76,222Z",
}
_SKIRT = {
    "front": "M70,156 Q78,142 100,142 Q122,142 130,156 L152,240 Q100,254 48,240Z",
    "side": "M80,150 Q100,138 120,150 L138,240 Q101,252 64,240Z",
}


def arm_names(pose: str, hand: int) -> tuple[str, str]:
    """Names of the two arms in front view; the second one holds."""
    if pose == "hold":
        return ("left_down", "right_hold") if hand > 0 else ("right_down", "left_hold")
    return {
        "stand": ("left_down", "right_down"),
        "wave": ("left_down", "right_up"),
        "cheer": ("left_up", "right_up"),
    }[pose]


def mirrored(arm: tuple[str, tuple[int, int]]) -> tuple[str, tuple[int, int]]:
    d, (x, y) = arm
    return re.sub(r"(-?\d+),", lambda match: f"{200 - int(match.group(1))},", d), (200 - x, y)


def arm_svg(arm: tuple[str, tuple[int, int]], clothes: str, skin: str, sleeve: str) -> str:
    d, hand = arm
    short = clothes in ("tshirt", "dress", "striped")
    body = limb(d, skin if short else sleeve, 13)
    if short:
        x0, y0, x1, y1 = (float(value) for value in re.findall(r"-?[\d.]+", d)[:4])
        cuff = f"M{x0},{y0} L{(x0 + x1) / 2:.0f},{(y0 + y1) / 2:.0f}"
        body += f'<path d="{cuff}" stroke="{INK}" stroke-width="24"/>'
        body += f'<path d="{cuff}" stroke="{sleeve}" stroke-width="17" stroke-linecap="round"/>'
    return body + disc(*hand, 9, skin)


def legs(view: str, leg: str, shoes: str) -> str:
    def shoe(x: float, toe: float) -> str:
        d = f"M{x - 13 + toe * 0.3},278 q0,-14 13,-14 q{13 + toe},0 {13 + toe},14 q0,4 -4,4 "
        return shape(f"{d}h-{20 + toe} q-4,0 -4,-4Z", shoes)

    if view == "side":
        far, near = limb("M96,216 V262", shade(leg, 0.85), 17), limb("M106,216 V264", leg, 17)
        return far + shoe(96, 8) + near + shoe(106, 8)
    return limb("M84,214 V264", leg, 17) + limb("M116,214 V264", leg, 17) + shoe(84, 0) + shoe(116, 0)


def _pattern(clothes: str, color: str, view: str) -> str:
    """What is drawn on the torso, clipped to it."""
    dark = shade(color, 0.82)
    if clothes == "striped":
        return "".join(rect(40, y, 120, 9, "#fff", outline="") for y in (164, 184, 204))
    if clothes == "dress":
        dots = ((72, 224), (100, 214), (128, 224), (86, 238), (114, 238))
        return rect(30, 184, 140, 9, dark, outline="") + "".join(disc(x, y, 5, "#fff", "") for x, y in dots)
    if clothes == "overalls":
        trousers = f'<path d="M40,190 H160 V240 H40Z" fill="{DENIM}"/>'
        if view != "front":
            return (
                trousers + f'<path d="M76,140 L122,200 M124,140 L78,200" stroke="{DENIM}" stroke-width="9"/>'
            )
        straps = f'<path d="M82,168 L72,140 M118,168 L128,140" stroke="{DENIM}" stroke-width="9"/>'
        buttons = disc(84, 170, 4, "#f9cf3a", "") + disc(116, 170, 4, "#f9cf3a", "")
        return trousers + rect(80, 166, 40, 34, DENIM, outline="") + straps + buttons
    if clothes == "suit" and view == "front":
        tie = "M100,150 l7,9 l-4,26 l-3,6 l-3,-6 l-4,-26Z"
        return shape("M82,140 L100,196 L118,140Z", "#fff", "") + shape(tie, color, "")
    if clothes == "suit" and view == "side":
        return shape("M114,140 L126,180 V140Z", "#fff", "")
    if clothes == "hoodie" and view == "front":
        strings = '<path d="M90,150 v20 M110,150 v20" stroke="#fff" stroke-width="4" stroke-linecap="round"/>'
        return shape("M80,196 h40 l8,24 h-56Z", dark, "") + strings
    if clothes == "hoodie" and view == "back":
        return shape("M70,140 q30,56 60,0Z", dark, "")
    return ""


def torso(clothes: str, color: str, view: str) -> str:
    outlines = _SKIRT if clothes == "dress" else _TORSO
    d = outlines["side" if view == "side" else "front"]
    cloth = DARK_CLOTH if clothes == "suit" else color
    clip = f'<defs><clipPath id="torso"><path d="{d}"/></clipPath></defs>'
    pattern = f'<g clip-path="url(#torso)">{_pattern(clothes, color, view)}</g>'
    return clip + shape(d, cloth) + pattern + shape(d, "none")
