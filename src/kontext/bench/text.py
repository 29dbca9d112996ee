"""Suite ``text``: are the letters right? Two readers, and the ceiling of each on the true targets.

The matcher compares the writing with renderings of every word of the world on the same sign (exact here,
needs no network); RapidOCR reads it as it would read any picture, where it is installed. The row ``oracle``
is what a reader makes of the true target: no figure of that reader can be expected above it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kontext import world
from kontext.bench import quality, report
from kontext.bench.items import Item, at_size, draw_item
from kontext.bench.metrics import DISTANCE_CAP, Picture, blur, color_distance, lab
from kontext.bench.run import Figure, Progress, Run, RunJson, silent
from kontext.world.drawing.signs import WORDS

if TYPE_CHECKING:
    from kontext.engine import Editor

log = logging.getLogger(__name__)

KINDS = ("text", "text_write")
FIGURES = {
    "success": Figure("success"),
    "matched": Figure("exact, matcher"),
    "read": Figure("exact, OCR"),
    "letters": Figure("wrong letters, OCR", better=-1),
    "glyphs": Figure("glyph IoU"),
    "accuracy@10": Figure("accuracy dE 10"),
    "keep@5": Figure("kept dE 5"),
    "combined": Figure("combined"),
    "seconds": Figure("s/edit", share=False, digits=2, better=-1),
}
READING_PIXELS = 48  # height at which the OCR model reads a line


def measure(
    editor: Editor | None,
    run: Run,
    *,
    n: int,
    size: int,
    rows: Sequence[str],
    splits: Sequence[str] = ("test", "words"),
    progress: Progress = silent,
) -> None:
    """``n`` new or changed words of each split in every row, as records."""
    read = reader()
    if read is None:
        log.warning("rapidocr is not installed (pip install 'openkontext[bench]'): no OCR figures")
    keys = [(split, i) for split in splits for i in range(n)]
    items = (find(split, i, size) for split, i in progress(keys, len(keys), "text"))
    quality.each(editor, run, items, rows, lambda item, result: score(item, result, read))


def find(split: str, index: int, size: int) -> Item:
    return draw_item(split, "text", index, size, KINDS)


def score(item: Item, result: Picture, read: Callable[[Picture], str] | None) -> dict[str, float]:
    """The quality figures of an edit and of its text."""
    word, box = item.full.after["sign"]["word"], _writing(item)
    figures = item.case.score(result) | {
        "matched": float(matched(item, result) == word),
        "glyphs": glyph_overlap(result[box], item.sample.target[box]),
    }
    if read is not None:
        text = read(result[box])
        figures |= {"read": float(text == word), "letters": letter_errors(text, word)}
    return figures


@lru_cache(maxsize=16)
def _candidates(item: Item) -> dict[str, Picture]:
    """The target with every word of the world on its sign."""
    scene = item.full.after
    words = dict.fromkeys((item.full.after["sign"]["word"], *WORDS))
    return {w: at_size(world.render(scene | {"sign": scene["sign"] | {"word": w}}), item.size) for w in words}


def _writing(item: Item) -> tuple[slice, slice]:
    """The bounding box of the sign's text, where candidate words differ."""
    pictures = np.stack(list(_candidates(item).values()))
    rows, columns = np.nonzero((pictures != pictures[0]).any(axis=(0, 3)))
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def matched(item: Item, result: Picture) -> str:
    """The word whose rendering is nearest to the result's writing."""
    box = _writing(item)
    result_lab = lab(blur(result[box], 1.0))
    distance = {
        word: np.minimum(color_distance(result_lab, lab(blur(picture[box], 1.0))), DISTANCE_CAP).mean()
        for word, picture in _candidates(item).items()
    }
    return min(distance, key=distance.__getitem__)


def glyph_overlap(result: Picture, target: Picture) -> float:
    """Intersection over union of the letters, segmented by Otsu's threshold of each picture."""
    from skimage.filters import threshold_otsu

    masks = []
    for picture in (result, target):
        gray = np.asarray(Image.fromarray(picture).convert("L"), np.float32)
        if gray.min() == gray.max():
            return 0.0
        masks.append(gray > threshold_otsu(gray))
    if masks[1].mean() > 0.5:  # dark letters on a light ground
        masks = [~m for m in masks]
    return float((masks[0] & masks[1]).sum() / max(1, (masks[0] | masks[1]).sum()))


def letter_errors(text: str, word: str) -> float:
    """Levenshtein distance over the length of the word, at most 1."""
    row = list(range(len(word) + 1))
    for i, a in enumerate(text, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(word, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return min(1.0, row[-1] / max(1, len(word)))


@lru_cache(maxsize=1)
def reader() -> Callable[[Picture], str] | None:
    """One line of capitals read by RapidOCR; None if it is not installed."""
    try:
        from rapidocr import RapidOCR
    except ImportError:
        return None
    engine = RapidOCR(params={"Global.log_level": "critical"})

    def read(picture: Picture) -> str:
        height, width = picture.shape[:2]
        line = Image.fromarray(picture).resize(
            (round(width * READING_PIXELS / height), READING_PIXELS), Image.Resampling.BICUBIC
        )
        found: Any = engine(np.asarray(line)[..., ::-1], use_det=False, use_cls=False, use_rec=True)
        text = "".join(found.txts or ())
        return "".join(c for c in text.upper() if c.isalnum())

    return read


def sections(run: Run, result: RunJson, size: int) -> list[str]:
    """A table for each split and contact sheets."""
    rows = result["rows"]
    out = [
        report.table(f"Split {s}", {r: g[s] for r, g in rows.items() if s in g}, FIGURES)
        for s in dict.fromkeys(r.split for r in run.records)
    ]
    models = [row for row in rows if row.startswith("model")]

    def find_by_key(key: str) -> Item:
        split, _, index = key.split("/")
        return find(split, int(index), size)

    return out + quality.contact_sheets(run, models[-1:], find_by_key)
