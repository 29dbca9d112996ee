"""Output size and canvas from the size of a picture and a size_spec: match, WxH or W:H.

The model works at the sizes of its preset (`preset.sizes`). A picture is scaled into such a canvas with its
aspect ratio kept, and the rest of the canvas is filled with its edge pixels. The result is mapped back the
same way and aligns with the original pixel by pixel. Pictures are never stretched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kontext.errors import BadRequest
from kontext.pictures import MAX_PIXELS, MAX_SIDE, MIN_SIDE

Size = tuple[int, int]  # (width, height) in pixels
Box = tuple[int, int, int, int]  # (x, y, width, height) in pixels


@dataclass(frozen=True)
class SizePlan:
    """Placement of a picture.

    `crop` is the part of the original that is used, `inner` its place on the canvas.
    """

    canvas: Size
    inner: Box
    output: Size
    crop: Box | None  # None: no original (text to picture)

    @property
    def cropped(self) -> bool:
        """Whether part of the original is cut off because the requested size has another aspect ratio."""
        return self.crop is not None and self._original != self.crop[2:]

    _original: Size | None = None

    def place(self, picture: Image.Image) -> Image.Image:
        """The original on the canvas: cropped, scaled with antialiasing, padded with its edge pixels.

        Keeps the mode.
        """
        assert self.crop is not None
        x, y, width, height = self.crop
        left, top, inner_width, inner_height = self.inner
        part = picture if self.crop == (0, 0, *picture.size) else picture.crop((x, y, x + width, y + height))
        part = resample(part, (inner_width, inner_height))
        if (inner_width, inner_height) == self.canvas:
            return part
        right, bottom = self.canvas[0] - left - inner_width, self.canvas[1] - top - inner_height
        pixels = np.asarray(part)
        widths = ((top, bottom), (left, right), (0, 0))[: pixels.ndim]
        return Image.fromarray(np.pad(pixels, widths, mode="edge"))

    def restore(
        self, canvas: Image.Image, method: Image.Resampling = Image.Resampling.LANCZOS
    ) -> Image.Image:
        """The inverse of `place`: the picture's part of the canvas at output size."""
        left, top, width, height = self.inner
        if (left, top, width, height) != (0, 0, *canvas.size):
            canvas = canvas.crop((left, top, left + width, top + height))
        return resample(canvas, self.output, method)

    def original(self, picture: Image.Image) -> Image.Image:
        """The used part of the original at output size; the exact pixels if nothing is scaled."""
        assert self.crop is not None
        x, y, width, height = self.crop
        if self.crop != (0, 0, *picture.size):
            picture = picture.crop((x, y, x + width, y + height))
        return resample(picture, self.output)


