"""Looks of a whole picture: twelve deterministic local filters.

Their textures are fixed (one paper, one wash, one warp field; stitches and bricks aligned to 8 pixels), so
that a small model can learn them, and blocks are small enough to keep faces readable.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from .raster import SIZE

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SMOOTH = ImageFilter.Kernel((3, 3), [4, 12, 4, 12, 33, 12, 4, 12, 4])  # Gaussian of 0.7 pixels


def _noise(seed: int, cells: int) -> np.ndarray:
    values = np.random.default_rng(seed).random((cells, cells)).astype(np.float32)
    picture = Image.fromarray((values * 255).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32) / 255


@functools.lru_cache(maxsize=1)
def _paper() -> np.ndarray:
    return 0.6 * _noise(1, 128) + 0.4 * _noise(2, 40)


@functools.lru_cache(maxsize=1)
def _wash() -> np.ndarray:
    return 0.5 * _noise(3, 8) + 0.5 * _noise(4, 20)


@functools.lru_cache(maxsize=1)
def _warp() -> tuple[np.ndarray, np.ndarray]:
    """Row and column that each pixel is taken from."""
    dx, dy = _noise(5, 24) - 0.5, _noise(6, 24) - 0.5
    columns = np.clip(_X + dx * 7, 0, SIZE - 1).astype(np.int32)
    rows = np.clip(_Y + dy * 7, 0, SIZE - 1).astype(np.int32)
    return rows, columns


@functools.lru_cache(maxsize=1)
def _studs() -> np.ndarray:
    """Light on toy bricks of 8 pixels, as a factor."""
    u, v = (_X % 8) - 3.5, (_Y % 8) - 3.5
    distance = np.sqrt(u * u + v * v)
    rim = np.abs(distance - 2.6) < 0.6
    factor = np.ones((SIZE, SIZE), np.float32)
    factor += np.where(distance < 2.2, 0.09, 0)
    factor -= np.where(rim & (u + v > 0), 0.26, 0) - np.where(rim & (u + v < -1), 0.16, 0)
    factor -= np.where((_X % 8 == 7) | (_Y % 8 == 7), 0.20, 0)
    return factor[..., None]


@functools.lru_cache(maxsize=1)
def _stitches() -> np.ndarray:
    """Light on knitted stitches of 8 x 8 pixels, as a factor."""
    u, v = _X % 8, _Y % 8
    slope = (v - np.where(u < 4, u, 7 - u)) % 8
    factor = 1.08 - 0.30 * (slope < 1.6) - 0.12 * (slope > 6.6) - 0.10 * ((u == 0) | (u == 7))
    return factor.astype(np.float32)[..., None]


@functools.lru_cache(maxsize=1)
def _dark_corners() -> np.ndarray:
    """Brightness of an old photograph, as a factor."""
    distance = ((_X - 128) ** 2 + (_Y - 128) ** 2) / 23000
    return (1 - 0.28 * np.clip(distance - 0.35, 0, 1))[..., None]


@functools.lru_cache(maxsize=1)
def _squared_paper() -> np.ndarray:
    """Blue paper with a grid of 16 pixels."""
    grid = ((_X % 16 == 0) | (_Y % 16 == 0))[..., None] * np.array([14, 18, 22], np.float32)
    return np.array([28, 74, 150], np.float32) + grid


@functools.lru_cache(maxsize=1)
def _halftone() -> np.ndarray:
    """Distance to the nearest print dot, about 0 to 1."""
    u, v = ((_X + _Y) / 1.414) % 6 - 3, ((_X - _Y) / 1.414) % 6 - 3
    return np.sqrt(u * u + v * v) / 4.25


def channel_maximum(values: np.ndarray) -> np.ndarray:
    """Maximum over the last axis of three; much faster than `max(axis=2)`."""
    return np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])


def dilated(values: np.ndarray, radius: int) -> np.ndarray:
    """Square maximum filter over the first two axes."""
    rows = values.copy()
    for shift in range(1, radius + 1):
        rows[shift:] = np.maximum(rows[shift:], values[:-shift])
        rows[:-shift] = np.maximum(rows[:-shift], values[shift:])
    out = rows.copy()
    for shift in range(1, radius + 1):
        out[:, shift:] = np.maximum(out[:, shift:], rows[:, :-shift])
        out[:, :-shift] = np.maximum(out[:, :-shift], rows[:, shift:])
    return out


def _blurred(pixels: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _blocks(pixels: np.ndarray, size: int) -> np.ndarray:
    cells = Image.fromarray(pixels).resize((SIZE // size, SIZE // size), Image.Resampling.BOX)
    return np.asarray(cells, np.float32)


def _enlarged(cells: np.ndarray, size: int) -> np.ndarray:
    return np.repeat(np.repeat(cells, size, 0), size, 1)


def _edges(pixels: np.ndarray) -> np.ndarray:
    smooth = np.asarray(Image.fromarray(pixels).filter(_SMOOTH)).astype(np.int16)
    slope = np.zeros((SIZE, SIZE), np.int16)
    slope[:, 1:-1] = channel_maximum(np.abs(smooth[:, 2:] - smooth[:, :-2]))
    slope[1:-1] = np.maximum(slope[1:-1], channel_maximum(np.abs(smooth[2:] - smooth[:-2])))
    slope[0] = slope[-1] = slope[:, 0] = slope[:, -1] = 0
    return np.clip((slope.astype(np.float32) - 14) * (1 / 34), 0, 1)


def _gray3(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, 2)


def _line(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels).convert("L")
    gray = np.asarray(picture, np.float32)
    around = np.asarray(picture.filter(ImageFilter.BoxBlur(7)), np.float32)
    # Local contrast keeps thin dark strokes solid; a global threshold would turn night scenes black.
    strokes = np.clip((around - gray - 30) / 30, 0, 1) * (gray < 90)
    return _gray3(255 - 225 * np.maximum(_edges(pixels), strokes))


def _pencil(pixels: np.ndarray) -> np.ndarray:
    gray8 = np.asarray(Image.fromarray(pixels).convert("L"))
    gray = gray8.astype(np.float32)
    dodge = np.minimum(255, gray * 255 / np.maximum(1, 255 - _blurred(255 - gray8, 5).astype(np.float32)))
    hatching = 18 * (((_X + _Y) % 5) < 1.6) * (gray < 150) + 14 * (((_X - _Y) % 5) < 1.6) * (gray < 95)
    drawn = dodge * 0.97 - hatching - (255 - gray) * 0.40 - (_paper() - 0.5) * 16
    return _gray3(drawn) * np.array([1, 0.99, 0.97], np.float32)


def _pixel(pixels: np.ndarray) -> np.ndarray:
    return _enlarged(np.round(_blocks(pixels, 4) / 255 * 5) / 5 * 255, 4)


def _watercolor(pixels: np.ndarray) -> np.ndarray:
    warped = Image.fromarray(pixels[_warp()]).resize((SIZE // 2, SIZE // 2), Image.Resampling.BOX)
    wet = warped.filter(ImageFilter.MedianFilter(3)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    color = np.asarray(wet, np.float32)
    around = np.asarray(wet.filter(ImageFilter.GaussianBlur(5)), np.float32)
    rims = np.clip(channel_maximum(np.abs(color - around))[..., None] / 60, 0, 1)
    pale = (255 - (255 - color) * 0.72) * (1 - 0.22 * rims)
    washed = pale + (255 - pale) * (_wash()[..., None] - 0.42) * 0.5 * (0.25 + 0.75 * pale / 255)
    return washed - (_paper()[..., None] - 0.5) * 20


def _sepia(pixels: np.ndarray) -> np.ndarray:
    gray = pixels.astype(np.float32) @ _LUMA
    brown = gray[..., None] * np.array([1.04, 0.86, 0.64], np.float32) + np.array([14, 8, 2], np.float32)
    return brown * _dark_corners()


def _gray(pixels: np.ndarray) -> np.ndarray:
    return _gray3(pixels.astype(np.float32) @ _LUMA)


def _neon(pixels: np.ndarray) -> np.ndarray:
    rows = np.maximum(pixels[::2], pixels[1::2])
    half = np.maximum(rows[:, ::2], rows[:, 1::2])  # colors need only half the resolution
    hsv = np.array(Image.fromarray(dilated(half, 1)).convert("HSV"))
    hsv[..., 1] = np.maximum(hsv[..., 1], 170)
    hsv[..., 2] = 255
    bright = _enlarged(np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"), np.float32), 2)
    line = (bright * _edges(pixels)[..., None]).astype(np.uint8)
    glow = _blurred(line, 4).astype(np.float32)
    return np.array([16, 10, 34], np.float32) + line * 0.9 + glow * 1.1 + pixels * 0.08


def _blueprint(pixels: np.ndarray) -> np.ndarray:
    paper = _squared_paper()
    return paper + (np.array([236, 244, 255], np.float32) - paper) * _edges(pixels)[..., None]


def _chalk(pixels: np.ndarray) -> np.ndarray:
    edges = np.clip(_edges(pixels) * (0.62 + 0.5 * _paper()), 0, 1)[..., None]
    soft = np.asarray(Image.fromarray(pixels).filter(ImageFilter.BoxBlur(3)), np.float32)
    board = np.array([32.4, 59.4, 49.5], np.float32) + soft * 0.07
    return board + (np.array([246, 246, 236], np.float32) - board) * edges


def _comic(pixels: np.ndarray) -> np.ndarray:
    color = pixels.astype(np.float32)
    gray = color @ _LUMA
    flattened = 128 + (np.round(color / 255 * 4) / 4 * 255 - 128) * 1.15
    dots = (_halftone() < (1 - gray / 255) * 1.02) & (gray < 205)
    printed = np.where(dots[..., None], flattened * 0.72, flattened)
    return printed * (1 - 0.95 * _edges(pixels)[..., None])


def _knit(pixels: np.ndarray) -> np.ndarray:
    return _enlarged(_blocks(pixels, 4), 4) * _stitches()


def _brick(pixels: np.ndarray) -> np.ndarray:
    return _enlarged(_blocks(pixels, 8), 8) * _studs()


class Style(NamedTuple):
    """A look: its filter and its names."""

    draw: Callable[[np.ndarray], np.ndarray]
    english: tuple[str, ...]
    chinese: tuple[str, ...]


STYLES = {
    "line": Style(_line, ("a black and white line drawing", "clean line art"), ("黑白线稿", "线条画")),
    "pencil": Style(_pencil, ("a pencil sketch", "a graphite drawing"), ("铅笔素描", "素描")),
    "pixel": Style(_pixel, ("pixel art", "an 8-bit pixel picture"), ("像素画", "8位像素风格")),
    "watercolor": Style(_watercolor, ("a watercolor painting", "a soft watercolor"), ("水彩画", "水彩风格")),
    "sepia": Style(
        _sepia, ("an old sepia photograph", "a vintage sepia picture"), ("复古棕褐色老照片", "怀旧照片")
    ),
    "gray": Style(_gray, ("a black and white picture", "grayscale"), ("黑白照片", "黑白风格")),
    "neon": Style(_neon, ("glowing neon lines", "a neon light style"), ("霓虹灯风格", "发光霓虹线条")),
    "blueprint": Style(_blueprint, ("a blueprint", "a blueprint drawing"), ("蓝图", "工程蓝图")),
    "chalk": Style(_chalk, ("a chalk drawing on a blackboard", "chalk art"), ("黑板粉笔画", "粉笔画")),
    "comic": Style(_comic, ("a comic book print", "a pop art comic"), ("漫画", "波普漫画风格")),
    "knit": Style(_knit, ("a knitted sweater pattern", "knitted wool"), ("毛线编织", "针织风格")),
    "brick": Style(_brick, ("toy bricks", "a toy brick mosaic"), ("积木", "积木拼图风格")),
}


def styled(pixels: np.ndarray, style: str) -> np.ndarray:
    """A picture (uint8, 256 x 256 x 3) in a style."""
    return np.clip(STYLES[style].draw(np.ascontiguousarray(pixels)), 0, 255).astype(np.uint8)
