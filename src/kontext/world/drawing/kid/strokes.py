"""Outlined shapes as SVG, the strokes from which a kid is drawn."""

from ..raster import INK

LINE = f'stroke="{INK}" stroke-width="4" stroke-linejoin="round" stroke-linecap="round"'


def shape(d: str, fill: str, outline: str = LINE) -> str:
    return f'<path d="{d}" fill="{fill}" {outline}/>'


def disc(x: float, y: float, radius: float, fill: str, outline: str = LINE) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}" {outline}/>'


def rect(
    x: float, y: float, width: float, height: float, fill: str, radius: float = 0, outline: str = LINE
) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" {outline}/>'


def limb(d: str, color: str, width: float) -> str:
    ends = 'fill="none" stroke-linecap="round" stroke-linejoin="round"'
    return "".join(
        f'<path d="{d}" stroke="{stroke}" stroke-width="{w}" {ends}/>'
        for stroke, w in ((INK, width + 7), (color, width))
    )
