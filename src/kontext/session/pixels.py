"""Pictures as the store keeps them: PNG files of 8-bit RGB, RGBA or L (regions, masks), lossless to the bit.

Only pixels pass: text, EXIF (camera, place) and profiles of the file a picture came from are left behind.
"""

import hashlib
import io
from typing import Any

from PIL import Image

from kontext.engine.pictures import MAX_PIXELS, load
from kontext.errors import BadPicture

MODES = ("RGB", "RGBA", "L")


def as_picture(given: Any) -> Image.Image:
    """Path, bytes, PIL picture or uint8 array -> upright RGB or RGBA. Raises NotFound, BadPicture."""
    return load(given).whole


def to_png(picture: Image.Image) -> bytes:
    """Pixels alone, as a PNG file. The same pixels give the same bytes."""
    file = io.BytesIO()
    bare(picture).save(file, "PNG", compress_level=4)
    return file.getvalue()


def from_png(data: bytes) -> Image.Image:
    """A PNG file of one of our modes -> picture. Raises BadPicture."""
    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if picture.mode not in MODES or picture.width * picture.height > MAX_PIXELS:
            raise BadPicture(f"a PNG of mode {picture.mode}, {picture.size}; stored are 8-bit RGB, RGBA or L")
        picture.load()
    except BadPicture:
        raise
    except Exception as error:  # decoders of hostile bytes raise almost anything
        raise BadPicture(f"a damaged PNG ({error})") from None
    return bare(picture)


def bare(picture: Image.Image) -> Image.Image:
    """The same pixels without anything else that came with them."""
    return Image.frombytes(picture.mode, picture.size, picture.tobytes())


def digest(picture: Image.Image) -> str:
    """sha256 (hex) of mode, size and raw pixels: the same for every file format that keeps the pixels."""
    head = f"{picture.mode} {picture.width}x{picture.height}\n".encode()
    return hashlib.sha256(head + picture.tobytes()).hexdigest()
