"""Every mode and depth becomes 8-bit sRGB.

Values scaled by their full range, transparency exact, profiles compared by what they do.
"""

import io
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms, features

from kontext.pictures import load
from support.profiles import icc, srgb_curve, to_srgb

HEIGHT, WIDTH = 20, 24


def random(high, channels=None, seed=0):
    shape = (HEIGHT, WIDTH) if channels is None else (HEIGHT, WIDTH, channels)
    return np.random.default_rng(seed).integers(0, high + 1, shape)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(values, depth, kind, clear=None):
    """A PNG of (height, width[, channels]) values of any depth; `clear` is the transparent value."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = values.shape[:2]
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = [np.packbits(row).tobytes() for row in bits.reshape(height, -1)]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    trns = b"" if clear is None else chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + trns + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(values, *, order="<", photometric=1, sample_format=1, planes=False, extra=None, bits=None):
    """An uncompressed TIFF of (height, width[, channels]) values, in the type of the array."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    stored = values.astype(values.dtype.newbyteorder(order))
    strips = (
        [np.moveaxis(stored, -1, 0)[i].tobytes() for i in range(channels)] if planes else [stored.tobytes()]
    )
    bits = bits or values.dtype.itemsize * 8
    tags = {
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [1],
        262: [photometric],
        277: [channels],
    }
    tags |= {278: [height], 284: [2 if planes else 1], 339: [sample_format] * channels}
    if extra is not None:
        tags[338] = [extra]
    size = 8 + 2 + 12 * (len(tags) + 2) + 4
    long_values, at = b"", size
    entries = []

    def entry(tag, kind, numbers):
        nonlocal long_values
        body = struct.pack(f"{order}{len(numbers)}{'I' if kind == 4 else 'H'}", *numbers)
        if len(body) > 4:
            offset, long_values = at + len(long_values), long_values + body + b"\0" * (len(body) % 2)
            body = struct.pack(order + "I", offset)
        entries.append((tag, struct.pack(order + "HHI", tag, kind, len(numbers)) + body.ljust(4, b"\0")))

    for tag, numbers in tags.items():
        entry(tag, 3, numbers)
    lengths = [len(strip) for strip in strips]
    room = len(long_values) + (8 * len(strips) if len(strips) > 1 else 0)
    starts = [at + room + sum(lengths[:i]) for i in range(len(strips))]
    entry(273, 4, starts)
    entry(279, 4, lengths)
    directory = (
        struct.pack(order + "H", len(entries)) + b"".join(body for _, body in sorted(entries)) + b"\0" * 4
    )
    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return magic + directory + long_values + b"".join(strips)


def rgb_of(data):
    return np.asarray(load(data).rgb)


# Depth


@pytest.mark.parametrize("kind, channels", [(0, None), (2, 3), (4, 2), (6, 4)])
def test_png_of_sixteen_bits_is_divided_by_257(kind, channels):
    values = random(65535, channels)
    picture = load(png(values, 16, kind))
    expected, found = np.rint(values / 257), np.asarray(picture.as_given)
    if channels in (None, 2):
        gray = expected if channels is None else expected[..., 0]
        assert all(np.array_equal(found[..., c], gray) for c in range(3))
    else:
        assert np.array_equal(found, expected)
    if channels == 2:
        assert np.array_equal(found[..., 3], expected[..., 1])
    assert "more than 8 bits" in picture.warnings[0]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_gray_is_exactly_the_value_named(depth):
    values, full = random(2**depth - 1), 2**depth - 1
    values[0, :2] = 0, full
    for clear in (0, full, int(values[3, 5])):
        picture = load(png(values, depth, 0, (clear,)))
        assert np.array_equal(np.asarray(picture.alpha), np.where(values == clear, 0, 255))
        assert np.array_equal(np.asarray(picture.rgb)[..., 1], np.rint(values * (255 / full)))


