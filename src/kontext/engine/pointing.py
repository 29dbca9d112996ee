"""What a person points at: a box, a mask or strokes over the picture, as one soft mask of where the edit
may act.

Strokes are shown to the model (a red frame around a thing is how one points in FLUX.1 Kontext). Box and mask
only limit: shown as a frame, a box made the edits of nano worse, and every box would need a new prefix.
"""

from __future__ import annotations

from PIL import Image, ImageChops

from kontext.engine import pictures
from kontext.engine.pictures import Picture
from kontext.engine.requests import EditRequest
from kontext.engine.sizes import Box, Size
from kontext.errors import BadRequest


def overlay_of(request: EditRequest, picture: Picture) -> Image.Image | None:
    """The strokes to draw over the picture for the model to see, RGBA. Raises BadRequest when there are
    none.
    """
    if request.markup is None:
        return None
    given = _same_size(pictures.load(request.markup, "the markup"), picture.size, "markup")
    if given.alpha is None:
        raise BadRequest("the markup has no transparent part; draw on a transparent layer over the picture")
    if given.alpha.getbbox() is None:
        raise BadRequest("the markup is empty; draw around what is to change, or leave it away")
    return given.whole


def draw_on(picture: Image.Image, overlay: Image.Image) -> Image.Image:
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def inside_of(request: EditRequest, picture: Picture, overlay: Image.Image | None) -> Image.Image | None:
    """Where the edit may act, as large as the picture, mode L; None: anywhere.

    Several pointers narrow each other. Strokes stand for the box around them. Raises BadRequest when a
    pointer is empty, outside the picture or of another size.
    """
    pointers = []
    if request.box is not None:
        pointers.append(_filled(check_box(request.box, picture.size), picture.size))
    if overlay is not None:
        strokes = overlay.getchannel("A")
        x0, y0, x1, y1 = strokes.point(lambda value: 255 * (value > 127)).getbbox() or strokes.getbbox()
        pointers.append(_filled((x0, y0, x1 - x0, y1 - y0), picture.size))
    if request.mask is not None:
        pointers.append(
            _same_size(pictures.load(request.mask, "the mask"), picture.size, "mask").flat.convert("L")
        )
    if not pointers:
        return None
    inside = pointers[0]
    for other in pointers[1:]:
        inside = ImageChops.multiply(inside, other)
    if inside.getbbox() is None:
        what = (
            "box, mask and markup have no pixel in common"
            if len(pointers) > 1
            else "the mask is empty (all black)"
        )
        raise BadRequest(f"{what}; mark what may change in white")
    return inside


def check_box(box: Box, size: Size) -> Box:
    """The box as four whole numbers, or BadRequest unless it lies within the picture."""
    try:
        x, y, width, height = (int(edge) for edge in box)
        whole = all(int(edge) == edge for edge in box)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"box {box} is not understood; give X,Y,W,H in pixels") from error
    if not whole or x < 0 or y < 0 or width < 1 or height < 1 or x + width > size[0] or y + height > size[1]:
        raise BadRequest(
            f"box {x},{y},{width},{height} is not inside the picture, which is {size[0]}x{size[1]} pixels; "
            "give X,Y,W,H with the corner at the top left"
        )
    return x, y, width, height


def _same_size(given: Picture, size: Size, name: str) -> Picture:
    if given.size != size:
        raise BadRequest(
            f"the {name} is {given.size[0]}x{given.size[1]} and the picture {size[0]}x{size[1]} pixels; "
            "they must be equal"
        )
    return given


def _filled(box: Box, size: Size) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return mask
