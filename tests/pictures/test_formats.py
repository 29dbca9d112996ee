"""What surrounds the pixels never costs the picture.

Odd EXIF, long texts, large profiles, formats that are not there.
"""

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from kontext import pictures
from kontext.errors import BadPicture, NotFound
from kontext.pictures import formats, load
from kontext.pictures.formats import READABLE, orientation, signature, split_png
from kontext.session.provenance import read_chain

BLOCKS = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
PICTURE = Image.fromarray(BLOCKS.repeat(16, 0).repeat(16, 1))  # even blocks, which JPEG keeps nearly exactly
LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
TURNED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that stores a picture turned away


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(value, order="<", kind=3, before=(), after=()):
    """An EXIF block: entries of raw bytes around the orientation."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    code = {1: "B", 3: "H", 4: "I"}[kind]
    entry = struct.pack(order + "HHI" + code, 0x0112, kind, 1, value).ljust(12, b"\0")
    entries = [*before, entry, *after]
    return head + struct.pack(order + "IH", 8, len(entries)) + b"".join(entries) + b"\0" * 4


ODD = [
    struct.pack("<HHII", 0x010F, 2, 4_000_000_000, 4_000_000_000),  # a text that ends far outside
    struct.pack("<HHII", 0x9286, 99, 1, 8),  # a type that is none
    struct.pack("<HHII", 0x8769, 4, 1, 0xFFFFFFF0),  # a directory that is not there
    struct.pack("<HHII", 0x011A, 5, 1, 4),  # a fraction over the header
    struct.pack("<HHII", 0x0132, 2, 0, 0),
]
UNREADABLE = [
    b"",
    b"garbage that is no EXIF at all",
    b"Exif\0\0",
    b"II*\0",
    b"II*\0\xff\xff\xff\xff",
    b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 500,
    exif(0),
    exif(9),
    exif(6)[:-20],
]


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_orientation_is_read_among_odd_entries(value, order):
    assert orientation(exif(value, order)) == value
    assert orientation(b"Exif\0\0" + exif(value, order, kind=4)) == value
    assert orientation(exif(value, before=ODD, after=ODD)) == value


@pytest.mark.parametrize("block", UNREADABLE)
def test_unreadable_orientation_is_upright(block):
    assert orientation(block) == 1


def test_xmp_says_the_orientation_where_exif_does_not():
    assert orientation(None, b'<x tiff:Orientation="6"/>') == 6
    assert orientation(exif(3), "<tiff:Orientation>6</tiff:Orientation>") == 3
    assert orientation(UNREADABLE[1], "<tiff:Orientation>8</tiff:Orientation>") == 8


@pytest.mark.parametrize("format", [name for name in ("PNG", "JPEG", "WEBP") if name in READABLE])
@pytest.mark.parametrize("block", [*UNREADABLE[1:], *(exif(v, before=ODD, after=ODD) for v in range(1, 9))])
def test_odd_exif_costs_neither_the_picture_nor_its_orientation(format, block):
    value = orientation(block)
    stored = PICTURE if value == 1 else PICTURE.transpose(Image.Transpose(TURNED[value]))
    if format == "PNG":  # Pillow repairs what it writes
        chunk = (
            struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
        )
        plain = encoded(stored, "PNG")
        data = plain[:33] + chunk + plain[33:]
    else:
        data = encoded(stored, format, exif=b"Exif\0\0" + block, **LOSSLESS[format])
    assert block[-8:] in data
    picture = load(data)
    assert picture.size == PICTURE.size
    error = np.abs(np.asarray(picture.rgb).astype(int) - np.asarray(PICTURE))
    assert error.max() <= (4 if format == "JPEG" else 0)


def test_orientation_set_on_an_image_in_memory():
    image = PICTURE.transpose(Image.Transpose(TURNED[6]))
    image.getexif()[0x0112] = 6
    assert np.array_equal(np.asarray(load(image).rgb), np.asarray(PICTURE))


@pytest.mark.parametrize("value", range(2, 9))
def test_tiff_is_turned_once(value):
    image = PICTURE.transpose(Image.Transpose(TURNED[value]))
    data = encoded(image, "TIFF", tiffinfo={0x0112: value})
    assert np.array_equal(np.asarray(load(data).rgb), np.asarray(PICTURE))


# PNG


def with_chunks(*chunks):
    """The picture as PNG with chunks after its header and, again, before its end."""
    plain = encoded(PICTURE, "PNG")
    packed = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return plain[:33] + packed + plain[33:-12] + packed + plain[-12:]


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"workflow\0\0" + zlib.compress(b"{}" * 2_000_000)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"{}" * 20_000_000)),
        (b"iTXt", b"workflow\0\0\0\0\0" + b"x" * 3_000_000),
        (b"tEXt", b"prompt\0" + b"x" * 3_000_000),
        (b"iCCP", b"large\0\0" + zlib.compress(b"\0" * 3_000_000)),
        (b"iCCP", b"bomb\0\0" + zlib.compress(b"\0" * 40_000_000)),
        (b"zTXt", b"broken\0\0no zlib at all"),
        (b"iTXt", b"cut"),
        (b"iCCP", b""),
        (b"caBX", b"x" * 3_000_000),
    ],
    ids=lambda chunk: f"{chunk[0].decode()}-{len(chunk[1])}",
)
def test_png_with_long_or_odd_metadata_opens(chunk):
    data = with_chunks(chunk)
    assert np.array_equal(np.asarray(load(data).rgb), np.asarray(PICTURE))
    assert split_png(data)[0].startswith(b"\x89PNG") or chunk[0] == b"caBX"


def test_many_texts_open():
    data = with_chunks(*[(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_000_000))] * 70)
    assert np.array_equal(np.asarray(load(data).rgb), np.asarray(PICTURE))


def test_large_profile_of_a_png_is_used():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = profile.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    data = with_chunks((b"iCCP", b"red is green\0\0" + zlib.compress(exchanged + b"\0" * 3_000_000)))
    swapped = np.asarray(PICTURE)[..., [1, 0, 2]].astype(int)
    assert np.abs(np.asarray(load(data).rgb) - swapped).max() <= 3  # rounding of the primaries


def test_raw_profile_of_imagemagick_and_xmp_turn_a_png():
    turned = encoded(PICTURE.transpose(Image.Transpose(TURNED[6])), "PNG")
    block = exif(6).hex().encode()
    for body in (
        (
            b"zTXt",
            b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n%b\n" % (len(block) // 2, block)),
        ),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'<a tiff:Orientation="6"/>'),
    ):
        name, text = body
        chunk = struct.pack(">I", len(text)) + name + text + struct.pack(">I", zlib.crc32(name + text))
        assert np.array_equal(np.asarray(load(turned[:33] + chunk + turned[33:]).rgb), np.asarray(PICTURE))


# Formats


@pytest.mark.parametrize(
    "head, name",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"8BPS\0\x01", "Photoshop"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", None),
        (b"%PDF-1.7", None),
        (b"BM stands for bitmap", None),
        (b"", None),
    ],
)
def test_signatures(head, name):
    assert signature(head) == name


def test_formats_that_cannot_be_read_are_named():
    with pytest.raises(
        BadPicture, match="IMG_1.HEIC: a HEIC picture, which cannot be read here; save it as PNG"
    ):
        load(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100, "IMG_1.HEIC")
    with pytest.raises(BadPicture, match="not a picture that can be read; use one of PNG, JPEG"):
        load(b"hello", "hello.png")


def test_a_library_that_is_not_built_in_takes_away_its_format_alone(monkeypatch):
    monkeypatch.setattr(formats.features, "get_supported", lambda: ["jpg", "zlib"])
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)  # as in Pillow before 11.3
    found = formats._readable()
    assert found == ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA")
    monkeypatch.setattr(formats, "READABLE", found)
    for format in ("ICO", "TGA", "BMP", "PPM"):
        assert load(encoded(PICTURE.crop((0, 0, 32, 32)), format)).size == (32, 32)
    with pytest.raises(BadPicture, match="a WebP picture, which cannot be read here"):
        load(b"RIFF\x10\0\0\0WEBPVP8 ", "a.webp")


@pytest.mark.skipif("AVIF" not in READABLE, reason="this Pillow reads no AVIF")
def test_high_bit_depth_of_avif():
    data = encoded(PICTURE, "AVIF")
    assert not formats.deep_avif(data) and load(data).warnings == ()
    at = data.index(b"av1C") + 6
    assert formats.deep_avif(data[:at] + bytes([data[at] | 0x40]) + data[at + 1 :])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_only_regular_files_are_read(tmp_path):
    """A pipe that is not written to, or a device without an end, would be read for ever."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        for read in (pictures.read_file, pictures.load, read_chain):
            with pytest.raises(BadPicture, match="not a file"):
                read(path)
        assert path == pipe or not pictures.looks_like_picture(path)
    for name in ("a" * 5000, "a" * 300 + ".png"):
        with pytest.raises(BadPicture, match="cannot be read"):
            pictures.load(tmp_path / name)
    for missing in (tmp_path / "none.png", tmp_path / "none.png" / "x.png"):
        with pytest.raises(NotFound, match="no such file"):
            read_chain(missing)
