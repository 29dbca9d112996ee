"""The "kid": our own character rig with front, side and back views, so that three-view sheets, "show from
behind", poses and two camera distances are exact.

Drawn in a box of 200 x 300 with the head centered on (100, 92) and the feet at 290. Tables hold the outlines,
one per view; functions put them together from back to front.
"""

import re
from typing import Any

from .colors import COLORS, HAIR_COLORS, shade
from .raster import INK

HAIRS = (
    "short",
    "bob",
    "long",
    "ponytail",
    "bun",
    "twintails",
    "afro",
    "curly",
    "spiky",
    "mohawk",
    "bald",
)
CLOTHES = ("tshirt", "striped", "hoodie", "dress", "overalls", "suit")
HATS = ("cap", "beanie", "tophat", "party", "crown", "strawhat", "headphones")
EXPRESSIONS = ("smile", "laugh", "sad", "surprised", "angry", "closed")
POSES = ("stand", "wave", "cheer")
TALL_HATS = ("beanie", "tophat", "party", "crown")  # would reach into a banner at the top
HELD_BEHIND_ARM = "<!--held-->"  # where an object in the hand goes: behind the arm that holds it

_LINE = f'stroke="{INK}" stroke-width="4" stroke-linejoin="round" stroke-linecap="round"'
_DENIM, _DARK_CLOTH = "#4a6fae", "#3c4258"


def _shape(d: str, fill: str, outline: str = _LINE) -> str:
    return f'<path d="{d}" fill="{fill}" {outline}/>'


def _disc(x: float, y: float, radius: float, fill: str, outline: str = _LINE) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}" {outline}/>'


def _rect(x, y, width, height, fill, radius=0, outline: str = _LINE) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" {outline}/>'


def _limb(d: str, color: str, width: float) -> str:
    ends = 'fill="none" stroke-linecap="round" stroke-linejoin="round"'
    return "".join(
        f'<path d="{d}" stroke="{stroke}" stroke-width="{w}" {ends}/>'
        for stroke, w in ((INK, width + 7), (color, width))
    )


# ---- hair ------------------------------------------------------------------------------------------------
_BOB_BEHIND = "M36,142 C20,60 50,20 100,20 C150,20 180,60 164,142 Q132,156 100,150 Q68,156 36,142Z"
_LONG_BEHIND = "M34,222 C16,150 22,20 100,20 C178,20 184,150 166,222 Q132,232 100,224 Q68,232 34,222Z"
_AFRO_BEHIND = (
    "M28,128 C-2,110 0,60 30,48 C40,8 90,-10 116,6 C160,0 186,40 180,62 C206,90 196,122 172,130 "
    "Q100,150 28,128Z"
)
_LEFT_TAIL = "M48,60 C-8,50 -2,130 20,176 C34,150 46,120 52,86Z"
_RIGHT_TAIL = "M152,60 C208,50 202,130 180,176 C166,150 154,120 148,86Z"
_HAIR_BEHIND: dict[str, dict[str, tuple[str, ...]]] = {
    "front": {
        "bob": (_BOB_BEHIND,),
        "long": (_LONG_BEHIND,),
        "ponytail": ("M140,44 C196,30 204,110 182,156 C176,126 168,100 140,80Z",),
        "twintails": (_LEFT_TAIL, _RIGHT_TAIL),
        "afro": (_AFRO_BEHIND,),
    },
    "side": {"ponytail": ("M58,52 C4,30 -8,110 14,160 C26,130 40,110 56,92Z",)},
    "back": {},
}
_CURLS_BEHIND = {
    "front": (
        *((38, 120), (30, 92), (36, 64), (60, 40), (90, 30)),
        *((120, 32), (146, 46), (164, 70), (170, 96), (162, 122)),
    ),
    "side": (),
    "back": (),
}
_BUN_BEHIND = {"front": (100, 18), "side": (52, 34), "back": (100, 18)}