@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_color_is_exactly_the_one_named(depth):
    values = random(2**depth - 1, 3)
    values[4, 6] = values[9, 9]
    values[4, 7] = values[9, 9] ^ [0, 0, 1]  # of 16 bits, the neighbor of 8 bits is the same
    picture = load(png(values, depth, 2, tuple(map(int, values[9, 9]))))
    expected = (values == values[9, 9]).all(-1)
    assert expected.sum() >= 2 and np.array_equal(np.asarray(picture.alpha) == 0, expected)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("planes", [False, True])
def test_tiff_of_sixteen_bits_is_divided_by_257(order, channels, planes):
    values = random(65535, channels).astype(np.uint16)
    extra = 2 if channels == 4 else None
    if planes and channels == 4:
        pytest.skip("Pillow reads no such planes")
    picture = load(tiff(values, order=order, photometric=2, planes=planes, extra=extra))
    assert np.array_equal(np.asarray(picture.as_given), np.rint(values / 257))
    assert "more than 8 bits" in picture.warnings[0]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "kind, sample_format, full",
    [("u1", 1, 255), ("u2", 1, 65535), ("i2", 2, 32767), ("i4", 2, 2**31 - 1), ("f4", 3, 1.0)],
)
def test_gray_tiff_is_scaled_by_its_range(order, kind, sample_format, full):
    values = np.random.default_rng(1).random((HEIGHT, WIDTH)) * full
    values[0, 0] = full
    values = values.astype(kind)
    for compression in (None, "tiff_adobe_deflate"):
        data = tiff(values, order=order, sample_format=sample_format)
        if compression:
            if order == ">" or kind == "i2":
                continue  # Pillow writes none
            data = encoded(Image.open(io.BytesIO(data)), "TIFF", compression=compression)
        expected = np.rint(values.astype(float) * (255 / full))
        assert np.abs(rgb_of(data)[..., 0] - expected).max() <= (kind == "i4")  # rounding of float32


@pytest.mark.parametrize("kind, sample_format", [("u1", 1), ("u2", 1), ("f4", 3)])
def test_tiff_where_white_is_zero_is_inverted(kind, sample_format):
    full = {"u1": 255, "u2": 65535, "f4": 1.0}[kind]
    values = (np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * full).astype(kind)
    black, white = (rgb_of(tiff(values, photometric=p, sample_format=sample_format)) for p in (1, 0))
    assert np.array_equal(white, 255 - black) and black.min() == 0 and black.max() == 255


def test_tiff_of_unsigned_32_bits():
    values = np.linspace(0, 2**32 - 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint32)
    assert np.abs(rgb_of(tiff(values))[..., 0] - values / 2**32 * 255).max() <= 1


def test_pgm_of_sixteen_bits_stays_dark_when_it_is_dark():
    values = random(200).astype(">u2")
    data = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + values.tobytes()
    assert np.array_equal(rgb_of(data)[..., 0], np.rint(values / 257))


@pytest.mark.parametrize("limit", [200, 1000, 65535])
def test_ppm_is_scaled_by_its_largest_value(limit):
    values = random(limit, 3)
    picture = load(
        b"P6 %d %d %d\n" % (WIDTH, HEIGHT, limit) + values.astype(">u2" if limit > 255 else "u1").tobytes()
    )
    assert np.abs(np.asarray(picture.rgb) - values / limit * 255).max() <= 0.5
    assert bool(picture.warnings) == (limit > 255)


@pytest.mark.parametrize("scale", [1.0, 255.0, 65535.0])
def test_floating_point_takes_the_first_range_that_holds_it(scale):
    values = (np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * scale).astype(np.float32)
    values[0, 0] = np.nan
    found = np.asarray(load(Image.fromarray(values)).rgb)[..., 0]
    assert np.abs(found[1:] - values[1:] / scale * 255).max() <= 0.51 and found[0, 0] == 0


# Modes


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F"]


