"""Pixels of any mode and depth to 8-bit sRGB and alpha.

Depth is scaled by the range that the file declares: 65535 of 16 bits becomes 255. ICC profiles are compared
with sRGB by their effect on colors, not by name.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, features
from PIL.ImageFile import ImageFile

from kontext.errors import BadPicture
from kontext.pictures import code_points

if TYPE_CHECKING:
    Profile = ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile

SAME_LEVELS = 2  # of 255: a profile that moves no color by more is sRGB, up to the rounding of its tables


@dataclass(frozen=True)
class Pixels:
    """A decoded picture before its colors are converted."""

    image: Image.Image
    """Of any mode; 8 bits per channel if `wide` is set."""
    wide: np.ndarray | None = None
    """(height, width, channels) uint16: the full values of a picture that Pillow decodes to 8 bits."""
    gray_levels: int = 255
    """Largest value of a gray sample in the file, by which a transparent gray is scaled."""
    deep: bool = False
    """Whether the file has more than 8 bits per channel."""


def convert(
    pixels: Pixels,
    profile: bytes | None,
    gamma: float | None = None,
    points: code_points.CodePoints | None = None,
) -> tuple[Image.Image, Image.Image | None]:
    """The picture as RGB in sRGB, and alpha (mode L, None if opaque). Raises BadPicture for unknown modes.

    gamma: exponent from values to light, of a picture without a profile; None: that of sRGB.
    points: code points of a gray or RGB picture without a profile; None: those of sRGB.
    """
    image, wide = pixels.image, pixels.wide
    alpha = _alpha(pixels)
    if alpha is not None and alpha.getextrema()[0] == 255:
        alpha = None
    if wide is not None:
        color = _rounded(wide, 65535)
        if color.shape[2] == 2:
            image = Image.fromarray(color[..., 0])
        elif image.mode == "CMYK":
            image = Image.fromarray(np.ascontiguousarray(color), "CMYK")
        else:
            image = Image.fromarray(np.ascontiguousarray(color[..., :3]))
    elif image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    else:
        image = _opaque(image)
    if points is not None:
        return Image.fromarray(code_points.to_srgb(_rgb_samples(pixels, image), points)), alpha
    image = _srgb(image, profile)
    return image if gamma is None else image.point(_gamma_table(gamma) * 3), alpha


def _rgb_samples(pixels: Pixels, image: Image.Image) -> np.ndarray:
    """The samples (height, width, 3) of a gray or RGB picture, in 16 bits where it has them."""
    gray = pixels.image if pixels.image.mode.startswith("I") else None
    wide = pixels.wide if gray is None else np.asarray(gray).astype(np.uint16)[..., None]
    if wide is None:
        return np.asarray(image.convert("RGB"))
    return wide[..., :3] if wide.shape[2] > 2 else wide[..., :1].repeat(3, -1)


def _gamma_table(gamma: float) -> list[int]:
    """sRGB of the 256 values of a channel whose light is value ** gamma (IEC 61966-2-1)."""
    light = (np.arange(256) / 255) ** gamma
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * srgb).astype(int).tolist()


def _alpha(pixels: Pixels) -> Image.Image | None:
    image, wide = pixels.image, pixels.wide
    if wide is not None and wide.shape[2] in (2, 4) and image.mode != "CMYK":
        return Image.fromarray(_rounded(wide[..., -1], 65535))
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "PA", "RGBA"):
        return image.getchannel("A")
    clear = image.info.get("transparency")
    if image.mode == "P":
        palette_alpha = image.palette is not None and image.palette.mode.endswith("A")
        return image.convert("RGBA").getchannel("A") if clear is not None or palette_alpha else None
    if clear is None:
        return None
    values = np.asarray(image) if wide is None else wide
    if image.mode == "1":
        values, clear = values.astype(np.uint8) * 255, 255 if clear else 0
    elif image.mode == "L" and isinstance(clear, int):
        clear = clear * 255 // pixels.gray_levels
    if np.shape(clear) != values.shape[2:]:
        return None
    equal = values == np.asarray(clear)
    equal = equal.all(-1) if equal.ndim == 3 else equal
    return Image.fromarray(np.where(equal, 0, 255).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """An 8-bit picture as L, RGB, CMYK or LAB; the colors of transparent pixels are kept."""
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    if image.mode in ("1", "LA", "La"):
        return (image.convert("LA") if image.mode == "La" else image).convert("L")
    if image.mode in ("P", "PA", "RGBA", "RGBa"):
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")  # YCbCr, HSV, RGBX


def _rounded(values: np.ndarray, full: float) -> np.ndarray:
    if values.dtype == np.uint16:  # large pictures: no floating point copy of them
        return np.rint(np.arange(65536) * (255.0 / full)).clip(0, 255).astype(np.uint8)[values]
    return np.rint(values.astype(np.float64) * (255.0 / full)).clip(0, 255).astype(np.uint8)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 12, 16 or 32 bits, integer or floating point, as mode L.

    16 bits are scaled by their full range. Whole numbers of 32 bits and floating point have no range that
    programs agree on: it is 1 (floating point), 255, 65535 or all 32 bits, the first that holds the values.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))[0] if image.format == "TIFF" else 16
    signed = image.format == "TIFF" and tags.get(339, (1,))[0] == 2
    if image.mode.startswith("I;16"):
        full = float(2**bits - 1)
    elif image.mode == "I" and (image.format in ("PNG", "PPM") or bits == 16 and image.format == "TIFF"):
        full = 32767.0 if signed else 65535.0
    else:
        if image.mode == "I" and image.format == "TIFF" and not signed:
            values = values.astype(np.int32).view(np.uint32)
        values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=0.0)
        finite = values[np.isfinite(values)]
        top = float(finite.max(initial=0.0))
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        full = next(
            (maximum for maximum in ranges if top <= maximum), 2.0**32 - 1 if not signed else 2.0**31 - 1
        )
    gray = _rounded(values, full)
    if image.format == "TIFF" and tags.get(262) == 0:  # white is zero, which Pillow inverts up to 8 bits only
        gray = 255 - gray
    return Image.fromarray(gray)


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Mode L, RGB, CMYK or LAB to RGB in sRGB. A broken or unfitting profile is ignored, as in browsers."""
    if image.mode == "LAB":
        if not features.check("littlecms2"):
            raise BadPicture("a Lab picture, which cannot be read here; save it as RGB")
        return _transformed(image, ImageCms.createProfile("LAB"))
    if profile and features.check("littlecms2"):
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = embedded.profile.xcolor_space.strip()
            if space == "RGB" and image.mode == "L":
                image = image.convert("RGB")
            if (space, image.mode) in (("RGB", "RGB"), ("GRAY", "L"), ("CMYK", "CMYK")):
                return (
                    image.convert("RGB") if _is_srgb(embedded, image.mode) else _transformed(image, embedded)
                )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image.convert("RGB")


