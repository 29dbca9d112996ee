"""What a person points at: a box, a mask or strokes over the picture, as one soft mask of where the edit
may act.

The model is shown the box and the strokes (a red frame drawn in the picture is how one points in FLUX.1
Kontext); the mask it is not shown: it only limits.
"""

from __future__ import annotations

from PIL import Image, ImageChops, ImageDraw

from kontext.engine import pictures
from kontext.engine.pictures import Picture
from kontext.engine.requests import EditRequest
from kontext.engine.sizes import Box, Size
from kontext.errors import BadRequest

FRAME_COLOUR = (255, 0, 0, 255)
FRAME_WIDTH = 1 / 64  # of the picture's shorter side


def overlay_of(request: EditRequest, picture: Picture) -> Image.Image | None:
    """What is drawn over the picture for the model to see: the person's markup, and a red frame for the
    box. RGBA.
    """
    overlay = None
    if request.markup is not None:
        given = _same_size(pictures.load(request.markup, "the markup"), picture.size, "markup")
        if given.alpha is None:
            raise BadRequest(
                "the markup has no transparent part; draw on a transparent layer as large as the picture"
            )
        overlay = given.whole
        if overlay.getchannel("A").getbbox() is None:
            raise BadRequest("the markup is empty; draw around what is to change, or leave it away")
    if request.box is not None:
        overlay = overlay or Image.new("RGBA", picture.size)
        x, y, width, height = check_box(request.box, picture.size)
        line = max(1, round(min(picture.size) * FRAME_WIDTH))
        around = (x - line, y - line, x + width + line - 1, y + height + line - 1)
        ImageDraw.Draw(overlay).rectangle(around, outline=FRAME_COLOUR, width=line)
    return overlay


def draw_on(picture: Image.Image, overlay: Image.Image) -> Image.Image:
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def inside_of(request: EditRequest, picture: Picture) -> Image.Image | None:
    """Where the edit may act, as large as the picture, mode L; None: anywhere.

    Several pointers narrow each other. Strokes stand for the box around them. Raises BadRequest when a
    pointer is empty, outside the picture or of another size.
    """
    pointers = []
    if request.box is not None:
        pointers.append(_filled(check_box(request.box, picture.size), picture.size))
    if request.markup is not None:
        strokes = _same_size(pictures.load(request.markup, "the markup"), picture.size, "markup").alpha
        x0, y0, x1, y1 = strokes.point(lambda value: 255 if value > 127 else 0).getbbox() or strokes.getbbox()
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