_CAP_FRONT = (
    "M40,96 C32,36 66,22 100,22 C134,22 168,36 160,96 C156,82 150,72 142,64 C122,76 76,74 58,62 "
    "C50,70 44,82 40,96Z"
)
_PARTED = "M100,24 C58,24 34,52 38,108 C52,98 86,78 104,44 C118,74 146,96 162,108 C166,52 142,24 100,24Z"
_CAP_SIDE = (
    "M150,70 C148,34 120,22 96,22 C52,22 30,58 42,120 C52,128 66,122 70,100 C74,88 84,86 92,88 "
    "C112,82 138,80 150,70Z"
)
_CAP_BACK = (
    "M38,104 C30,40 64,22 100,22 C136,22 170,40 162,104 C160,132 136,146 100,146 C64,146 40,132 38,104Z"
)
_HAIR_FRONT: dict[str, dict[str, str]] = {
    "front": {
        "short": _CAP_FRONT,
        "bob": (
            "M40,100 C32,36 66,22 100,22 C134,22 168,36 160,100 C156,84 152,76 146,70 C120,80 80,80 54,70 "
            "C48,76 44,84 40,100Z"
        ),
        "long": _PARTED,
        "ponytail": _PARTED,
        "bun": _CAP_FRONT,
        "twintails": _PARTED,
        "afro": "M42,84 C42,46 70,34 100,34 C130,34 158,46 158,84 C150,66 130,60 100,60 C70,60 50,66 42,84Z",
        "spiky": (
            "M38,100 L26,70 L44,66 L36,34 L62,42 L70,8 L94,30 L116,2 L128,34 L160,20 L154,56 L178,64 "
            "L162,100 L150,74 L130,80 L116,64 L98,82 L82,64 L66,80 L52,74Z"
        ),
        "mohawk": "M84,52 L76,30 L86,6 L96,-8 L106,-8 L116,6 L124,30 L116,52 Q100,60 84,52Z",
    },
    "side": {
        **{hair: _CAP_SIDE for hair in ("short", "ponytail", "bun", "twintails", "curly")},
        "bob": (
            "M150,70 C148,36 120,22 96,22 C46,22 24,62 32,148 Q62,158 92,148 C88,120 84,100 92,88 "
            "C112,82 138,80 150,70Z"
        ),
        "long": (
            "M150,70 C148,36 120,22 96,22 C42,22 20,70 26,220 Q54,232 86,220 C94,180 84,110 92,88 "
            "C112,82 138,80 150,70Z"
        ),
        "afro": (
            "M154,76 C164,30 130,-4 98,2 C66,-12 26,8 20,40 C-4,60 0,100 22,112 C30,140 78,148 98,126 "
            "C102,112 92,98 98,88 C116,86 142,86 154,76Z"
        ),
        "spiky": (
            "M152,72 L160,40 L136,40 L138,8 L108,26 L88,-2 L74,28 L40,14 L46,48 L14,58 L38,78 L20,104 "
            "L44,108 L46,128 L68,112 L72,92 L92,88 L112,84 L132,76Z"
        ),
        "mohawk": (
            "M134,44 L140,14 L120,22 L112,-6 L94,16 L74,-2 L66,24 L42,20 L50,46 L30,56 L44,72 Q84,20 134,44Z"
        ),
    },
    "back": {
        **{hair: _CAP_BACK for hair in ("short", "ponytail", "bun", "twintails", "curly")},
        "bob": "M36,146 C20,60 50,20 100,20 C150,20 180,60 164,146 Q132,160 100,154 Q68,160 36,146Z",
        "long": "M34,224 C16,150 22,20 100,20 C178,20 184,150 166,224 Q132,234 100,226 Q68,234 34,224Z",
        "afro": (
            "M28,128 C-2,110 0,60 30,48 C40,8 90,-10 116,6 C160,0 186,40 180,62 C206,90 196,122 172,130 "
            "Q100,160 28,128Z"
        ),
        "spiky": (
            "M38,116 L26,84 L40,66 L36,34 L62,42 L70,8 L94,30 L116,2 L128,34 L160,20 L154,56 L178,64 L162,84 "
            "L166,116 L140,138 L124,130 L108,146 L92,132 L74,144 L60,130Z"
        ),
        "mohawk": "M84,110 L78,30 L86,6 L96,-8 L106,-8 L116,6 L122,30 L116,110 Q100,120 84,110Z",
    },
}
_CURLS_FRONT = {
    "front": (16, ((56, 58), (78, 48), (102, 44), (126, 50), (146, 62))),
    "side": (
        18,
        (
            *((138, 58), (118, 40), (92, 32), (66, 40), (48, 60)),
            *((38, 86), (42, 110), (60, 124), (62, 100), (84, 74), (112, 66)),
        ),
    ),
    "back": (
        20,
        (
            *((38, 120), (32, 92), (38, 64), (62, 42), (92, 32), (122, 34), (148, 48)),
            *((164, 72), (168, 98), (160, 122), (130, 136), (100, 140), (70, 136)),
        ),
    ),
}
_PONYTAIL_BACK = "M84,62 Q100,52 116,62 C140,100 138,160 118,186 Q100,196 82,186 C62,160 60,100 84,62Z"
_TAIL_SIDE = "M66,70 C20,70 24,140 40,180 C58,156 76,120 78,84Z"