def _transformed(image: Image.Image, profile: Profile, intent: int = 0) -> Image.Image:
    """Mode L, RGB, CMYK or LAB through a profile, as RGB in sRGB."""
    if image.mode == "L":  # a table of all grays is exact; those of lcms are too coarse for linear profiles
        grays = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        table = np.asarray(_applied(grays, profile, intent, ImageCms.Flags.NOOPTIMIZE))[0]
        return Image.fromarray(table[np.asarray(image)])
    return _applied(image, profile, intent, ImageCms.Flags.HIGHRESPRECALC)


def _applied(image: Image.Image, profile: Profile, intent: int, flags: ImageCms.Flags) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(profile, srgb, image.mode, "RGB", ImageCms.Intent(intent), flags)
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # as it is not done in place
    return converted


def _is_srgb(profile: ImageCms.ImageCmsProfile, mode: str) -> bool:
    """Whether a profile keeps all grays, all shades of the primaries and a grid of colors unchanged.

    With either intent: the intents of a profile with measured tables may differ.
    """
    if mode == "CMYK":
        return False
    ramp = np.arange(256, dtype=np.uint8)
    if mode == "L":
        probe = ramp[None]
    else:
        steps = np.arange(0, 256, 17, dtype=np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
        shades = [
            ramp[:, None] * np.array(weights, np.uint8)
            for weights in ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))
        ]
        probe = np.concatenate([grid, *shades])[None]
    image = Image.fromarray(np.ascontiguousarray(probe))
    expected = np.asarray(image.convert("RGB")).astype(np.int16)
    for intent in (ImageCms.Intent.PERCEPTUAL, ImageCms.Intent.RELATIVE_COLORIMETRIC):
        found = np.asarray(_transformed(image, profile, intent))
        if np.abs(found - expected).max() <= SAME_LEVELS:
            return True
    return False


