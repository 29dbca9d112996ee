"""Hair of a kid: outlines per view, behind and in front of the head."""

from collections.abc import Sequence

from ..raster import INK
from .strokes import LINE, disc, rect, shape

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


def _curls(radius: float, centers: Sequence[tuple[float, float]], color: str) -> str:
    """Discs with one outline around all of them."""
    lines = (f'stroke="{INK}" stroke-width="7"', "")
    return "".join(disc(x, y, radius, color, line) for line in lines for x, y in centers)


def hair_behind(hair: str, color: str, view: str) -> str:
    body = "".join(shape(d, color) for d in _HAIR_BEHIND[view].get(hair, ()))
    if hair == "curly":
        body += _curls(20, _CURLS_BEHIND[view], color)
    if hair == "bun" and view != "back":
        body += disc(*_BUN_BEHIND[view], 22, color)
    return body


def hair_front(hair: str, color: str, view: str) -> str:
    d = _HAIR_FRONT[view].get(hair)
    body = shape(d, color) if d else ""
    if hair == "curly":
        radius, curls = _CURLS_FRONT[view]
        body += _curls(radius, curls, color) + (shape(d, color, "") if d else "")
    if view == "side" and hair == "twintails":
        body += shape(_TAIL_SIDE, color)
    if view == "back":
        if hair == "ponytail":
            body += shape(_PONYTAIL_BACK, color) + rect(82, 56, 36, 11, "#e8483f", 5)
        if hair == "bun":
            body = disc(*_BUN_BEHIND["back"], 22, color) + body
        if hair == "twintails":
            body = shape(_LEFT_TAIL, color) + shape(_RIGHT_TAIL, color) + body
            body += f'<path d="M100,26 V140" {LINE} stroke-width="3"/>'
    return body
