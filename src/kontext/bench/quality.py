"""Suite ``quality``: single edits of every category against their exact answers.

Five categories as in KontextBench (local, global, text, style reference, character reference) and text to
picture, and on request edits by a second picture (several_references); each split separately, with
baselines next to the model. The headline is success: the forced choice
against 15 rendered distractors and the absolute check of ``kontext.bench.metrics``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from PIL import Image

from kontext.bench import plots, report
from kontext.bench.items import SINGLE, Item, draw_item
from kontext.bench.metrics import Picture
from kontext.bench.rows import BATCH, answer
from kontext.bench.run import Figure, Progress, Record, RowsJson, Run, RunJson, silent
from kontext.bench.statistics import Estimate

if TYPE_CHECKING:
    from kontext.engine import Editor

FIGURES = {
    "success": Figure("success"),
    "choice": Figure("choice"),
    "accuracy@5": Figure("accuracy dE 5"),
    "accuracy@10": Figure("accuracy dE 10"),
    "edit_error": Figure("edit error", share=False, digits=3, better=-1),
    "keep@5": Figure("kept dE 5"),
    "keep_psnr": Figure("kept PSNR", share=False),
    "codec_gap": Figure("codec gap dB", share=False, better=-1),
    "spill": Figure("spill", digits=2, better=-1),
    "iou@5": Figure("IoU dE 5"),
    "iou@10": Figure("IoU dE 10"),
    "combined": Figure("combined"),
    "refused": Figure("refused", better=-1),
    "seconds": Figure("s/edit", share=False, digits=2, better=-1),
}
HEADLINE = ("success", "accuracy@10", "keep@5", "keep_psnr", "codec_gap", "iou@5", "combined", "seconds")


def measure(
    editor: Editor | None,
    run: Run,
    *,
    n: int,
    size: int,
    rows: Sequence[str],
    splits: Sequence[str] = ("test",),
    categories: Sequence[str] = SINGLE,
    progress: Progress = silent,
) -> None:
    """``n`` items of each category and split in every row, as records."""
    keys = [(s, c, i) for s in splits for c in categories for i in range(n)]
    items = (draw_item(s, c, i, size) for s, c, i in keys)
    shown = progress(items, len(keys), "quality")
    each(editor, run, shown, rows, lambda item, result: item.case.score(result))


def each(
    editor: Editor | None,
    run: Run,
    items: Iterable[Item],
    rows: Sequence[str],
    score: Callable[[Item, Picture], dict[str, float]],
) -> None:
    """Score every item in every row, in batches; items with a record are skipped."""
    stream = iter(items)
    while group := list(islice(stream, BATCH)):
        for row in rows:
            missing = [item for item in group if not run.done(item.key, row)]
            for item, (result, making) in zip(missing, answer(row, missing, editor) if missing else []):
                figures = score(item, result) | making
                file = run.save_picture(f"{row}/{item.key}", result) if row.startswith("model") else ""
                run.add(
                    Record(item.key, row, item.category, item.split, item.scene, figures, "", file, item.sum)
                )
        _codec_gap(run, group, rows)


def _codec_gap(run: Run, group: Sequence[Item], rows: Sequence[str]) -> None:
    """Record the editor's loss in the preserved part beyond the codec's own loss, in dB."""
    if "codec-input" not in rows:
        return
    for item in group:
        codec = run.record(item.key, "codec-input").figures.get("keep_psnr", math.nan)
        for row in rows:
            record = run.record(item.key, row)
            if row.startswith("model") and "codec_gap" not in record.figures:
                gap = codec - record.figures.get("keep_psnr", math.nan)
                run.update(record, codec_gap=gap)


def confusion(records: Sequence[Record], row: str, find: Callable[[str], Item]) -> dict[str, int]:
    """Counts of the mistakes over the failed items of a row."""
    out: Counter[str] = Counter()
    for r in records:
        if r.row == row and not r.figures.get("success", 1.0):
            chosen = int(r.figures["chosen"])
            label = "unchanged" if chosen == 0 else ""
            if chosen > 0:
                label = find(r.item).distractors[chosen - 1][0]
            out[_WHAT[label.split(" ")[0]]] += 1
    return dict(out.most_common())


_WHAT = {
    "": "right but not far enough",
    "unchanged": "nothing done",
    "value": "another value",
    "edit": "another edit",
    "stray": "a stray change as well",
}


def sections(run: Run, result: RunJson, size: int) -> list[str]:
    """Headline, categories and splits, quality against latency, contact sheets of the last model row."""
    rows, headline = result["rows"], {k: FIGURES[k] for k in HEADLINE}
    splits = list(dict.fromkeys(r.split for r in run.records))

    def find(key: str) -> Item:
        return draw_item(*_place(key), size)

    out = []
    for split in splits:
        cells = {row: groups[split] for row, groups in rows.items() if split in groups}
        out.append(report.table(f"Split {split}", cells, headline, "Mean of the categories' means."))
    models = [row for row in rows if row.startswith("model")]
    for row in models[-1:] or list(rows)[-1:]:
        groups = {g: cells for g, cells in rows[row].items() if "/" in g}
        out.append(report.table(f"By split and category: {row}", groups, FIGURES, first="split / category"))
        failed = ", ".join(f"{what} {count}" for what, count in confusion(run.records, row, find).items())
        out.append(f'<p class="quiet">Failures of {row}: {failed or "none"}.</p>')
    if len({row.split("@")[1] for row in models}) > 1:
        out.append(report.plots({"Quality against latency": frontier(rows, splits[0])}))
    return out + contact_sheets(run, models[-1:], find)


def _place(key: str) -> tuple[str, str, int]:
    split, category, index = key.split("/")
    return split, category, int(index)


def frontier(rows: RowsJson, split: str) -> str:
    """Combined score over seconds an edit; one curve for each way of running the model."""
    curves: dict[str, list[plots.Point]] = {}
    for row, groups in rows.items():
        cells = groups.get(split, {})
        if "seconds" in cells and "combined" in cells:
            seconds = Estimate.from_json(cells["seconds"]).mean
            point = (seconds, *Estimate.from_json(cells["combined"]).scaled(100))
            curves.setdefault(row.split("@")[0], []).append(point)
    ordered = {name: sorted(points) for name, points in curves.items()}
    return plots.lines(ordered, "seconds an edit", "combined, %", log_x=True)


def contact_sheets(run: Run, rows: Sequence[str], find: Callable[[str], Item], each: int = 6) -> list[str]:
    """Best, median and worst by combined score, of every row given."""
    out = []
    for row in rows:
        ranked = sorted(
            (r for r in run.records if r.row == row and math.isfinite(r.figures.get("combined", math.nan))),
            key=lambda r: (-r.figures["combined"], -r.figures.get("margin", 0.0)),
        )
        middle = max(0, len(ranked) // 2 - each // 2)
        parts = {"Best": ranked[:each], "Median": ranked[middle : middle + each], "Worst": ranked[-each:]}
        for title, records in parts.items():
            out.append(report.sheet(f"{title}: {row}", [_card(run, r, find(r.item)) for r in records]))
    return out


def _card(run: Run, record: Record, item: Item) -> report.Card:
    shown: dict[str, Picture | Image.Image] = (
        {} if item.sample.source is None else {"source": item.sample.source}
    )
    shown |= {f"image {i}": picture for i, picture in enumerate(item.sample.references, 2)}
    shown |= {"target": item.sample.target, "result": run.picture(record)}
    used = ("success", "combined", "accuracy@10", "keep@5")
    figures = " · ".join(f"{FIGURES[k].label} {FIGURES[k].show(record.figures.get(k))}" for k in used)
    return report.Card(shown, item.prompt, f"{record.item} ({item.sample.kind}) · {figures}")
