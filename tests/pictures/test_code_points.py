"""Code points of PNG and AVIF: the same colors as with the ICC profile, HDR without clipped highlights."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from kontext.pictures import load
from kontext.pictures.code_points import CodePoints, to_srgb
from support.profiles import icc, srgb_curve

P3, SRGB, BT2020_LINEAR, BT2020_PQ, BT2020_HLG = (12, 13), (1, 13), (9, 8), (9, 16), (9, 18)
P3_COLORANTS = [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)]
"""XYZ of red, green and blue in the Display P3 profile, adapted to D50."""
BT2020_OF_BT709 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
"""ITU-R BT.2087-0, section 3.2: light of BT.2020 from light of BT.709."""


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(values, points=None, *chunks, matrix=0, full=1):
    """A PNG of uint8 or uint16 values (h, w, 1 to 4), or of a PIL image, with cICP and other chunks."""
    if isinstance(values, Image.Image):
        buffer = io.BytesIO()
        values.save(buffer, "PNG")
        data = buffer.getvalue()
    else:
        height, width, channels = values.shape
        header = struct.pack(">IIBB", width, height, 8 * values.dtype.itemsize, (0, 4, 2, 6)[channels - 1])
        rows = values.astype(values.dtype.newbyteorder(">")).reshape(height, -1)
        body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header + bytes(3))
        data += chunk(b"IDAT", body) + chunk(b"IEND", b"")
    named = () if points is None else ((b"cICP", bytes((*points, matrix, full))),)
    at = 33  # behind IHDR
    return data[:at] + b"".join(chunk(*each) for each in (*chunks, *named)) + data[at:]


def random(high=255, channels=3):
    kind = np.uint8 if high == 255 else np.uint16
    return np.random.default_rng(0).integers(0, high, (20, 24, channels), kind, endpoint=True)


def rgb_of(data):
    return np.asarray(load(data).rgb).astype(int)


def of_one(values, points):
    """sRGB of one color in fractions of the largest of 16 bits."""
    samples = np.rint(np.array(values) * 65535).astype(np.uint16)
    return to_srgb(samples.reshape(1, 1, 3), CodePoints(*points))[0, 0].tolist()


@pytest.mark.parametrize(
    "values, expected",
    [
        ((0.917488, 0.200287, 0.138561), [255, 0, 0]),
        ((0.458402, 0.985265, 0.298295), [0, 255, 0]),
        ((0.0, 0.0, 0.959588), [0, 0, 255]),
        ((0.5, 0.5, 0.5), [128, 128, 128]),
        ((1.0, 0.0, 0.0), [255, 0, 0]),
    ],
)
def test_the_primaries_of_srgb_in_display_p3_are_those_of_css(values, expected):
    """Values of the conversion in CSS Color 4, section 17; they have six digits."""
    assert np.abs(np.array(of_one(values, P3)) - expected).max() <= 1


@pytest.mark.skipif(not features.check("littlecms2"), reason="this Pillow has no color management")
def test_display_p3_is_what_its_profile_gives():
    profile = zlib.compress(icc(srgb_curve(4096), name="Display P3", primaries=P3_COLORANTS))
    values = random()
    with_profile = rgb_of(png(values, None, (b"iCCP", b"p3\0\0" + profile)))
    assert np.abs(with_profile - rgb_of(png(values))).max() > 20
    assert np.abs(with_profile - rgb_of(png(values, P3))).max() <= 2  # tables of 8 bits in the profile's way


def test_bt2020_is_converted_to_the_primaries_of_srgb():
    expected = random()
    light = np.where(expected <= 10, expected / 255 / 12.92, ((expected / 255 + 0.055) / 1.055) ** 2.4)
    values = np.rint(light @ np.array(BT2020_OF_BT709).T * 65535).astype(np.uint16)
    assert np.abs(rgb_of(png(values, BT2020_LINEAR)) - expected).max() <= 1


def test_code_points_go_before_profile_and_gamma():
    linear = zlib.compress(icc(1.0))
    others = ((b"iCCP", b"linear\0\0" + linear), (b"gAMA", struct.pack(">I", 100_000)), (b"sRGB", b"\0"))
    values = random()
    assert np.array_equal(rgb_of(png(values, SRGB, *others)), values)
    assert np.array_equal(rgb_of(png(values, P3, *others)), rgb_of(png(values, P3)))


@pytest.mark.parametrize("points, more", [((12, 17), {}), ((3, 13), {}), ((9, 16), {"matrix": 9})])
def test_code_points_that_are_not_known_are_left_aside(points, more):
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    values = random()
    assert np.array_equal(rgb_of(png(values, points, gamma, **more)), rgb_of(png(values, None, gamma)))


@pytest.mark.parametrize("high", [255, 65535])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_kind_of_png_has_its_light_from_its_own_depth(high, channels):
    values = random(high, channels)
    if channels > 2:
        values[..., :3] = values[..., :1]
    found = load(png(values, P3))  # a gray in Display P3 is the same gray in sRGB
    expected = np.rint(values[..., 0] * (255 / high))
    assert np.abs(np.asarray(found.rgb).astype(int) - expected[..., None]).max() == 0
    if channels in (2, 4):
        assert np.array_equal(np.asarray(found.alpha), np.rint(values[..., -1] * (255 / high)))


def test_palettes_are_converted():
    image = Image.new("RGB", (20, 20), (200, 40, 40))
    assert np.array_equal(rgb_of(png(image.quantize(2), P3)), rgb_of(png(image, P3)))


def test_the_narrow_range_of_video_is_widened():
    values = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 16, 0)
    expected = np.rint(((np.arange(256) - 16) / 219).clip(0, 1) * 255)
    assert np.array_equal(rgb_of(png(values, SRGB, full=0))[0, :, 0], expected)
    wide = np.array([16, 126, 235], np.uint16).repeat(6)[None].repeat(16, 0)[..., None] * 256
    assert np.array_equal(rgb_of(png(wide, SRGB, full=0))[0, ::6, 0], expected[[16, 126, 235]])


def test_hdr_of_both_kinds_shows_the_same_light():
    """ITU-R BT.2408, table 1: 18 % gray (26 cd/m2) is 38 % of PQ and HLG, white (203 cd/m2) 58 % and 75 %."""
    for pq, hlg, light in ((0.38, 0.38, 26 / 203), (0.58, 0.75, 0.75)):
        shown = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
        for level, points in ((pq, BT2020_PQ), (hlg, BT2020_HLG)):
            found = of_one([level] * 3, points)
            assert max(found) - min(found) == 0
            assert found[0] == pytest.approx(shown, abs=4)  # the table rounds to whole percents


@pytest.mark.parametrize("points", [BT2020_PQ, BT2020_HLG])
def test_highlights_of_hdr_stay_distinct_and_dark_light_exact(points):
    ramp = np.linspace(0, 65535, 2000).astype(np.uint16)[:, None, None].repeat(3, -1)
    found = to_srgb(ramp, CodePoints(*points))[:, 0].astype(int)
    assert found[0].max() == 0 and found[-1].min() >= 249
    assert (np.diff(found, axis=0) >= 0).all() and len(np.unique(found[found[:, 0] > 225])) > 20
    reddish = of_one((0.75, 0.6, 0.5), points)
    assert reddish[0] > reddish[1] > reddish[2]


def test_hdr_is_told():
    assert any("is HDR" in warning for warning in load(png(random(65535), BT2020_PQ)).warnings)
    assert load(png(random(), P3)).warnings == ()


def test_a_large_picture_is_converted_in_strips(monkeypatch):
    values = random()
    whole = to_srgb(values, CodePoints(*BT2020_HLG))
    monkeypatch.setattr("kontext.pictures.code_points.STRIP_PIXELS", 50)
    assert np.array_equal(to_srgb(values, CodePoints(*BT2020_HLG)), whole)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_code_points_of_avif_are_those_of_png():
    color = (200, 60, 50)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(buffer, "AVIF", quality=100, subsampling="4:4:4")
    data = buffer.getvalue()
    at = data.index(b"colrnclx") + 8
    plain, p3 = data, data[:at] + struct.pack(">HH", *P3) + data[at + 4 :]
    assert np.abs(rgb_of(plain)[32, 32] - color).max() <= 2  # a codec with losses
    assert np.abs(rgb_of(p3)[32, 32] - of_one(np.array(color) / 255, P3)).max() <= 3
    hdr = data[:at] + struct.pack(">HH", *BT2020_PQ) + data[at + 4 :]
    assert any("is HDR" in warning for warning in load(hdr).warnings)


@pytest.mark.parametrize("transfer", [1, 6, 14, 15])
def test_the_curves_of_cameras_are_shown_as_srgb(transfer):
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(to_srgb(values, CodePoints(1, transfer)), values)
