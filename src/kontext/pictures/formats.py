"""Picture files except for their pixels: formats, signatures, orientation, and the metadata of PNG.

Formats are those that this installation of Pillow decodes. Metadata is read here and not by Pillow where
Pillow refuses a whole picture for one odd tag (EXIF 2.32, section 4.6) or a long text (PNG, section 11.3).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from importlib import import_module

from PIL import Image, features

from kontext.pictures.code_points import CodePoints

HISTORY_KEY = "kontext"
"""Key of the text of a PNG, and in the `info` of a PIL image, that only results of edits have."""

# No vector or document formats: some of them run programs when opened. With each its plugin of Pillow, and
# the library without which the plugin decodes nothing.
_PLUGINS: dict[str, tuple[str, str | None]] = {
    "PNG": ("PngImagePlugin", None),
    "JPEG": ("JpegImagePlugin", "jpg"),
    "WEBP": ("WebPImagePlugin", "webp"),
    "GIF": ("GifImagePlugin", None),
    "BMP": ("BmpImagePlugin", None),
    "TIFF": ("TiffImagePlugin", None),
    "PPM": ("PpmImagePlugin", None),
    "AVIF": ("AvifImagePlugin", "avif"),
    "ICO": ("IcoImagePlugin", None),
    "TGA": ("TgaImagePlugin", None),
}


def _readable() -> tuple[str, ...]:
    known = features.get_supported()
    found = []
    for name, (plugin, library) in _PLUGINS.items():
        try:
            import_module(f"PIL.{plugin}")
        except ImportError:  # older Pillow has no plugin for AVIF
            continue
        if name in Image.OPEN and (library is None or library in known):
            found.append(name)
    return tuple(found)


READABLE = _readable()

EXTENSIONS = frozenset(
    # what is read here
    ".png .apng .jpg .jpeg .jpe .jfif .jif .jfi .mpo .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .pfm "
    ".avif .ico .tga .icb .vda .vst "
    # pictures in other formats
    ".heic .heif .hif .heics .avifs .avci .jxl .jp2 .j2k .jpf .jpx .jpm .jpc .j2c .jxr .wdp .hdp .psd .psb "
    ".svg .svgz .exr .hdr .dds .xcf .kra .ora .qoi .pcx .pam .dib .cur .icns .sgi .xbm .xpm .bpg .flif .eps "
    ".dng .cr2 .cr3 .crw .nef .nrw .arw .sr2 .srw .raf .orf .rw2 .pef .x3f .3fr .iiq .rwl".split()
)
"""File extensions, in lower case, of files that a user would call a picture."""

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"icns", "ICNS"),
    (0, b"FUJIFILMCCD-RAW", "camera raw"),
    (0, b"IIRO", "camera raw"),
    (0, b"IIU\0", "camera raw"),
)
_BRANDS = {"AVIF": (b"avif", b"avis"), "camera raw": (b"crx ",)}
_HEIF_BRANDS = (
    b"heic",
    b"heix",
    b"hevc",
    b"hevx",
    b"heim",
    b"heis",
    b"hevm",
    b"hevs",
    b"mif1",
    b"msf1",
    b"avci",
)
HEAD_BYTES = 1024  # of a file, enough for `signature`


def signature(head: bytes) -> str | None:
    """The picture format that the first bytes of a file identify, or None."""
    for start, mark, name in _SIGNATURES:
        if head.startswith(mark, start) and (name != "WebP" or head.startswith(b"RIFF")):
            return name
    if head[4:8] == b"ftyp":
        brands = [head[8:12]] + [head[i : i + 4] for i in range(16, min(len(head), 64), 4)]
        for name, known in (*_BRANDS.items(), ("HEIC", _HEIF_BRANDS)):
            if any(brand in known for brand in brands):
                return name
    if re.match(rb"(\xef\xbb\xbf)?\s*(<\?xml|<!--|<!DOCTYPE svg|<svg)", head) and b"<svg" in head:
        return "SVG"
    return None


def unreadable(data: bytes) -> str:
    """An explanation why no decoder accepts these bytes, with advice."""
    found, listed = signature(data[:HEAD_BYTES]), ", ".join(READABLE)
    if found is None:
        return f"not a picture that can be read; use one of {listed}"
    if found.upper() in READABLE:
        return f"a {found} picture, but damaged or of a kind that cannot be read; save it as PNG"
    return f"a {found} picture, which cannot be read here; save it as PNG or JPEG (readable: {listed})"


@dataclass(frozen=True)
class Metadata:
    """What a file says about its pixels."""

    profile: bytes | None = None
    """ICC profile."""
    orientation: int = 1
    """1 (upright) to 8, as in EXIF."""
    gamma: float | None = None
    """Exponent from values to light, where a PNG gives no profile and another one than sRGB is near."""
    points: CodePoints | None = None
    """Code points, where they are known and not those of sRGB; then there is no profile and no gamma."""


MAX_PROFILE_BYTES = 16 * 2**20
MAX_TEXT_BYTES = 2**20
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP, _RAW_EXIF = b"XML:com.adobe.xmp", (b"Raw profile type exif", b"Raw profile type APP1")


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n")


def has_history(data: bytes) -> bool:
    """Whether a file is a PNG with a text under `HISTORY_KEY` (`session.provenance` reads it)."""
    return is_png(data) and b"iTXt%s\0" % HISTORY_KEY.encode() in data


def split_png(data: bytes) -> tuple[bytes, Metadata]:
    """Split a PNG file into the file without texts and profile, and the metadata needed to read its pixels.

    Profiles of more than MAX_PROFILE_BYTES and texts of more than MAX_TEXT_BYTES are ignored.
    """
    parts, position, is_srgb = [data[:8]], 8, False
    profile = exif = xmp = gamma = points = None
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        body = memoryview(data)[position + 8 : position + 8 + length]
        if kind == b"iCCP":
            name, _, rest = bytes(body).partition(b"\0")
            profile = profile or _inflated(rest[1:], MAX_PROFILE_BYTES)
        elif kind in _TEXTS:
            keyword = bytes(body[:80]).partition(b"\0")[0]
            if keyword == _XMP:
                xmp = xmp or _text(kind, bytes(body))
            elif keyword in _RAW_EXIF:
                exif = exif or _raw_profile(_text(kind, bytes(body)))
        else:
            if kind == b"eXIf":
                exif = bytes(body)
            elif kind == b"gAMA" and length == 4:
                gamma = gamma or int.from_bytes(body) / 100_000
            elif kind == b"cICP" and length == 4 and body[2] == 0:  # the matrix of RGB
                points = points or CodePoints(body[0], body[1], body[3] == 1)
            is_srgb = is_srgb or kind == b"sRGB"
            parts.append(data[position:end])
        position = end
    parts.append(data[position:])
    if points is not None and points.is_known:  # goes before all others (PNG, third edition, section 4.3)
        shown = None if points.is_srgb else points
        return b"".join(parts), Metadata(orientation=orientation(exif, xmp), points=shown)
    if profile or is_srgb or gamma and (not 0.1 <= gamma <= 10 or abs(gamma * 2.2 - 1) < 0.05):
        gamma = None  # another source, nonsense, or that of sRGB in one number
    return b"".join(parts), Metadata(profile, orientation(exif, xmp), 1 / gamma if gamma else None)


def _inflated(data: bytes, limit: int) -> bytes | None:
    """Decompressed zlib data; None if damaged or larger than `limit`."""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, limit)
    except zlib.error:
        return None
    return found if unpacker.eof else None


def _text(kind: bytes, body: bytes) -> bytes | None:
    """The text of a tEXt, zTXt or iTXt chunk."""
    rest = body.partition(b"\0")[2]
    if kind == b"tEXt":
        return rest[:MAX_TEXT_BYTES]
    if kind == b"zTXt":
        return _inflated(rest[1:], MAX_TEXT_BYTES)
    compressed = rest[:1] == b"\1"
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # after method, language and translated keyword
    return _inflated(text, MAX_TEXT_BYTES) if compressed else text[:MAX_TEXT_BYTES]


def _raw_profile(text: bytes | None) -> bytes | None:
    """The bytes of a "Raw profile type" text: a name, a length, and hexadecimal digits in lines."""
    lines = (text or b"").split(b"\n")
    try:
        return bytes.fromhex(b"".join(lines[3:]).decode("ascii"))
    except ValueError:
        return None


def orientation(exif: bytes | None, xmp: bytes | str | None = None) -> int:
    """The orientation, 1 to 8, of an EXIF block or an XMP packet; 1 if neither has one.

    Only the entry 0x0112 of the first directory is read; errors elsewhere in the block do not matter.
    """
    if exif:
        found = _orientation_entry(exif)
        if found is not None:
            return found if 1 <= found <= 8 else 1
    if xmp:
        text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else bytes(xmp)
        match = re.search(rb'tiff:Orientation(?:="|>)([1-8])', text[:MAX_TEXT_BYTES])
        if match:
            return int(match[1])
    return 1


_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # EXIF types that hold a whole number


def _orientation_entry(exif: bytes) -> int | None:
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(order + "H", exif, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", exif, entry)
        if tag == 0x0112 and kind in _INTEGERS:
            return struct.unpack_from(order + _INTEGERS[kind], exif, entry + 8)[0]
    return None


def deep_avif(data: bytes) -> bool:
    """Whether an AVIF file stores more than 8 bits a channel (AV1 codec configuration, high_bitdepth)."""
    start = data[:65536].find(b"av1C")
    return start >= 0 and len(data) > start + 6 and bool(data[start + 6] & 0x40)


def avif_points(data: bytes) -> CodePoints | None:
    """The code points of an AVIF file (ISO/IEC 14496-12, colr box), where they are known and not sRGB."""
    start = data[:65536].find(b"colrnclx")
    if start < 0 or len(data) < start + 15:
        return None
    primaries, transfer = struct.unpack_from(">HH", data, start + 8)
    points = CodePoints(primaries, transfer)  # the decoder widens the range
    return points if points.is_known and not points.is_srgb else None