@pytest.mark.parametrize("mode", [*MODES, "I;16", "I;16L", "I;16B", "LAB"])
def test_every_mode_of_pillow_becomes_rgb(mode):
    color = Image.fromarray((random(75, 3) + 90).astype(np.uint8))
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(color, *profiles, outputMode="LAB")
        expected, tolerance = np.asarray(color), 3  # 8 bits of Lab hold colors coarsely
    elif mode.startswith("I;16"):
        values = random(65535).astype(np.dtype("u2").newbyteorder(">" if mode[-1] == "B" else "<"))
        image = Image.frombytes(mode, (WIDTH, HEIGHT), values.tobytes())
        expected = np.repeat(np.rint(values / 257)[..., None], 3, -1)
    else:
        between = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode)
        image = (color.convert(between) if between else color).convert(mode)
        back = {"La": "LA", "RGBa": "RGBA"}.get(mode)
        expected = np.asarray((image.convert(back) if back else image).convert("RGB"))
    picture = load(image)
    assert picture.rgb.mode == "RGB" and picture.alpha is None
    if mode == "LAB":
        error = np.abs(np.asarray(picture.rgb).astype(int) - expected)
        assert error.max() <= tolerance
    else:  # of floating point, Pillow cuts the fraction off where it is rounded here
        assert np.abs(np.asarray(picture.rgb).astype(int) - expected).max() <= (mode == "F")


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "La", "RGBa"])
def test_alpha_of_every_mode_is_exact(mode):
    alpha = random(255).astype(np.uint8)
    image = Image.fromarray(random(255, 4).astype(np.uint8))
    image.putalpha(Image.fromarray(alpha))
    if mode == "PA":
        base = image.convert("RGB").quantize(16).convert("PA")
        base.putalpha(Image.fromarray(alpha))
        image = base
    elif mode in ("LA", "La"):
        image = Image.merge("LA", (image.convert("L"), Image.fromarray(alpha)))
        image = image.convert(mode)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert np.array_equal(np.asarray(load(image).alpha), alpha)


def test_palette_with_partial_transparency():
    image = Image.fromarray(random(255, 3).astype(np.uint8)).quantize(8)
    levels = bytes([0, 10, 100, 200, 255, 254, 1, 128])
    picture = load(encoded(image, "PNG", transparency=levels))
    assert np.array_equal(np.asarray(picture.alpha), np.array(list(levels), np.uint8)[np.asarray(image)])
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(image.convert("RGB")))


def test_palette_whose_colors_have_alpha():
    image = Image.fromarray(random(3).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 128, 0, 0, 255, 255, 9, 9, 9, 7], "RGBA")
    picture = load(image)
    assert np.array_equal(np.asarray(picture.alpha), np.array([0, 128, 255, 7], np.uint8)[np.asarray(image)])


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_cmyk_and_ycbcr_files(format):
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    assert np.abs(rgb_of(encoded(red, format)).reshape(-1, 3).mean(0) - [255, 0, 0]).max() < 8
    if format == "TIFF" and int(PIL.__version__.split(".")[0]) < 12:
        pytest.skip("this Pillow cannot read its own YCbCr")
    blue = Image.new("RGB", (32, 32), (20, 40, 220)).convert("YCbCr")
    assert np.abs(rgb_of(encoded(blue, format)).reshape(-1, 3).mean(0) - [20, 40, 220]).max() < 4


@pytest.mark.skipif(not features.check("littlecms2"), reason="this Pillow has no color management")
def test_lab_tiff():
    color = Image.new("RGB", (32, 32), (200, 90, 60))
    lab = ImageCms.profileToProfile(
        color, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(rgb_of(encoded(lab, "TIFF")).astype(int) - [200, 90, 60]).max() <= 3


# Profiles


@pytest.mark.parametrize("name", ["sRGB linear (Krita)", "linear", "sRGB-elle-V2-g10.icc"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "P clear", "L with RGB"])
def test_linear_profile_is_converted_whatever_its_name(name, mode):
    image = Image.new("RGB", (32, 32), (160, 160, 160))
    options = {}
    if mode == "RGBA":
        image.putalpha(120)
    elif mode.startswith("P"):
        image = image.quantize(4)
        options = {"transparency": 1} if "clear" in mode else {}
    elif mode.startswith("L"):
        image = image.convert("L")
    picture = load(encoded(image, "PNG", icc_profile=icc(1.0, name=name), **options))
    assert to_srgb(160 / 255) == pytest.approx(207.5, abs=0.1)
    assert set(picture.rgb.getpixel((5, 5))) <= {207, 208}
    if mode == "RGBA":
        assert picture.alpha.getextrema() == (120, 120)


@pytest.mark.parametrize("mode", ["L", "LA", "L16"])
def test_gray_profile_is_converted(mode):
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (20, 1))
    if mode == "LA":
        image = Image.merge("LA", (Image.fromarray(ramp), Image.new("L", (64, 20), 77)))
    elif mode == "L16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(ramp)
    picture = load(encoded(image, "PNG", icc_profile=icc(1.0, space=b"GRAY", name="sRGB gray")))
    assert np.abs(np.asarray(picture.rgb)[0, :, 0] - to_srgb(ramp[0] / 255)).max() <= 1
    if mode == "LA":
        assert picture.alpha.getextrema() == (77, 77)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("points", [1024, 4096])
