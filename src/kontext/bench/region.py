"""Suite ``region``: does the model know where an edit acts before it paints it?

Three categories of held-out edits: of a part, where the region that `Editor.locate` finds is compared with
the exact mask; of the whole picture; and prompts that ask for no change, whose region must be empty. Regions
are compared token by token, the resolution at which the model decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kontext import world
from kontext.bench import report
from kontext.bench.items import VERSION, digest, draw_item, sized
from kontext.bench.metrics import Mask, Picture
from kontext.bench.run import Figure, Progress, Record, RowsJson, Run, RunJson, silent
from kontext.engine.regions import RULES

if TYPE_CHECKING:
    from kontext.engine import Editor

CATEGORIES = ("local", "global", "nothing")
SPLITS = ("test", "phrasing", "chinese")
FIGURES = {
    "iou": Figure("IoU"),
    "found": Figure("tokens found"),
    "whole": Figure("known as whole"),
    "nothing": Figure("known as nothing"),
}
_STILL = world.World(kinds=("nothing",))


def measure(
    editor: Editor,
    run: Run,
    *,
    n: int,
    size: int,
    splits: Sequence[str] = ("test",),
    progress: Progress = silent,
) -> None:
    """``n`` items of each category and split, as records."""
    keys = [(split, category, i) for split in splits for category in CATEGORIES for i in range(n)]
    for split, category, index in progress(keys, len(keys), "region"):
        key = f"{split}/{category}/{index:04d}"
        if run.done(key, "model"):
            continue
        source, prompt, mask = draw(split, category, index, size)
        found = editor.locate(Image.fromarray(source), prompt)
        figures = score(mask, np.asarray(found) > 0, editor.model.preset.token_pixels)
        scene = f"{category}/{index:04d}"
        run.add(Record(key, "model", category, split, scene, figures, sum=digest([source], prompt)))


def draw(split: str, category: str, index: int, size: int) -> tuple[Picture, str, Mask]:
    """Source, prompt and exact mask (bool) of an item."""
    if category == "nothing":
        drawn = "test" if split == "chinese" else split
        sample = sized(_STILL.sample(f"bench {VERSION}/region/{index}", drawn), size)
        assert sample.source is not None  # an edit
        return sample.source, sample.chinese if split == "chinese" else sample.english, sample.mask
    item = draw_item(split, category, index, size)
    return item.input_picture, item.prompt, item.sample.mask


def score(mask: Mask, found: Mask, token_pixels: int) -> dict[str, float]:
    """Figures of a predicted region by the exact mask, as far as they apply to that mask."""
    exact, expected = _tokens(mask, token_pixels), _tokens(found, token_pixels)
    if not exact.any():
        return {"nothing": float(not expected.any())}
    if exact.mean() > RULES.whole_share:
        return {"whole": float(expected.mean() > RULES.whole_share)}
    both, either = (exact & expected).sum(), (exact | expected).sum()
    return {"iou": float(both / either), "found": float(both / exact.sum())}


def _tokens(mask: Mask, token_pixels: int) -> Mask:
    rows, columns = (math.ceil(side / token_pixels) for side in mask.shape)
    padded = np.zeros((rows * token_pixels, columns * token_pixels), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return np.asarray(padded.reshape(rows, token_pixels, columns, token_pixels).any((1, 3)))


def sections(run: Run, result: RunJson, size: int) -> list[str]:
    """A table for each split."""
    return list(_tables(run, result["rows"]))


def _tables(run: Run, rows: RowsJson) -> Iterator[str]:
    for split in dict.fromkeys(record.split for record in run.records):
        groups = {category: rows["model"].get(f"{split}/{category}", {}) for category in CATEGORIES}
        yield report.table(split, groups, FIGURES)