_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode of a picture that is opened but not yet decoded; "" if unknown."""
    if not isinstance(image, ImageFile) or not image.tile:
        return ""
    options = image.tile[0][3]
    first = options[0] if isinstance(options, tuple | list) and options else options
    return first if isinstance(first, str) else ""


def is_deep(image: Image.Image, stored: str) -> bool:
    """Whether a picture has more than 8 bits per channel, by its mode or its raw mode."""
    options = image.tile[0][3] if isinstance(image, ImageFile) and image.tile else ()
    largest = options[-1] if isinstance(options, tuple) and options and image.format == "PPM" else 255
    return (
        image.mode.startswith("I")
        or image.mode == "F"
        or re.search(r";(12|16|32)", stored) is not None
        or isinstance(largest, int)
        and largest > 255
    )


def gray_levels(stored: str) -> int:
    """The largest gray value of a PNG with the raw mode `stored`."""
    return {"L;2": 3, "L;4": 15}.get(stored, 255)


def wide_values(image: Image.Image, stored: str, data: bytes) -> np.ndarray | None:
    """The 16-bit values (height, width, channels) of a decoded picture; None where it has other samples.

    `data` is its file, `stored` the raw mode of the pixels there.

    Pillow has no mode for several channels of 16 bits: it decodes their upper bytes, and, asked for the other
    byte order, the lower ones.
    """
    if stored == "LA;16B":
        raw = np.asarray(_decoded(data, image.format, lambda _: "RGBA"))  # two bytes of gray, two of alpha
        return raw[..., 0::2] * np.uint16(256) + raw[..., 1::2]
    kind, _, order = stored.partition(";16")
    if kind not in ("RGB", "RGBA", "RGBX", "CMYK", "R") or order not in _OTHER_ORDER:
        return None
    lower = _decoded(data, image.format, lambda mode: mode[: -len(order)] + _OTHER_ORDER[order])
    return np.asarray(image) * np.uint16(256) + np.asarray(lower)


def _decoded(data: bytes, format: str | None, renamed: Callable[[str], str]) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=(format or "",))
    correct_tiff(image)
    _rename(image, renamed)
    image.load()
    return image


def _rename(image: ImageFile, renamed: Callable[[str], str]) -> None:
    """Replace the raw modes with which an opened picture will be decoded."""
    tiles = []
    for tile in image.tile:
        options: tuple[Any, ...] | str | None = tile.args
        if isinstance(options, tuple | list):
            options = (renamed(options[0]), *options[1:])
        elif options is not None:
            options = renamed(options)
        tiles.append(tile._replace(args=options))
    image.tile = tiles


_NATIVE = {"F;32BF": "F;32NF", "I;16BS": "I;16NS", "I;32BS": "I;32NS"}


def correct_tiff(image: Image.Image) -> None:
    """Correct the raw modes of two kinds of TIFF before they are decoded.

    libtiff hands over samples in the order of this machine, also those of a big-endian file; and planes of 16
    bits that are not compressed are not planes of 8.
    """
    if image.format != "TIFF":
        return
    from PIL.TiffImagePlugin import TiffImageFile

    if not isinstance(image, TiffImageFile) or not image.tile:
        return
    tags = image.tag_v2
    if image.tile[0][0] == "libtiff":
        _rename(image, lambda mode: _NATIVE.get(mode, mode))
    elif tags.get(284) == 2 and set(tags.get(258, ())) == {16} and tags.get(262) in (2, 5):
        order = "L" if tags.prefix == b"II" else "B"
        _rename(image, lambda mode: f"{mode};16{order}")