def test_true_srgb_profile_keeps_every_pixel(format, points):
    image = Image.fromarray(random(255, 3).astype(np.uint8))
    profile = icc(srgb_curve(points), name="c2")
    options = {"lossless": True} if format == "WEBP" else {}
    plain, marked = (encoded(image, format, **options, **extra) for extra in ({}, {"icc_profile": profile}))
    assert profile[:20] in marked or format == "PNG"
    assert np.array_equal(rgb_of(plain), rgb_of(marked))


def test_gray_profile_with_the_curve_of_srgb_keeps_every_pixel():
    image = Image.fromarray(np.arange(1024, dtype=np.uint16).astype(np.uint8).reshape(16, 64))
    profile = icc(srgb_curve(), space=b"GRAY")
    assert np.array_equal(rgb_of(encoded(image, "PNG", icc_profile=profile))[..., 0], np.asarray(image))


@pytest.mark.parametrize("gamma", [1.8, 2.2])
def test_profile_near_srgb_is_still_converted(gamma):
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 3))[None].repeat(16, 0)
    found = rgb_of(encoded(Image.fromarray(ramp), "PNG", icc_profile=icc(gamma, name="sRGB")))
    expected = to_srgb((np.arange(256) / 255) ** (round(gamma * 256) / 256))
    assert np.abs(found[0, :, 1] - expected).max() <= 1.5


def test_profile_of_another_kind_than_the_pixels_is_left_aside():
    image = Image.fromarray(random(255, 3).astype(np.uint8))
    gray = icc(1.0, space=b"GRAY")
    assert np.array_equal(rgb_of(encoded(image, "PNG", icc_profile=gray)), np.asarray(image))


def with_gamma(data, gamma, *chunks):
    """A PNG with a gAMA chunk, and empty or other chunks, before its pixels."""
    at = data.index(b"IDAT") - 4
    gamma = struct.pack(">I", round(gamma * 100_000))
    return data[:at] + b"".join(chunk(*each) for each in ((b"gAMA", gamma), *chunks)) + data[at:]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_the_gamma_of_a_png_without_a_profile_is_applied(mode):
    """PNG, section 11.3.2.2: light is value ** (1 / gamma); a profile and sRGB come before it."""
    if mode == "I;16":
        image = Image.fromarray(np.full((16, 16), 160 * 257, np.uint16))
    else:
        image = Image.new("RGB", (16, 16), (160, 160, 160))
        image = image.quantize(4) if mode == "P" else image.convert(mode)
    plain = encoded(image, "PNG")
    shown = {
        gamma: load(with_gamma(plain, gamma)).rgb.getpixel((3, 3)) for gamma in (1.0, 1 / 1.8, 1 / 2.2, 0.0)
    }
    assert shown[1.0] == (208, 208, 208)
    assert shown[1 / 1.8] == (round(to_srgb((160 / 255) ** 1.8)),) * 3
    assert shown[1 / 2.2] == shown[0.0] == (160, 160, 160)
    assert load(with_gamma(plain, 1.0, (b"sRGB", b"\0"))).rgb.getpixel((3, 3)) == (160, 160, 160)
    if mode == "RGBA":
        assert load(with_gamma(plain, 1.0)).alpha is None
