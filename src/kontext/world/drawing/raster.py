"""SVG to cropped layers, and layers onto a canvas.

A layer is stored as colors plus mask, cropped to what is drawn: pasting it is the cheapest operation that
Pillow has. Layers are cached, because most pictures share most of their parts.
"""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import BadRequest

try:
    import pylunasvg
except ImportError as error:
    raise BadRequest(
        "the illustrated world draws with pylunasvg: pip install 'openkontext[world]'"
    ) from error

SIZE = 256  # pixels, width and height of every picture of the world
INK = "#2e2233"

Tint = tuple[float, float, float] | None


class Layer(NamedTuple):
    """A cropped drawing: RGB colors, L mask and the offset of its top left corner."""

    colors: Image.Image
    mask: Image.Image
    offset: tuple[int, int]


def svg_document(
    body: str,
    width: float,
    height: float,
    *,
    pixels: tuple[float, float] | None = None,
    origin: tuple[float, float] = (0, 0),
) -> str:
    """An SVG document whose view box starts at `origin` and which is drawn at `pixels` (width, height)."""
    w, h = pixels or (width, height)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{origin[0]} {origin[1]} {width} {height}" width="{w}" height="{h}">{body}</svg>'
    )


def rasterize(svg: str, width: int, height: int) -> Image.Image:
    """An SVG document as straight (not premultiplied) RGBA."""
    bitmap = pylunasvg.Document.loadFromData(svg).renderToBitmap(width, height)
    bitmap.convertToRGBA()
    return Image.fromarray(np.array(bitmap))


def cropped(picture: Image.Image) -> Layer:
    """An RGBA picture as a layer."""
    box = picture.getchannel("A").getbbox() or (0, 0, 1, 1)
    picture = picture.crop(box)
    return Layer(picture.convert("RGB"), picture.getchannel("A"), (box[0], box[1]))


@functools.lru_cache(maxsize=3000)
def layer(svg: str, width: int, height: int) -> Layer:
    """An SVG document as a layer."""
    return cropped(rasterize(svg, width, height))


def paste(canvas: Image.Image, drawing: Layer, x: int, y: int, tint: Tint = None) -> None:
    """Put a layer's own origin at (x, y) of the canvas, its colors multiplied by `tint`."""
    colors = drawing.colors
    if tint is not None:
        colors = colors.convert("RGB", (tint[0], 0, 0, 0, 0, tint[1], 0, 0, 0, 0, tint[2], 0))
    canvas.paste(colors, (x + drawing.offset[0], y + drawing.offset[1]), drawing.mask)


@functools.lru_cache(maxsize=64)
def shadow(width: int) -> Layer:
    """The soft ellipse under whatever stands on the ground; 14 pixels high."""
    ellipse = f'<ellipse cx="{width / 2}" cy="7" rx="{width / 2 - 1}" ry="6" fill="#1a1030" opacity=".22"/>'
    return layer(svg_document(ellipse, width, 14), width, 14)
