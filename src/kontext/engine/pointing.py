"""Combines box, mask and strokes into one soft mask of where the edit may act.

Strokes are drawn into the model's input (FLUX.1 Kontext understands a red frame around an object). Box and
mask only limit the edit: a box drawn as a frame made the edits of nano worse, and every box would need a new
prefix. A red frame in the picture itself also limits the edit if the prompt mentions it.
"""

from __future__ import annotations

import re

import numpy as np
from PIL import Image, ImageChops

from kontext import pictures
from kontext.engine.requests import EditRequest
from kontext.engine.sizes import Box, Size
from kontext.errors import BadRequest
from kontext.pictures import Picture


def overlay_of(request: EditRequest, picture: Picture) -> Image.Image | None:
    """The strokes to draw over the model's input, RGBA. Raises BadRequest if there are none."""
    if request.markup is None:
        return None
    markup = _same_size(pictures.load(request.markup, "the markup"), picture.size, "markup")
    if markup.alpha is None:
        raise BadRequest("the markup has no transparent part; draw on a transparent layer over the picture")
    if markup.alpha.getbbox() is None:
        raise BadRequest("the markup is empty; draw around what is to change, or omit it")
    return markup.as_given


_OF_A_FRAME = re.compile(r"\bred (box|frame|rectangle|square|outline)|红色?(方|矩形)?框", re.IGNORECASE)
_SIDE = 0.05  # shortest side of a frame, as a share of the picture's
_ROOM = 0.15  # of the frame's side: how far beyond it something new may reach


def drawn_frame(picture: Image.Image, prompt: str) -> Box | None:
    """The largest red frame drawn in an RGB picture, if the prompt mentions one.

    A frame has four straight red sides and is not filled with red.
    """
    if not _OF_A_FRAME.search(prompt):
        return None
    red, green, blue = np.asarray(picture, np.int16).transpose(2, 0, 1)
    lines = (red > 190) & (green < 90) & (blue < 90)
    height, width = lines.shape
    slack = max(2, round(0.01 * max(width, height)))
    edges: dict[tuple[int, int], list[int]] = {}  # where red runs start and end -> their rows
    for y in np.flatnonzero(lines.sum(1) >= _SIDE * width):
        ends = np.flatnonzero(np.diff(lines[y], prepend=False, append=False))
        start, stop = max(zip(ends[::2], ends[1::2]), key=lambda run: run[1] - run[0])
        known = next((e for e in edges if abs(e[0] - start) <= slack and abs(e[1] - stop) <= slack), None)
        edges.setdefault(known or (int(start), int(stop)), []).append(int(y))
    best, largest = None, 0
    for (x0, x1), rows in edges.items():
        y0, y1 = rows[0], rows[-1] + 1
        if y1 - y0 < _SIDE * height or x1 - x0 < _SIDE * width or (x1 - x0) * (y1 - y0) <= largest:
            continue
        left, right = (lines[y0:y1, max(0, x - slack) : x + slack].any(1).mean() for x in (x0, x1))
        inner = lines[y0:y1, x0:x1][2 * slack : -2 * slack, 2 * slack : -2 * slack]
        if min(left, right) > 0.85 and inner.size and inner.mean() < 0.5:
            best, largest = (x0, y0, x1 - x0, y1 - y0), (x1 - x0) * (y1 - y0)
    return best


def _around(box: Box, size: Size) -> Box:
    x, y, width, height = box
    room = round(_ROOM * max(width, height))
    x0, y0 = max(0, x - room), max(0, y - room)
    return (x0, y0, min(size[0], x + width + room) - x0, min(size[1], y + height + room) - y0)


def draw_on(picture: Image.Image, overlay: Image.Image) -> Image.Image:
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def edit_mask_of(request: EditRequest, picture: Picture, overlay: Image.Image | None) -> Image.Image | None:
    """Where the edit may act: a mask (mode L) of the picture's size; None: anywhere.

    Several pointers are multiplied. Strokes count as their bounding box. Raises BadRequest if a pointer is
    empty, outside of the picture or of another size.
    """
    pointers = []
    if request.box is not None:
        pointers.append(_filled(check_box(request.box, picture.size), picture.size))
    if overlay is not None:
        strokes = overlay.getchannel("A")
        bounds = strokes.point(lambda value: 255 * (value > 127)).getbbox() or strokes.getbbox()
        assert bounds is not None  # an empty overlay is refused by `overlay_of`
        x0, y0, x1, y1 = bounds
        pointers.append(_filled((x0, y0, x1 - x0, y1 - y0), picture.size))
    if request.mask is not None:
        pointers.append(
            _same_size(pictures.load(request.mask, "the mask"), picture.size, "mask").opaque_rgb.convert("L")
        )
    if not pointers:
        frame = drawn_frame(picture.opaque_rgb, request.prompt)
        return None if frame is None else _filled(_around(frame, picture.size), picture.size)
    edit_mask = pointers[0]
    for other in pointers[1:]:
        edit_mask = ImageChops.multiply(edit_mask, other)
    if edit_mask.getbbox() is None:
        what = (
            "box, mask and markup have no pixel in common"
            if len(pointers) > 1
            else "the mask is empty (all black)"
        )
        raise BadRequest(f"{what}; mark what may change in white")
    return edit_mask


def check_box(box: Box, size: Size) -> Box:
    """Return the box. Raises BadRequest unless it lies within the picture."""
    x, y, width, height = box
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > size[0] or y + height > size[1]:
        raise BadRequest(
            f"box {x},{y},{width},{height} is not inside the picture, which is {size[0]}x{size[1]} pixels; "
            "give X,Y,W,H with the corner at the top left"
        )
    return x, y, width, height


def _same_size(pointer: Picture, size: Size, name: str) -> Picture:
    if pointer.size != size:
        raise BadRequest(
            f"the {name} is {pointer.size[0]}x{pointer.size[1]} and the picture {size[0]}x{size[1]} pixels; "
            "they must be equal"
        )
    return pointer


def _filled(box: Box, size: Size) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return mask
