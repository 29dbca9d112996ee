"""Layout of several context pictures: by token positions, or side by side on one canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from kontext.engine.context import Canvas, Origin
from kontext.engine.sizes import Size, plan_edit
from kontext.pictures import Picture


@dataclass(frozen=True)
class PlacedContext:
    """A context and the position of its first token."""

    canvas: Canvas
    origin: Origin


def lay_out(
    first: Canvas | None, others: Sequence[Picture], layout: str, sizes: Sequence[Size], token_pixels: int
) -> tuple[PlacedContext, ...]:
    """The contexts of an edit: the picture, if there is one, then the references.

    "index": each has its own index. "offset": all have index 1 and share one plane, each placed to the right
    of or below the previous ones, whichever is closer to a square (as in ComfyUI). "stitch": one picture,
    side by side at the height of the first.
    """
    if layout == "stitch" and others:
        if first is None:
            first, others = canvas_of(others[0], sizes), others[1:]
        return (PlacedContext(_stitched(first, others, token_pixels), (1, 0, 0)),)
    canvases = [*([first] if first else []), *(canvas_of(other, sizes) for other in others)]
    if layout == "offset":
        origins = _offsets([canvas.grid(token_pixels) for canvas in canvases])
    else:
        origins = [(index, 0, 0) for index in range(1, len(canvases) + 1)]
    return tuple(map(PlacedContext, canvases, origins))


def canvas_of(picture: Picture, sizes: Sequence[Size]) -> Canvas:
    """The whole picture on a canvas of one of the sizes, as a context."""
    return Canvas(plan_edit(picture.size, "match", sizes).place(picture.opaque_rgb))


def _offsets(grids: Sequence[tuple[int, int]]) -> list[Origin]:
    """Origins of grids of tokens (rows, columns) that share a plane without overlap."""
    origins, height, width = [], 0, 0
    for rows, columns in grids:
        row, column = (0, width) if height + rows > width + columns else (height, 0)
        origins.append((1, row, column))
        height, width = max(height, row + rows), max(width, column + columns)
    return origins


def _stitched(first: Canvas, others: Sequence[Picture], token_pixels: int) -> Canvas:
    """One canvas: the first, and the others to its right, scaled to its height."""
    height, parts = first.image.height, [first.image]
    for other in others:
        width = max(1, round(height * other.size[0] / other.size[1]))
        width_used = -(-width // token_pixels) * token_pixels
        parts.append(plan_edit(other.size, "match", [(width_used, height)]).place(other.opaque_rgb))
    joined = Image.new("RGB", (sum(part.width for part in parts), height))
    left = 0
    for part in parts:
        joined.paste(part, (left, 0))
        left += part.width
    return Canvas(joined)
