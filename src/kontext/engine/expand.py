"""Outpainting: the edit fills a border around the picture; the picture itself is locked.

A size applies to the picture with its border: another aspect ratio crops it, another resolution scales it.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from PIL import Image

from kontext.engine.sizes import Size, check
from kontext.errors import BadRequest
from kontext.pictures import Picture

Border = tuple[int, int, int, int]
"""Pixels to the left, at the top, to the right and at the bottom."""


def check_expand(expand: object) -> str:
    """The option as text: L,T,R,B in pixels or an aspect ratio W:H. Raises BadRequest."""
    text = ",".join(map(str, expand)) if isinstance(expand, tuple | list) else expand
    if isinstance(text, str):
        text = text.replace(" ", "")
        if re.fullmatch(r"\d{1,6}(,\d{1,6}){3}", text):
            if not any(map(int, text.split(","))):
                raise BadRequest("expand 0,0,0,0 adds nothing; give pixels as LEFT,TOP,RIGHT,BOTTOM")
            return text
        aspect = re.fullmatch(r"(\d{1,5}):(\d{1,5})", text)
        if aspect and int(aspect[1]) and int(aspect[2]) and 1 / 16 <= int(aspect[1]) / int(aspect[2]) <= 16:
            return text
    raise BadRequest(
        f"expand {expand!r} is invalid; use LEFT,TOP,RIGHT,BOTTOM in pixels, such as 0,0,200,0, or "
        "an aspect ratio, such as 16:9"
    )


def border_of(size: Size, expand: str | Border) -> Border:
    """The border around a picture of a size; for an aspect ratio the smallest one, equal on both sides.

    Raises BadRequest if the picture already has the aspect ratio or the result is too large.
    """
    width, height = size
    if not isinstance(expand, str):
        left, top, right, bottom = expand
    elif ":" not in expand:
        left, top, right, bottom = map(int, expand.split(","))
    else:
        across, down = map(int, expand.split(":"))
        more_width = max(0, round(height * across / down) - width)
        more_height = max(0, round(width * down / across) - height) if not more_width else 0
        if not more_width and not more_height:
            raise BadRequest(f"expand {expand}: the picture, {width}x{height}, has that aspect ratio already")
        left, top = more_width // 2, more_height // 2
        right, bottom = more_width - left, more_height - top
    check((left + width + right, top + height + bottom), f"expanded by {expand}")
    return left, top, right, bottom


def expanded_size(size: Size, expand: str | Border | None) -> Size:
    """The size of a picture with its border. Raises BadRequest."""
    if expand is None:
        return size
    left, top, right, bottom = border_of(size, expand)
    return left + size[0] + right, top + size[1] + bottom


def add_border(picture: Picture, border: Border) -> tuple[Picture, Image.Image]:
    """The picture with its edge pixels continued into an opaque border, and a mask (mode L) of the border."""
    left, top, right, bottom = border
    widths = ((top, bottom), (left, right))
    rgb = Image.fromarray(np.pad(np.asarray(picture.rgb), (*widths, (0, 0)), mode="edge"))
    mask = Image.new("L", rgb.size, 255)
    mask.paste(0, (left, top, left + picture.size[0], top + picture.size[1]))
    alpha = None
    if picture.alpha is not None:
        alpha = Image.new("L", rgb.size, 255)
        alpha.paste(picture.alpha, (left, top))
    return replace(picture, rgb=rgb, alpha=alpha, history=None), mask