def resample(
    image: Image.Image, size: Size, method: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    """Scale to `size` with antialiasing; returns the same object if it has that size."""
    return image if image.size == size else image.resize(size, method)


def scaled_canvases(sizes: Sequence[Size], canvas: int | None, step: int) -> tuple[Size, ...]:
    """A model's canvases scaled to about the area of a square of `canvas` pixels a side, in steps of `step`.

    None: as they are. Raises BadRequest for a model that works at one size only.
    """
    if canvas is None or (len(sizes) == 1 and sizes[0] == (canvas, canvas)):
        return tuple(sizes)
    if len(sizes) == 1:
        width, height = sizes[0]
        raise BadRequest(f"canvas {canvas}: this model works at {width}x{height} only; omit the canvas")
    scaled = ((w * canvas / math.sqrt(w * h), h * canvas / math.sqrt(w * h)) for w, h in sizes)
    return tuple(dict.fromkeys((_in_steps(w, step), _in_steps(h, step)) for w, h in scaled))


def _in_steps(side: float, step: int) -> int:
    return max(1, round(side / step)) * step


def preferred(sizes: Iterable[Size], aspect: float) -> Size:
    """The size with the nearest aspect ratio (width / height).

    On ties the smaller width, as in FLUX.1 Kontext.
    """
    return min(sizes, key=lambda size: (abs(aspect - size[0] / size[1]), size[0]))


def plan_edit(original: Size, size_spec: str | Size, sizes: Iterable[Size]) -> SizePlan:
    """The plan of an edit of a picture of size `original`.

    "match": output as large as the original. "WxH": exactly that. "W:H": the largest part of the original
    with that aspect. Where the aspect differs from the original's, the original is cropped about its
    middle. Raises BadRequest for a size_spec that cannot be parsed or is outside the limits.
    """
    kind, width, height = parse(size_spec)
    if kind == "match":
        crop_size = output = original
    elif kind == "aspect":
        crop_size = output = check(_largest_within(original, width / height), size_spec)
    else:
        output = check((width, height), size_spec)
        crop_size = _largest_within(original, width / height)
    crop = (*_centered(crop_size, original), *crop_size)
    canvas = preferred(sizes, crop_size[0] / crop_size[1])
    inner = _largest_fitting(crop_size, canvas)
    return SizePlan(canvas, (*_centered(inner, canvas), *inner), output, crop, original)


def plan_generate(size_spec: str | Size | None, sizes: Iterable[Size]) -> SizePlan:
    """The plan of a generated picture; None: the model's square (or squarest) size."""
    sizes = tuple(sizes)
    if size_spec is None:
        canvas = output = preferred(sizes, 1.0)
        return SizePlan(canvas, (0, 0, *canvas), output, None)
    kind, width, height = parse(size_spec)
    if kind == "match":
        raise BadRequest("size 'match' needs a picture to match; give WxH or W:H, such as 1024x768 or 4:3")
    canvas = preferred(sizes, width / height)
    inner = _largest_within(canvas, width / height)
    output = check((width, height) if kind == "exact" else inner, size_spec)
    return SizePlan(canvas, (*_centered(inner, canvas), *inner), output, None)


def parse(size_spec: str | Size) -> tuple[str, int, int]:
    """("match", 0, 0), ("exact", width, height) or ("aspect", width, height)."""
    if isinstance(size_spec, tuple | list) and len(size_spec) == 2:
        size_spec = f"{size_spec[0]}x{size_spec[1]}"
    text = str(size_spec).strip().lower()
    if text == "match":
        return "match", 0, 0
    found = re.fullmatch(r"(\d{1,9})\s*([x×:])\s*(\d{1,9})", text)
    if not found:
        raise BadRequest(
            f"size '{size_spec}' is invalid; use match, WxH (such as 1024x768) or W:H (such as 16:9)"
        )
    width, height = int(found[1]), int(found[3])
    if found[2] == ":":
        if not (width and height and 1 / 16 <= width / height <= 16):
            raise BadRequest(f"aspect '{size_spec}' is outside 1:16 to 16:1")
        return "aspect", width, height
    check((width, height), size_spec)
    return "exact", width, height


def check(size: Size, size_spec: object) -> Size:
    """Return `size`. Raises BadRequest if it is outside of the limits of a picture."""
    width, height = size
    if min(size) < MIN_SIDE or max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise BadRequest(
            f"size '{size_spec}' would give {width}x{height} pixels; each side must be {MIN_SIDE} to "
            f"{MAX_SIDE} pixels, and the area at most {MAX_PIXELS // 2**20} megapixels"
        )
    return size


def _largest_within(size: Size, aspect: float) -> Size:
    """The largest size of this aspect inside `size`, to the nearest pixel."""
    width, height = size
    if width / height > aspect:
        return max(1, min(width, round(height * aspect))), height
    return width, max(1, min(height, round(width / aspect)))


def _largest_fitting(size: Size, canvas: Size) -> Size:
    return _largest_within(canvas, size[0] / size[1])


def _centered(size: Size, within: Size) -> tuple[int, int]:
    return (within[0] - size[0]) // 2, (within[1] - size[1]) // 2
