"""Stored pictures: lossless PNG files of 8-bit RGB, RGBA or L (regions, masks).

Only pixels are stored: text, EXIF (camera, location) and profiles of the source file are dropped.
"""

import hashlib
import io
import struct

from PIL import Image

from kontext.errors import BadPicture
from kontext.pictures import MAX_PIXELS, PictureLike, load

MODES = ("RGB", "RGBA", "L")
BAND_BYTES = 4 * 2**20
HEADER_BYTES = 33  # PNG signature and IHDR


def as_picture(picture: PictureLike) -> Image.Image:
    """Path, bytes, PIL picture or uint8 array -> upright RGB or RGBA. Raises NotFound, BadPicture."""
    return load(picture).as_given


def to_png(picture: Image.Image) -> bytes:
    """Encode pixels without metadata as PNG. Equal pixels give equal bytes."""
    file = io.BytesIO()
    bare(picture).save(file, "PNG", compress_level=4)
    return file.getvalue()


def from_png(data: bytes) -> Image.Image:
    """Decode a stored PNG (8-bit RGB, RGBA or L). Raises BadPicture."""
    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if picture.mode not in MODES or picture.width * picture.height > MAX_PIXELS:
            raise BadPicture(f"a stored PNG must be 8-bit RGB, RGBA or L, got {picture.mode} {picture.size}")
        picture.load()
    except BadPicture:
        raise
    except Exception as error:  # decoders raise many kinds of errors for malformed data
        raise BadPicture(f"a damaged PNG ({error})") from None
    return bare(picture)


def png_size(head: bytes) -> tuple[int, int]:
    """(width, height) from the first `HEADER_BYTES` of a PNG file. Raises BadPicture."""
    if len(head) < HEADER_BYTES or not head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        raise BadPicture("a damaged PNG (it does not begin with its header)")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def bare(picture: Image.Image) -> Image.Image:
    """The same pixels without metadata."""
    if type(picture) is Image.Image and not picture.info:
        return picture
    plain = picture.copy()
    plain.info = {}
    return plain


def digest(picture: Image.Image) -> str:
    """sha256 (hex) of mode, size and raw pixels: the same for every file format that keeps the pixels."""
    found = hashlib.sha256(f"{picture.mode} {picture.width}x{picture.height}\n".encode())
    rows = max(
        1, BAND_BYTES // (4 * picture.width)
    )  # processed in bands to avoid a second copy of the pixels
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        found.update(band.tobytes())
    return found.hexdigest()
