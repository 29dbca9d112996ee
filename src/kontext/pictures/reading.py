"""Reads pictures: every input becomes upright 8-bit sRGB with its alpha in a separate plane.

Files that are not pictures, are truncated or exceed the limits are rejected before they are decoded.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from kontext.errors import BadPicture, NotFound
from kontext.pictures import color, formats

log = logging.getLogger(__name__)

MIN_SIDE = 16
MAX_SIDE = 16384
MAX_PIXELS = 8192 * 8192
MAX_NAME_BYTES = 255  # of a file name, on all usual file systems

READABLE = formats.READABLE
XMP = "XML:com.adobe.xmp"  # the key under which PNG keeps an XMP packet

PictureLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Picture"


@dataclass(frozen=True)
class Picture:
    """A picture: `rgb` (mode RGB, upright, sRGB, straight colors), `alpha` (mode L, None if opaque)."""

    rgb: Image.Image
    alpha: Image.Image | None = None
    warnings: tuple[str, ...] = ()
    source: str = "the picture"
    history: bytes | None = field(default=None, repr=False, compare=False)
    """The file, if it is a PNG with a `kontext` text: its unverified provenance."""
    is_result: bool = field(default=False, repr=False, compare=False)
    """Whether an edit made it: a PNG with history, a PIL image of one, or `Result.picture` itself."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.size

    @cached_property
    def opaque_rgb(self) -> Image.Image:
        """The input of the model: the picture over white where it is transparent, mode RGB."""
        if self.alpha is None:
            return self.rgb
        return Image.composite(self.rgb, Image.new("RGB", self.size, "white"), self.alpha)

    @cached_property
    def as_given(self) -> Image.Image:
        """The input picture: RGB, or RGBA if it has transparent pixels."""
        if self.alpha is None:
            return self.rgb
        return Image.merge("RGBA", (*self.rgb.split(), self.alpha))

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of the size and of `opaque_rgb`."""
        header = f"{self.size[0]}x{self.size[1]}:".encode()
        return hashlib.sha256(header + self.opaque_rgb.tobytes()).hexdigest()


class PhotoWarning(str):
    """A warning about the input picture, not about the edit; shown for the first picture of a session."""


def load(picture: PictureLike, source: str | None = None) -> Picture:
    """Load a picture from a path, encoded bytes, PIL image, uint8 array (h, w, 3 or 4) or Picture.

    `source` is its name in error messages. Raises BadPicture (unreadable or outside of the limits), NotFound.
    """
    if isinstance(picture, Picture):
        return picture
    if isinstance(picture, np.ndarray):
        return _from_image(_from_array(picture), source or "the array")
    if isinstance(picture, Image.Image):
        return _from_image(picture, source or "the picture")
    if isinstance(picture, bytes | bytearray | memoryview):
        return _decode(bytes(picture), source or "the data given")
    if isinstance(picture, str | os.PathLike):
        path = Path(picture)
        return _decode(read_file(path), source or str(path))
    raise BadPicture(
        f"{type(picture).__name__} is not a picture; give a path, bytes, a PIL image "
        "or an array (h, w, 3 or 4)"
    )


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises NotFound, and BadPicture for what is not one or cannot be read."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path}: there is no such file") from None
    except ValueError as error:  # a null byte
        raise BadPicture(f"{path!s}: not a file name ({error})") from error
    except OSError as error:
        raise BadPicture(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):  # reading a device or a pipe may never end
        raise BadPicture(f"{path}: not a file; give the path of one picture")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadPicture(f"{path}: cannot be read ({error.strerror})") from error


def _decode(data: bytes, source: str) -> Picture:
    if not data:
        raise BadPicture(f"{source}: the file is empty (0 bytes)")
    with _refusing(source, data):
        lean, metadata = formats.split_png(data) if formats.is_png(data) else (data, None)
        image = Image.open(io.BytesIO(lean), formats=formats.READABLE)
        check_limits(image.size, source)
        color.correct_tiff(image)
        stored = color.raw_mode(image)
        deep = color.is_deep(image, stored) or image.format == "AVIF" and formats.deep_avif(data)
        image.load()
        if metadata is None:
            metadata = _metadata(image)
            if image.format == "AVIF" and metadata.profile is None:
                metadata = replace(metadata, points=formats.avif_points(data))
        pixels = color.Pixels(image, color.wide_values(image, stored, lean), color.gray_levels(stored), deep)
        picture = _finish(pixels, metadata, source)
        history = data if formats.has_history(data) else None
        return replace(picture, history=history, is_result=history is not None)


@contextmanager
def _refusing(source: str, data: bytes = b"") -> Iterator[None]:
    """Convert errors of decoders into BadPicture."""
    try:
        with python_warnings.catch_warnings():
            # Pillow's own remarks on size and metadata; the limits here are ours
            python_warnings.simplefilter("ignore")
            yield
    except (BadPicture, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise BadPicture(f"{source}: {formats.unreadable(data)}") from error
    except Image.DecompressionBombError as error:
        raise BadPicture(f"{source}: too large to open; the limit is {MAX_PIXELS} pixels") from error
    except Exception as error:  # decoders of hostile bytes raise almost anything
        raise BadPicture(f"{source}: damaged or cut short ({error or type(error).__name__})") from error


def check_limits(size: tuple[int, int], source: str) -> None:
    """Raise BadPicture unless every side and the number of pixels are within the limits."""
    width, height = size
    if min(size) < MIN_SIDE:
        raise BadPicture(
            f"{source}: {width}x{height} is too small; each side needs at least {MIN_SIDE} pixels"
        )
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise BadPicture(
            f"{source}: {width}x{height} is too large; at most {MAX_SIDE} pixels a side "
            f"and {MAX_PIXELS // 2**20} megapixels in all, so shrink it first"
        )


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        raise BadPicture(
            f"an array of {array.dtype} {array.shape} is not a picture; give uint8 of (height, width, 3 or 4)"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _from_image(image: Image.Image, source: str) -> Picture:
    """A Picture from a PIL image of the caller."""
    with _refusing(source):
        check_limits(image.size, source)
        deep = color.is_deep(image, color.raw_mode(image))
        image.load()
        picture = _finish(color.Pixels(image, deep=deep), _metadata(image), source)
        return replace(picture, is_result=formats.HISTORY_KEY in image.info)


def _metadata(image: Image.Image) -> formats.Metadata:
    """Profile and orientation of a decoded picture."""
    exif, xmp = image.info.get("exif"), image.info.get(XMP) or image.info.get("xmp")
    if image.format == "TIFF":  # turned upright in decoding
        return formats.Metadata(image.info.get("icc_profile"))
    if isinstance(exif, bytes):
        found = formats.orientation(exif, xmp)
    else:
        found = formats.orientation(None, xmp)
        try:
            found = int(image.getexif().get(0x0112, found))
        except Exception:  # Pillow's reader of EXIF raises almost anything; the pixels are good without it
            log.debug("EXIF of a picture cannot be read", exc_info=True)
    return formats.Metadata(image.info.get("icc_profile"), found)


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _finish(pixels: color.Pixels, metadata: formats.Metadata, source: str) -> Picture:
    """Normalize orientation, color space and depth of a decoded picture."""
    image, notes = pixels.image, []
    # A phone's photograph (MPO) has a preview behind it, which is not a frame.
    frames = getattr(image, "n_frames", 1)
    if image.format != "MPO" and frames > 1:
        notes.append(f"{source} has {frames} frames; only the first is used")
    if pixels.deep:
        notes.append(f"{source} has more than 8 bits a channel; it is edited and returned with 8")
    if metadata.points is not None and metadata.points.is_hdr:
        notes.append(f"{source} is HDR; its highlights are compressed to the range of sRGB")
    rgb, alpha = color.convert(pixels, metadata.profile, metadata.gamma, metadata.points)
    turn = _UPRIGHT.get(metadata.orientation)
    if turn is not None:
        rgb, alpha = rgb.transpose(turn), alpha and alpha.transpose(turn)
    rgb = rgb.copy()
    rgb.info = {}
    return Picture(rgb, alpha, tuple(notes), source)


def looks_like_picture(path: Path) -> bool:
    """Whether a file is a picture: by its extension, by its first bytes, or because it opens."""
    if path.suffix.lower() in formats.EXTENSIONS:
        return True
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            if formats.signature(file.read(formats.HEAD_BYTES)):
                return True
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            with Image.open(path, formats=READABLE):
                pass
        load(path)  # formats without a signature: other files look like them at first
    except Exception:  # decoders of other files raise almost anything
        return False
    return True
