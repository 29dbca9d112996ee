"""Pictures of every kind come in upright, sRGB and 8 bits, or are refused in one line.

Writing is atomic.
"""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from kontext.errors import BadPicture, BadRequest, NotFound
from kontext.pictures import Picture, check_writable, encode, load, save, writing


def noise(width=40, height=30, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that only claims its size: a signature, an IHDR and nothing to decode."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + chunk + empty


def test_path_bytes_image_array_and_picture_give_the_same(tmp_path):
    array = noise()
    path = tmp_path / "a.png"
    Image.fromarray(array).save(path)
    given = [path, str(path), path.read_bytes(), Image.fromarray(array), array, load(array)]
    for item in given:
        picture = load(item)
        assert np.array_equal(np.asarray(picture.rgb), array)
        assert picture.alpha is None and picture.warnings == ()
    assert len({load(item).digest for item in given}) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_exif_is_applied(orientation):
    upright = Image.fromarray(noise(24, 16))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that stores the picture turned away
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = load(encoded(stored, "PNG", exif=exif))
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(upright))


def test_alpha_is_kept_aside_and_the_model_sees_white():
    array = noise(channels=4)
    array[:10, :, 3], array[10:20, :, 3] = 0, 255
    picture = load(array)
    assert np.array_equal(np.asarray(picture.as_given), array)
    assert np.asarray(picture.opaque_rgb)[:10].min() == 255
    assert np.array_equal(np.asarray(picture.opaque_rgb)[10:20], array[10:20, :, :3])


def test_opaque_alpha_counts_as_none():
    array = noise(channels=4)
    array[..., 3] = 255
    assert load(array).alpha is None


