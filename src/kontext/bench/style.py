"""Suite ``style``: is the look right, is the content right, and was the reference not simply copied?

A style here is a filter with exact parameters, so the target is exact, and so is the same content in every
other style and other contents in this style. ``style`` is the majority of three forced choices over all
looks of the same content: pixels, colors alone (sliced Wasserstein distance in Lab), edges alone
(gradients at three scales).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from kontext import world
from kontext.bench import quality, report
from kontext.bench.items import Item, at_size, draw_item
from kontext.bench.metrics import DISTANCE_CAP, Floats, Picture, blur, color_distance, lab
from kontext.bench.run import Figure, Progress, Run, RunJson, silent
from kontext.world.drawing.styles import STYLES

if TYPE_CHECKING:
    from kontext.engine import Editor

KINDS = {"style_reference": ("style_reference",), "global": ("style",)}
CONTENTS = 16
DIRECTIONS = 64
FIGURES = {
    "style": Figure("style rank-1"),
    "pixels": Figure("by pixels"),
    "colors": Figure("by colors"),
    "edges": Figure("by edges"),
    "content": Figure("content rank-1"),
    "score": Figure("style and content"),
    "copied": Figure("copied", better=-1),
    "success": Figure("success"),
    "seconds": Figure("s/edit", share=False, digits=2, better=-1),
}


def measure(
    editor: Editor | None, run: Run, *, n: int, size: int, rows: Sequence[str], progress: Progress = silent
) -> None:
    """``n`` style references and ``n`` restyled pictures in every row, as records."""
    keys = [(category, i) for category in KINDS for i in range(n)]
    items = (find(category, i, size) for category, i in progress(keys, len(keys), "style"))
    quality.each(editor, run, items, rows, score)


def find(category: str, index: int, size: int) -> Item:
    return draw_item("test", category, index, size, KINDS[category])


def score(item: Item, result: Picture) -> dict[str, float]:
    """Rank-1 of style and content, both as shares of one item, and whether the input was copied."""
    renderings, contents = _renderings(item), _contents(item)
    result_lab = lab(blur(result, 1.0))
    votes = {
        "pixels": nearest([_apart(result_lab, other) for other, _ in renderings]),
        "colors": nearest([_color_distance(result_lab, other) for other, _ in renderings]),
        "edges": nearest([float(np.abs(edges(result) - other).sum()) for _, other in renderings]),
    }
    figures = {name: float(vote == 0) for name, vote in votes.items()}
    figures["style"] = float(sum(figures.values()) >= 2)
    figures["content"] = float(nearest([_apart(result_lab, other) for other in contents]) == 0)
    figures["score"] = math.sqrt(figures["style"] * figures["content"])
    input_lab = lab(blur(item.input_picture, 1.0))
    figures["copied"] = float(_apart(result_lab, input_lab) < _apart(result_lab, renderings[0][0]))
    return figures | item.case.score(result)


@lru_cache(maxsize=16)
def _renderings(item: Item) -> list[tuple[Floats, Floats]]:
    """Lab and edge histogram of the target (first) and of its content in every other look."""
    scene = item.full.after
    others = [style for style in (None, *STYLES) if style != scene["style"]]
    pictures = [item.sample.target]
    pictures += [at_size(world.render(scene | {"style": style}), item.size) for style in others]
    return [(lab(blur(p, 1.0)), edges(p)) for p in pictures]


@lru_cache(maxsize=16)
def _contents(item: Item) -> list[Floats]:
    """Lab of the target (first), of the input and of other scenes in the target's style."""
    style, pictures = item.full.after["style"], [item.sample.target, item.input_picture]
    for i in range(CONTENTS - 2):
        other = world.sample(f"content {item.key}/{i}", "test", "generate").after
        pictures.append(at_size(world.render(other | {"style": style}), item.size))
    return [lab(blur(p, 1.0)) for p in pictures]


def nearest(distances: Sequence[float]) -> int:
    """The place of the strictly smallest distance, -1 where the first ties with another."""
    best = int(np.argmin(distances))
    return -1 if distances.count(distances[best]) > 1 else best


def _apart(a: Floats, b: Floats) -> float:
    return float(np.minimum(color_distance(a, b), DISTANCE_CAP).mean())


@lru_cache(maxsize=1)
def _directions() -> Floats:
    drawn = np.random.default_rng(0).normal(size=(3, DIRECTIONS)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=0)


def _color_distance(a: Floats, b: Floats) -> float:
    """Sliced Wasserstein distance of the colors of two Lab pictures, wherever they are."""
    sorted_a, sorted_b = (np.sort(p[::2, ::2].reshape(-1, 3) @ _directions(), axis=0) for p in (a, b))
    return float(np.abs(sorted_a - sorted_b).mean())


def edges(picture: Picture) -> Floats:
    """Shares of edge direction (8) by strength (6) at three scales: 144 numbers, wherever the edges are."""
    gray = picture.astype(np.float32).mean(-1)
    out = []
    for sigma in (0.7, 1.5, 3.0):
        down, across = np.gradient(blur(gray, sigma))
        strength = np.digitize(np.hypot(down, across), (1, 3, 8, 16, 32))
        angle = ((np.arctan2(down, across) % math.pi) / math.pi * 8).astype(int) % 8
        out.append(np.bincount((strength * 8 + angle).ravel(), minlength=48) / gray.size)
    return np.concatenate(out).astype(np.float32)


def sections(run: Run, result: RunJson, size: int) -> list[str]:
    """A table for each kind and contact sheets."""
    rows, out = result["rows"], []
    for category in dict.fromkeys(r.category for r in run.records):
        group = f"test/{category}"
        out.append(report.table(category, {r: g[group] for r, g in rows.items() if group in g}, FIGURES))
    models = [row for row in rows if row.startswith("model")]

    def find_by_key(key: str) -> Item:
        _, category, index = key.split("/")
        return find(category, int(index), size)

    return out + quality.contact_sheets(run, models[-1:], find_by_key)
