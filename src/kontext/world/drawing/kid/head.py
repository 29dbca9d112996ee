"""Head of a kid: face, beard, glasses and hats."""

from ..colors import shade
from ..raster import INK
from .strokes import LINE, disc, limb, rect, shape

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


def head(view: str, skin: str) -> str:
    if view == "side":
        return shape(_HEAD_SIDE, skin)
    ears = disc(41, 100, 11, skin) + disc(159, 100, 11, skin)
    return ears + f'<ellipse cx="100" cy="92" rx="60" ry="56" fill="{skin}" {LINE}/>'


def _eye(expression: str, x: float, y: float, inner: int) -> str:
    """One eye with its brow; `inner` is +1 where the nose is to the right of it."""
    if expression in ("closed", "laugh"):
        return (
            f'<path d="M{x - 9},{y + 3} q9,{-11 if expression == "laugh" else 9} 18,0" fill="none" {LINE}/>'
        )
    if expression == "surprised":
        return disc(x, y, 11, "#fff") + disc(x, y, 4.5, INK, "")
    body = f'<ellipse cx="{x}" cy="{y}" rx="6.5" ry="8.5" fill="{INK}"/>' + disc(
        x + 2, y - 3, 2.4, "#fff", ""
    )
    if expression == "angry":
        return (
            body
            + f'<path d="M{x - inner * 12},{y - 19} L{x + inner * 10},{y - 11}" {LINE} stroke-width="5"/>'
        )
    if expression == "sad":
        return body + f'<path d="M{x - inner * 11},{y - 12} L{x + inner * 9},{y - 19}" {LINE}/>'
    return body


def _mouth(expression: str, x: float, w: float) -> str:
    lip, teeth = "#8c2f3d", f"M{x - w - 1},116 H{x + w + 1} l-2,6 H{x - w + 1}Z"
    if expression == "laugh":
        d = f"M{x - w - 4},114 H{x + w + 4} Q{x + w},140 {x},140 Q{x - w},140 {x - w - 4},114Z"
        return shape(d, lip) + shape(teeth, "#fff", "")
    if expression == "surprised":
        return f'<ellipse cx="{x}" cy="126" rx="{w * 0.6:.0f}" ry="11" fill="{lip}" {LINE}/>'
    curve = {
        "smile": f"M{x - w},118 Q{x},134 {x + w},118",
        "sad": f"M{x - w},130 Q{x},114 {x + w},130",
        "angry": f"M{x - w},128 Q{x},116 {x + w},128",
        "closed": f"M{x - w * 0.6:.0f},122 Q{x},130 {x + w * 0.6:.0f},122",
    }[expression]
    return shape(curve, "none")


def face(expression: str, beard: str | None, hair_color: str, view: str) -> str:
    eyes, cheeks, mouth, w = [(77, 98), (123, 98)], [(58, 118), (142, 118)], 100, 14
    if view == "side":
        eyes, cheeks, mouth, w = [(134, 96)], [(116, 116)], 142, 8
    body = shape(_BEARD[view], hair_color) if beard == "beard" else ""
    for x, y in cheeks:
        body += f'<ellipse cx="{x}" cy="{y}" rx="10" ry="6" fill="#f2667a" opacity=".38"/>'
    for index, (x, y) in enumerate(eyes):
        body += _eye(expression, x, y, 1 if index == 0 and view == "front" else -1)
    body += _mouth(expression, mouth, w)
    if beard == "mustache":
        d = f"M{mouth},110 q-8,-6 -{w + 8},4 q12,8 {w + 8},2 q12,6 {w + 8},-2 q-{w - 2},-10 -{w + 8},-4Z"
        body += shape(d, hair_color, f'{LINE} stroke-width="3"')
    return body


def glasses_svg(glasses: str, view: str) -> str:
    lenses, radius = ([(77, 98), (123, 98)], 19) if view == "front" else ([(136, 96)], 14)
    body = ""
    for x, y in lenses:
        if glasses == "sunglasses":
            r = radius + 2
            body += shape(f"M{x - r},{y - 14} h{2 * r} q2,32 -{r},32 q-{r + 2},0 -{r},-32Z", "#2a2630")
            body += f'<path d="M{x - 9},{y - 6} l7,0 l-6,10Z" fill="#fff" opacity=".5"/>'
        else:
            glass = f'fill-opacity=".25" stroke="{INK}" stroke-width="5"'
            body += disc(x, y, radius, "#ffffff", glass)
    frame = "M96,96 h8 M58,92 L44,88 M142,92 L156,88" if view == "front" else "M122,93 L84,92"
    return body + f'<path d="{frame}" {LINE}/>'


def hat_svg(hat: str, color: str, view: str, nape: str) -> str:
    """A hat; `nape` is the color that shows in the gap at the back of a cap."""
    dark, thin = shade(color, 0.8), f'{LINE} stroke-width="3"'
    if hat == "cap":
        body = shape("M40,66 C40,6 160,6 160,66 Q100,78 40,66Z", color) + disc(100, 20, 5, dark, "")
        if view == "front":
            return body + shape("M44,64 Q100,48 156,64 Q164,84 150,84 Q100,66 50,84 Q36,84 44,64Z", dark)
        if view == "side":
            return body + shape("M118,66 Q150,50 190,66 Q200,76 188,80 Q150,74 120,76Z", dark)
        return body + shape("M84,72 q16,-24 32,0Z", nape)
    if hat == "beanie":
        dome = shape("M42,64 C40,4 160,4 158,64Z", color)
        return disc(100, 6, 13, "#fff") + dome + rect(36, 52, 128, 22, dark, 10)
    if hat == "tophat":
        brim = f'<ellipse cx="100" cy="46" rx="66" ry="11" fill="#34313f" {LINE}/>'
        return rect(62, -22, 76, 66, "#34313f", 4) + rect(62, 26, 76, 15, color) + brim
    if hat == "party":
        dots = disc(92, 18, 6, "#fff", "") + disc(112, 32, 6, "#fff", "")
        return shape("M100,-26 L64,42 Q100,54 136,42Z", color) + dots + disc(100, -26, 10, "#ffe066")
    if hat == "crown":
        points = "M56,50 L50,0 L76,22 L100,-10 L124,22 L150,0 L144,50 Q100,60 56,50Z"
        return shape(points, "#f9cf3a") + disc(100, 34, 7, color, thin)
    if hat == "strawhat":
        brim = f'<ellipse cx="100" cy="50" rx="96" ry="17" fill="#eec873" {LINE}/>'
        crown = shape("M58,48 C56,0 144,0 142,48 Q100,58 58,48Z", "#f3d58d")
        return brim + crown + shape("M57,40 Q100,52 143,40 L142,52 Q100,62 58,52Z", color, thin)
    if view == "side":
        return (
            limb("M92,100 C92,60 92,40 98,18", color, 8)
            + disc(90, 102, 21, color)
            + disc(90, 102, 10, dark, "")
        )
    band = "M36,96 C30,-6 170,-6 164,96"
    strokes = ((INK, 15), (color, 8))
    body = "".join(
        f'<path d="{band}" stroke="{stroke}" stroke-width="{w}" fill="none"/>' for stroke, w in strokes
    )
    return body + rect(24, 78, 24, 44, color, 11) + rect(152, 78, 24, 44, color, 11)