def test_palette_with_transparency():
    image = Image.fromarray(noise()).quantize(16)
    image.info["transparency"] = 3
    picture = load(encoded(image, "PNG", transparency=3))
    expected = np.asarray(image) == 3
    assert np.array_equal(np.asarray(picture.alpha) == 0, expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA"])
def test_other_modes_become_rgb(mode):
    image = Image.fromarray(noise()).convert(mode)
    picture = load(image)
    assert picture.rgb.mode == "RGB" and picture.size == (40, 30)


def test_cmyk_jpeg():
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    r, g, b = np.asarray(load(encoded(red, "JPEG")).rgb).reshape(-1, 3).mean(0)
    assert r > 200 and g < 60 and b < 60


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    picture = load(encoded(Image.fromarray(values), "PNG"))
    assert np.abs(np.asarray(picture.rgb)[..., 0].astype(float) - values / 257).max() <= 1
    assert "8" in picture.warnings[0]


def test_profile_is_converted_to_srgb():
    """A profile made from sRGB's own, with the red and the green primary exchanged and another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = profile.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    exchanged = exchanged.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    picture = load(encoded(Image.new("RGB", (16, 16), (255, 0, 0)), "PNG", icc_profile=exchanged))
    red, green, blue = picture.rgb.getpixel((3, 3))
    assert red <= 2 and green >= 253 and blue <= 2


def test_srgb_profile_leaves_the_pixels_alone():
    array = noise()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(
        np.asarray(load(encoded(Image.fromarray(array), "PNG", icc_profile=profile)).rgb), array
    )


def test_broken_profile_is_left_aside():
    array = noise()
    data = encoded(Image.fromarray(array), "PNG", icc_profile=b"no profile")
    assert np.array_equal(np.asarray(load(data).rgb), array)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animated_uses_the_first_frame_and_says_so(format):
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue", "lime")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    picture = load(data, "dance.gif")
    assert picture.rgb.getpixel((5, 5))[0] > 240
    assert picture.warnings == ("dance.gif has 3 frames; only the first is used",)


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "0 bytes"),
        (b"hello, I am text", "not a picture"),
        (b"%PDF-1.4 ...", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not a picture"),
        (png_header(50_000, 50_000), "too large"),
        (png_header(20_000, 20), "too large"),
        (png_header(9_000, 9_000), "too large"),
        (png_header(1, 1), "too small"),
        (png_header(64, 64), "damaged or cut short"),
        (encoded(Image.fromarray(noise(200, 200)), "PNG")[:4000], "damaged or cut short"),
        (encoded(Image.fromarray(noise(200, 200)), "JPEG")[:4000], "damaged or cut short"),
        (encoded(Image.fromarray(noise(200, 200)), "WEBP")[:4000], "damaged or cut short"),
    ],
)
def test_bad_data_is_refused_in_one_line(data, said):
    with pytest.raises(BadPicture, match=said) as refused:
        load(data, "kid.png")
    assert "\n" not in str(refused.value) and str(refused.value).startswith("kid.png: ")


def test_a_second_page_without_a_size_is_damage():
    data = bytearray(encoded(Image.new("RGB", (48, 40)), "TIFF"))
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, len(data))  # where the next page begins
    with pytest.raises(BadPicture, match="damaged or cut short"):
        load(bytes(data) + struct.pack("<HI", 0, 0))


@pytest.mark.parametrize("seed", range(30))
def test_damaged_bytes_never_escape_as_another_error(seed):
    random = np.random.default_rng(seed)
    format = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"][seed % 6]
    data = bytearray(encoded(Image.fromarray(noise(64, 64)), format))
    for position in random.integers(0, len(data), 20):
        data[position] = random.integers(0, 256)
    try:
        load(bytes(data))
    except BadPicture:
        pass


@pytest.mark.parametrize(
    "given", [noise(channels=3).astype(float), noise()[..., 0], noise()[..., :2], 3, None]
)
def test_what_is_no_picture_is_refused(given):
    with pytest.raises(BadPicture):
        load(given)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(NotFound, match="no such file"):
        load(tmp_path / "none.png")
    with pytest.raises(BadPicture, match="not a file"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_saved_file_opens_again_and_carries_its_text(tmp_path, name):
    image = Image.fromarray(noise(channels=4))
    text = {"parameters": "Make the hair blue ü 蓝\nSeed: 1", "XML:com.adobe.xmp": "<x:xmpmeta/>"}
    path = save(image, tmp_path / name, text)
    again = Image.open(path)
    again.load()
    assert again.size == image.size
    assert again.mode == ("RGB" if name.endswith("jpg") else "RGBA")
    if name.endswith("png"):
        assert again.text["parameters"].startswith("Make the hair blue ü 蓝")
        assert np.array_equal(np.asarray(again), np.asarray(image))
    else:
        comment = again.getexif().get_ifd(0x8769)[0x9286]
        assert comment[8:].decode("utf-16-be").startswith("Make the hair blue ü 蓝")
    assert b"<x:xmpmeta/>" in path.read_bytes()


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    target.write_bytes(b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(BadRequest, match="No space left"):
        save(Image.new("RGB", (20, 20)), target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_bytes() == b"before"


def test_unknown_ending_and_missing_folder_are_refused(tmp_path):
    with pytest.raises(BadRequest, match="end the name in"):
        save(Image.new("RGB", (20, 20)), tmp_path / "a.xyz")
    with pytest.raises(BadRequest, match="cannot be written"):
        save(Image.new("RGB", (20, 20)), tmp_path / "none" / "a.png")


def test_jpeg_of_a_transparent_picture_is_laid_on_white():
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert Image.open(io.BytesIO(encode(clear, "JPEG"))).getpixel((5, 5)) == (255, 255, 255)


def test_digest_sees_size_and_pixels():
    a, b = Image.new("RGB", (20, 30)), Image.new("RGB", (30, 20))
    assert Picture(a).digest != Picture(b).digest


# Names that can and cannot be written


@pytest.mark.parametrize(
    "name", ["x" * 251 + ".png", "长" * 83 + ".jpg", "a b'\"\n.webp", "caf\udce9.png", ".png.png"]
)
def test_every_valid_name_is_written(tmp_path, name):
    name = os.fsdecode(name.encode("utf-8", "surrogateescape"))
    path = tmp_path / name
    try:
        path.touch()
        path.unlink()
    except OSError:
        pytest.skip("this file system stores no such name")
    check_writable(path)
    assert list(tmp_path.iterdir()) == []
    save(Image.new("RGB", (20, 20)), path)
    assert [os.fsencode(item.name) for item in tmp_path.iterdir()] == [os.fsencode(name)]


@pytest.mark.parametrize(
    "name, said",
    [
        ("x" * 252 + ".png", "cannot be written"),
        ("none/a.png", "the folder .*none does not exist; make it first"),
        ("a.png/b.png", "a.png is a file, not a folder"),
        ("folder.png", "a folder has this name"),
        ("a.xyz", "end the name in .png"),
        ("a", "there is no folder of this name; end the name in .png"),
        ("a\0.png", "cannot be written"),
        ("/".join(["deep"] * 1000) + "/a.png", "cannot be written|does not exist"),
    ],
)
def test_what_cannot_be_written_is_refused_before(tmp_path, name, said):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "a.png").write_bytes(b"a file")
    with pytest.raises(BadRequest, match=said):
        check_writable(tmp_path / name)


def test_a_folder_that_may_not_be_written_is_refused_before(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writing.Path, "touch", denied)  # as for users without root permissions
    with pytest.raises(BadRequest, match="Permission denied"):
        check_writable(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_picture_takes_the_place_of_files_alone(tmp_path):
    pipe, file = tmp_path / "pipe.png", tmp_path / "file.png"
    os.mkfifo(pipe)
    file.write_bytes(b"x")
    for path, words in (
        (pipe, "a device, pipe or socket"),
        (file / "a.png", "file.png is a file, not a folder"),
    ):
        with pytest.raises(BadRequest, match=words):
            check_writable(path)
    check_writable(file)
    with pytest.raises(BadRequest, match="a device, pipe or socket"):
        save(Image.new("RGB", (20, 20)), pipe)  # also without check_writable before
    assert pipe.is_fifo()
