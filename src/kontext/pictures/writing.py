"""Writes pictures atomically: a file under its final name is always complete."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kontext.errors import BadRequest
from kontext.pictures.reading import XMP, load

WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def cutout(picture: Image.Image, region: Image.Image) -> Image.Image:
    """The region of a picture on a transparent background."""
    return Image.merge("RGBA", (*picture.convert("RGB").split(), region))


def format_for(path: os.PathLike | str) -> str:
    """The Pillow format for a file name. Raises BadRequest for other extensions."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        what = f"cannot write '{suffix}'" if suffix else "there is no folder of this name"
        raise BadRequest(f"{path}: {what}; end the name in .png, .jpg or .webp")
    return WRITABLE[suffix]


def encode(image: Image.Image, format: str = "PNG", text: Mapping[str, str] | None = None) -> bytes:
    """Encode a PIL image. `text` becomes PNG iTXt chunks; JPEG and WebP store `parameters` in EXIF and XMP.

    JPEG has no transparency: the picture is composited over white.
    """
    buffer = io.BytesIO()
    if format == "PNG":
        chunks = PngInfo()
        for key, value in (text or {}).items():
            chunks.add_itxt(key, value)
        image.save(buffer, "PNG", pnginfo=chunks, compress_level=4)
        return buffer.getvalue()
    if format == "JPEG" and image.mode != "RGB":
        image = load(image).opaque_rgb
    extra: dict[str, Any] = {"subsampling": 0} if format == "JPEG" else {}
    if text and "parameters" in text:
        extra["exif"] = Image.Exif()
        comment = b"UNICODE\0" + text["parameters"].encode("utf-16-be")
        extra["exif"][0x8769] = {0x9286: comment}  # Exif IFD, UserComment
    if text and XMP in text:
        extra["xmp"] = text[XMP].encode()
    image.save(buffer, format, quality=95, **extra)
    return buffer.getvalue()


def save(image: Image.Image, path: os.PathLike | str, text: Mapping[str, str] | None = None) -> Path:
    """Write a picture atomically in the format of the extension of `path`. Raises BadRequest."""
    return write(path, encode(image, format_for(path), text))


def write(path: os.PathLike | str, data: bytes, replace: bool = True) -> Path:
    """Write bytes atomically, by renaming a temporary file.

    Raises BadRequest, also for a device or pipe of this name, and without `replace` for a file that exists.
    """
    path = Path(path)
    check_regular(path)
    part = _temporary(path)
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not replace:
            _claim(path)
        os.replace(part, path)
    except FileExistsError as error:
        raise BadRequest(f"{path}: exists already; give another name") from error
    except OSError as error:
        raise BadRequest(
            f"{path}: cannot be written ({error.strerror}); is the folder there and yours?"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _temporary(path: Path) -> Path:
    """A temporary name in the folder of `path`, never too long for the file system."""
    return path.with_name(f".{secrets.token_hex(4)}.part")


def check_regular(path: Path) -> None:
    """Raise BadRequest for a device, pipe or socket: a file would take its place."""
    try:
        special = path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):  # not a name of anything
        return
    if special:
        raise BadRequest(f"{path}: a device, pipe or socket, not a file; choose another name")


def check_writable(path: os.PathLike | str) -> None:
    """Raise BadRequest if it is already known that a file of this name cannot be written."""
    path = Path(path)
    folder = path.parent
    if "\0" in str(path):
        raise BadRequest(f"{str(path)!r}: cannot be written (a zero byte in the name); choose another name")
    check_regular(path)
    try:
        format_for(path)
        above = next((each for each in path.parents if os.path.lexists(each)), folder)
        if not above.is_dir():
            raise BadRequest(f"{path}: {above} is a file, not a folder; choose another name")
        if not folder.is_dir():
            raise BadRequest(f"{path}: the folder {folder} does not exist; make it first")
        if path.is_dir():
            raise BadRequest(f"{path}: a folder has this name; choose another")
        part = _temporary(path)
        part.touch(exist_ok=False)
        part.unlink()
    except OSError as error:
        raise BadRequest(f"{path}: cannot be written ({error.strerror}); choose another name") from None


def _claim(path: Path) -> None:
    """Reserve a new name with an empty file, to be replaced immediately. Raises FileExistsError."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