def _curls(radius: float, centers, color: str) -> str:
    """Discs with one outline around all of them."""
    lines = (f'stroke="{INK}" stroke-width="7"', "")
    return "".join(_disc(x, y, radius, color, line) for line in lines for x, y in centers)


def _hair_behind(hair: str, color: str, view: str) -> str:
    body = "".join(_shape(d, color) for d in _HAIR_BEHIND[view].get(hair, ()))
    if hair == "curly":
        body += _curls(20, _CURLS_BEHIND[view], color)
    if hair == "bun" and view != "back":
        body += _disc(*_BUN_BEHIND[view], 22, color)
    return body


def _hair_front(hair: str, color: str, view: str) -> str:
    d = _HAIR_FRONT[view].get(hair)
    body = _shape(d, color) if d else ""
    if hair == "curly":
        radius, curls = _CURLS_FRONT[view]
        body += _curls(radius, curls, color) + (_shape(d, color, "") if d else "")
    if view == "side" and hair == "twintails":
        body += _shape(_TAIL_SIDE, color)
    if view == "back":
        if hair == "ponytail":
            body += _shape(_PONYTAIL_BACK, color) + _rect(82, 56, 36, 11, "#e8483f", 5)
        if hair == "bun":
            body = _disc(*_BUN_BEHIND["back"], 22, color) + body
        if hair == "twintails":
            body = _shape(_LEFT_TAIL, color) + _shape(_RIGHT_TAIL, color) + body
            body += f'<path d="M100,26 V140" {_LINE} stroke-width="3"/>'
    return body


