"""Contact sheets: rows of source, instruction, mask and target, to inspect the world."""

import numpy as np
from PIL import Image, ImageDraw

from .drawing.art import CHINESE_FONT, font
from .tasks.samples import Sample, World, kind_names

_PICTURE, _TEXT, _GAP = 176, 196, 10
_ENGLISH_FONT = "TitanOne"


def contact_sheet(samples: list[Sample], columns: int = 3) -> Image.Image:
    """Samples side by side with their sentences and masks."""
    width, height = 2 * _PICTURE + _TEXT + 2 * _GAP, _PICTURE + _GAP
    rows = (len(samples) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "#faf7f0")
    for index, sample in enumerate(samples):
        _draw_sample(sheet, sample, _GAP + index % columns * width, _GAP + index // columns * height)
    return sheet


def every_kind(world: World, seed: str, each: int = 1, split: str = "train") -> list[Sample]:
    """`each` samples of every kind."""
    return [world.sample(f"{seed}/{i}", split, kind=kind) for kind in kind_names() for i in range(each)]


def picture_grid(pictures: list[np.ndarray], columns: int = 8, size: int = 160) -> Image.Image:
    """Pictures alone, in a grid."""
    rows = (len(pictures) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * (size + 4) + 4, rows * (size + 4) + 4), "#faf7f0")
    for index, pixels in enumerate(pictures):
        place = (4 + index % columns * (size + 4), 4 + index // columns * (size + 4))
        sheet.paste(_small(pixels, size), place)
    return sheet


def _small(pixels: np.ndarray, size: int) -> Image.Image:
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)


def _draw_sample(sheet: Image.Image, sample: Sample, x: int, y: int) -> None:
    draw = ImageDraw.Draw(sheet)
    if sample.source is None:
        draw.rectangle((x, y, x + _PICTURE, y + _PICTURE), fill="#e8e2d4")
    else:
        sheet.paste(_small(sample.source, _PICTURE), (x, y))
    sheet.paste(_small(sample.target, _PICTURE), (x + _PICTURE + _TEXT, y))
    left, row = x + _PICTURE + 8, y
    draw.text((left, row), f"{sample.kind} ({sample.split})", font=font(_ENGLISH_FONT, 11), fill="#b0562f")
    size = 13 if len(sample.english) < 90 else 10
    row = _paragraph(draw, sample.english.split(" "), " ", _ENGLISH_FONT, size, left, row + 16, "#222222")
    _paragraph(draw, list(sample.chinese), "", CHINESE_FONT, size, left, row + 4, "#2a5a9c")
    for index, reference in enumerate(sample.references):
        sheet.paste(_small(reference, 84), (left + index * 88, y + _PICTURE - 84))
    mask = Image.fromarray((sample.mask * 255).astype(np.uint8)).resize((32, 32))
    sheet.paste(mask, (x + _PICTURE + _TEXT - 40, y + _PICTURE - 34))
    draw.rectangle(
        (x + _PICTURE + _TEXT - 41, y + _PICTURE - 35, x + _PICTURE + _TEXT - 8, y + _PICTURE - 2),
        outline="#b0562f",
    )


def _paragraph(
    draw: ImageDraw.ImageDraw,
    parts: list[str],
    joint: str,
    name: str,
    size: int,
    x: int,
    y: int,
    color: str,
) -> int:
    """Text in lines as wide as the text column; returns the row below it."""
    face, line = font(name, size), ""
    for part in parts:
        longer = f"{line}{joint}{part}" if line else part
        if line and face.getlength(longer) > _TEXT - 16:
            draw.text((x, y), line, font=face, fill=color)
            y, line = y + size + 2, part
        else:
            line = longer
    draw.text((x, y), line, font=face, fill=color)
    return y + size + 2