# ---- body ------------------------------------------------------------------------------------------------
_ARMS = {  # outline from shoulder to wrist, and the hand
    "left_down": ("M70,160 Q58,182 58,204", (58, 208)),
    "right_down": ("M130,160 Q142,182 142,204", (142, 208)),
    "left_up": ("M70,160 Q44,156 34,132", (32, 126)),
    "right_up": ("M130,160 Q156,156 166,132", (168, 126)),
    "left_hold": ("M70,160 Q50,182 48,196", (46, 200)),
    "right_hold": ("M130,160 Q150,182 152,196", (154, 200)),
}
_SIDE_ARM = {
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


def _arms(pose: str, hand: int) -> tuple[str, str]:
    """Names of the two arms in front view; the second one holds."""
    if pose == "hold":
        return ("left_down", "right_hold") if hand > 0 else ("right_down", "left_hold")
    return {
        "stand": ("left_down", "right_down"),
        "wave": ("left_down", "right_up"),
        "cheer": ("left_up", "right_up"),
    }[pose]


def _mirrored(arm: tuple[str, tuple[int, int]]) -> tuple[str, tuple[int, int]]:
    d, (x, y) = arm
    return re.sub(r"(-?\d+),", lambda match: f"{200 - int(match.group(1))},", d), (200 - x, y)


def _arm(arm: tuple[str, tuple[int, int]], clothes: str, skin: str, sleeve: str) -> str:
    d, hand = arm
    short = clothes in ("tshirt", "dress", "striped")
    body = _limb(d, skin if short else sleeve, 13)
    if short:
        x0, y0, x1, y1 = (float(value) for value in re.findall(r"-?[\d.]+", d)[:4])
        cuff = f"M{x0},{y0} L{(x0 + x1) / 2:.0f},{(y0 + y1) / 2:.0f}"
        body += f'<path d="{cuff}" stroke="{INK}" stroke-width="24"/>'
        body += f'<path d="{cuff}" stroke="{sleeve}" stroke-width="17" stroke-linecap="round"/>'
    return body + _disc(*hand, 9, skin)


def _legs(view: str, leg: str, shoes: str) -> str:
    def shoe(x: float, toe: float) -> str:
        d = f"M{x - 13 + toe * 0.3},278 q0,-14 13,-14 q{13 + toe},0 {13 + toe},14 q0,4 -4,4 "
        return _shape(f"{d}h-{20 + toe} q-4,0 -4,-4Z", shoes)

    if view == "side":
        far, near = _limb("M96,216 V262", shade(leg, 0.85), 17), _limb("M106,216 V264", leg, 17)
        return far + shoe(96, 8) + near + shoe(106, 8)
    return _limb("M84,214 V264", leg, 17) + _limb("M116,214 V264", leg, 17) + shoe(84, 0) + shoe(116, 0)


def _pattern(clothes: str, color: str, view: str) -> str:
    """What is drawn on the torso, clipped to it."""
    dark = shade(color, 0.82)
    if clothes == "striped":
        return "".join(_rect(40, y, 120, 9, "#fff", outline="") for y in (164, 184, 204))
    if clothes == "dress":
        dots = ((72, 224), (100, 214), (128, 224), (86, 238), (114, 238))
        return _rect(30, 184, 140, 9, dark, outline="") + "".join(_disc(x, y, 5, "#fff", "") for x, y in dots)
    if clothes == "overalls":
        trousers = f'<path d="M40,190 H160 V240 H40Z" fill="{_DENIM}"/>'
        if view != "front":
            return (
                trousers + f'<path d="M76,140 L122,200 M124,140 L78,200" stroke="{_DENIM}" stroke-width="9"/>'
            )
        straps = f'<path d="M82,168 L72,140 M118,168 L128,140" stroke="{_DENIM}" stroke-width="9"/>'
        buttons = _disc(84, 170, 4, "#f9cf3a", "") + _disc(116, 170, 4, "#f9cf3a", "")
        return trousers + _rect(80, 166, 40, 34, _DENIM, outline="") + straps + buttons
    if clothes == "suit" and view == "front":
        tie = "M100,150 l7,9 l-4,26 l-3,6 l-3,-6 l-4,-26Z"
        return _shape("M82,140 L100,196 L118,140Z", "#fff", "") + _shape(tie, color, "")
    if clothes == "suit" and view == "side":
        return _shape("M114,140 L126,180 V140Z", "#fff", "")
    if clothes == "hoodie" and view == "front":
        strings = '<path d="M90,150 v20 M110,150 v20" stroke="#fff" stroke-width="4" stroke-linecap="round"/>'
        return _shape("M80,196 h40 l8,24 h-56Z", dark, "") + strings
    if clothes == "hoodie" and view == "back":
        return _shape("M70,140 q30,56 60,0Z", dark, "")
    return ""


def _torso(clothes: str, color: str, view: str) -> str:
    outlines = _SKIRT if clothes == "dress" else _TORSO
    d = outlines["side" if view == "side" else "front"]
    cloth = _DARK_CLOTH if clothes == "suit" else color
    clip = f'<defs><clipPath id="torso"><path d="{d}"/></clipPath></defs>'
    pattern = f'<g clip-path="url(#torso)">{_pattern(clothes, color, view)}</g>'
    return clip + _shape(d, cloth) + pattern + _shape(d, "none")


# ---- head ------------------------------------------------------------------------------------------------
_HEAD_SIDE = (
    "M100,36 C140,36 158,62 158,88 Q170,100 158,106 C154,134 130,148 100,148 C64,148 42,122 42,92 "
    "C42,60 66,36 100,36Z"
)
_BEARD = {
    "front": (
        "M42,104 Q46,118 74,110 Q100,104 126,110 Q154,118 158,104 C158,140 130,152 100,152 "
        "C70,152 42,140 42,104Z"
    ),
    "side": "M84,100 Q104,118 128,110 L158,108 C156,140 130,152 104,150 C88,148 80,120 84,100Z",
}


def _head(view: str, skin: str) -> str:
    if view == "side":
        return _shape(_HEAD_SIDE, skin)
    ears = _disc(41, 100, 11, skin) + _disc(159, 100, 11, skin)
    return ears + f'<ellipse cx="100" cy="92" rx="60" ry="56" fill="{skin}" {_LINE}/>'


def _eye(expression: str, x: float, y: float, inner: int) -> str:
    """One eye with its brow; `inner` is +1 where the nose is to the right of it."""
    if expression in ("closed", "laugh"):
        return (
            f'<path d="M{x - 9},{y + 3} q9,{-11 if expression == "laugh" else 9} 18,0" fill="none" {_LINE}/>'
        )
    if expression == "surprised":
        return _disc(x, y, 11, "#fff") + _disc(x, y, 4.5, INK, "")
    body = f'<ellipse cx="{x}" cy="{y}" rx="6.5" ry="8.5" fill="{INK}"/>' + _disc(
        x + 2, y - 3, 2.4, "#fff", ""
    )
    if expression == "angry":
        return (
            body
            + f'<path d="M{x - inner * 12},{y - 19} L{x + inner * 10},{y - 11}" {_LINE} stroke-width="5"/>'
        )
    if expression == "sad":
        return body + f'<path d="M{x - inner * 11},{y - 12} L{x + inner * 9},{y - 19}" {_LINE}/>'
    return body


def _mouth(expression: str, x: float, w: float) -> str:
    lip, teeth = "#8c2f3d", f"M{x - w - 1},116 H{x + w + 1} l-2,6 H{x - w + 1}Z"
    if expression == "laugh":
        d = f"M{x - w - 4},114 H{x + w + 4} Q{x + w},140 {x},140 Q{x - w},140 {x - w - 4},114Z"
        return _shape(d, lip) + _shape(teeth, "#fff", "")
    if expression == "surprised":
        return f'<ellipse cx="{x}" cy="126" rx="{w * 0.6:.0f}" ry="11" fill="{lip}" {_LINE}/>'
    curve = {
        "smile": f"M{x - w},118 Q{x},134 {x + w},118",
        "sad": f"M{x - w},130 Q{x},114 {x + w},130",
        "angry": f"M{x - w},128 Q{x},116 {x + w},128",
        "closed": f"M{x - w * 0.6:.0f},122 Q{x},130 {x + w * 0.6:.0f},122",
    }[expression]
    return _shape(curve, "none")


def _face(expression: str, beard: str | None, hair_color: str, view: str) -> str:
    eyes, cheeks, mouth, w = [(77, 98), (123, 98)], [(58, 118), (142, 118)], 100, 14
    if view == "side":
        eyes, cheeks, mouth, w = [(134, 96)], [(116, 116)], 142, 8
    body = _shape(_BEARD[view], hair_color) if beard == "beard" else ""
    for x, y in cheeks:
        body += f'<ellipse cx="{x}" cy="{y}" rx="10" ry="6" fill="#f2667a" opacity=".38"/>'
    for index, (x, y) in enumerate(eyes):
        body += _eye(expression, x, y, 1 if index == 0 and view == "front" else -1)
    body += _mouth(expression, mouth, w)
    if beard == "mustache":
        d = f"M{mouth},110 q-8,-6 -{w + 8},4 q12,8 {w + 8},2 q12,6 {w + 8},-2 q-{w - 2},-10 -{w + 8},-4Z"
        body += _shape(d, hair_color, f'{_LINE} stroke-width="3"')
    return body


def _glasses(glasses: str, view: str) -> str:
    lenses, radius = ([(77, 98), (123, 98)], 19) if view == "front" else ([(136, 96)], 14)
    body = ""
    for x, y in lenses:
        if glasses == "sunglasses":
            r = radius + 2
            body += _shape(f"M{x - r},{y - 14} h{2 * r} q2,32 -{r},32 q-{r + 2},0 -{r},-32Z", "#2a2630")
            body += f'<path d="M{x - 9},{y - 6} l7,0 l-6,10Z" fill="#fff" opacity=".5"/>'
        else:
            glass = f'fill-opacity=".25" stroke="{INK}" stroke-width="5"'
            body += _disc(x, y, radius, "#ffffff", glass)
    frame = "M96,96 h8 M58,92 L44,88 M142,92 L156,88" if view == "front" else "M122,93 L84,92"
    return body + f'<path d="{frame}" {_LINE}/>'


# ---- hats ------------------------------------------------------------------------------------------------
def _hat(hat: str, color: str, view: str, nape: str) -> str:
    """A hat; `nape` is the color that shows in the gap at the back of a cap."""
    dark, thin = shade(color, 0.8), f'{_LINE} stroke-width="3"'
    if hat == "cap":
        body = _shape("M40,66 C40,6 160,6 160,66 Q100,78 40,66Z", color) + _disc(100, 20, 5, dark, "")
        if view == "front":
            return body + _shape("M44,64 Q100,48 156,64 Q164,84 150,84 Q100,66 50,84 Q36,84 44,64Z", dark)
        if view == "side":
            return body + _shape("M118,66 Q150,50 190,66 Q200,76 188,80 Q150,74 120,76Z", dark)
        return body + _shape("M84,72 q16,-24 32,0Z", nape)
    if hat == "beanie":
        dome = _shape("M42,64 C40,4 160,4 158,64Z", color)
        return _disc(100, 6, 13, "#fff") + dome + _rect(36, 52, 128, 22, dark, 10)
    if hat == "tophat":
        brim = f'<ellipse cx="100" cy="46" rx="66" ry="11" fill="#34313f" {_LINE}/>'
        return _rect(62, -22, 76, 66, "#34313f", 4) + _rect(62, 26, 76, 15, color) + brim
    if hat == "party":
        dots = _disc(92, 18, 6, "#fff", "") + _disc(112, 32, 6, "#fff", "")
        return _shape("M100,-26 L64,42 Q100,54 136,42Z", color) + dots + _disc(100, -26, 10, "#ffe066")
    if hat == "crown":
        points = "M56,50 L50,0 L76,22 L100,-10 L124,22 L150,0 L144,50 Q100,60 56,50Z"
        return _shape(points, "#f9cf3a") + _disc(100, 34, 7, color, thin)
    if hat == "strawhat":
        brim = f'<ellipse cx="100" cy="50" rx="96" ry="17" fill="#eec873" {_LINE}/>'
        crown = _shape("M58,48 C56,0 144,0 142,48 Q100,58 58,48Z", "#f3d58d")
        return brim + crown + _shape("M57,40 Q100,52 143,40 L142,52 Q100,62 58,52Z", color, thin)
    if view == "side":
        return (
            _limb("M92,100 C92,60 92,40 98,18", color, 8)
            + _disc(90, 102, 21, color)
            + _disc(90, 102, 10, dark, "")
        )
    band = "M36,96 C30,-6 170,-6 164,96"
    strokes = ((INK, 15), (color, 8))
    body = "".join(
        f'<path d="{band}" stroke="{stroke}" stroke-width="{w}" fill="none"/>' for stroke, w in strokes
    )
    return body + _rect(24, 78, 24, 44, color, 11) + _rect(152, 78, 24, 44, color, 11)


def kid_svg(c: dict[str, Any], view: str = "front") -> str:
    """The SVG body of a kid (`front`, `side`, `back`); what it holds goes where `HELD_BEHIND_ARM` stands."""
    skin, clothes, pose = c["skin"], c["clothes"], c["pose"]
    hair_color, color = HAIR_COLORS[c["hair_color"]].hex, COLORS[c["cloth_color"]].hex
    sleeve = _DARK_CLOTH if clothes == "suit" else color
    trousers = {"overalls": _DENIM, "suit": _DARK_CLOTH, "dress": skin}.get(clothes, c["pants"])

    def arm(outline: tuple[str, tuple[int, int]]) -> str:
        return _arm(outline, clothes, skin, sleeve)

    arms = tuple(_ARMS[name] for name in _arms(pose, c["hand"]))
    if view == "back":
        arms = tuple(map(_mirrored, arms))
    body = _hair_behind(c["hair"], hair_color, view) + _legs(view, trousers, c["shoes"])
    if view != "side":
        body += arm(arms[0]) + (arm(arms[1]) if pose != "hold" else "")
    body += _torso(clothes, color, view)
    if view == "side":
        body += (arm(arms[0]) if pose == "cheer" else "") + arm(_SIDE_ARM[pose])
    body += _head(view, skin)
    if view != "back":
        body += _face(c["expression"], c["beard"], hair_color, view)
    if view == "side":
        body += _shape("M84,92 q-14,4 -8,20 q8,6 12,-4", skin)
    if view != "back" and c["glasses"]:
        body += _glasses(c["glasses"], view)
    body += _hair_front(c["hair"], hair_color, view)
    if c["hat"]:
        nape = skin if c["hair"] == "bald" else hair_color
        body += _hat(c["hat"], COLORS[c["hat_color"]].hex, view, nape)
    if view == "front" and pose == "hold":
        body += HELD_BEHIND_ARM + arm(arms[1])
    return body
