"""Suite ``approximations``: what options that trade exactness for speed cost, compared with fewer steps.

Every picture is edited exactly, with each approximation, and exactly with as many steps as take as long as
that approximation. Products in 8-bit floats are an approximation of the loaded model, so their edits are
made before, by another editor (`edits`). All of them solve the same flow from the same noise, so the distance
to the exact result is the error of the approximation. An approximation is worth having if its distance is
below that of the fewer steps. The contexts are cached by an earlier edit. Only regions need the lock; they
are compared with exact edits that have it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kontext.bench import report
from kontext.bench.items import Item, draw_item
from kontext.bench.metrics import Picture, color_distance, lab
from kontext.bench.rows import ask
from kontext.bench.run import Figure, Progress, Record, Run, RunJson, silent
from kontext.engine.requests import EditRequest, Result

if TYPE_CHECKING:
    from kontext.engine import Editor

CATEGORIES = ("local", "global")
STEPS = 28
FP8 = "fp8"
"""The row of products in 8-bit floats."""
APPROXIMATIONS: Mapping[str, Mapping[str, Any]] = {
    "step cache 0.01": {"step_cache": 0.01},
    "step cache 0.02": {"step_cache": 0.02},
    "step cache 0.05": {"step_cache": 0.05},
    "context refresh 2": {"context_refresh": 2},
    "context refresh 4": {"context_refresh": 4},
    "context refresh 4, step cache 0.02": {"context_refresh": 4, "step_cache": 0.02},
    "regions": {"regions": True, "lock": True},
}
FIGURES = {
    "total": Figure("ms", share=False, better=-1),
    "evaluations": Figure("evaluations", share=False, better=-1),
    "rms": Figure("rms, levels", share=False, digits=2, better=-1),
    "dE": Figure("mean dE", share=False, digits=2, better=-1),
}


Made = tuple[Picture, float, Result]
"""Picture, milliseconds and result of an edit."""


def edits(
    editor: Editor, *, n: int, size: int, steps: int = STEPS, progress: Progress = silent
) -> list[Made]:
    """The edits of ``measure`` without options, by an editor that is an approximation itself."""
    items = _items(n, size)
    _edit(editor, items[0], steps, {})  # warms up
    return [_edit(editor, item, steps, {}) for item in progress(items, n, FP8)]


def measure(
    editor: Editor,
    run: Run,
    *,
    n: int,
    size: int,
    steps: int = STEPS,
    fp8: Sequence[Made] | None = None,
    progress: Progress = silent,
) -> None:
    """Edit ``n`` pictures in every way, as records with times and distances to the exact result.

    fp8: their edits by the same model with products in 8-bit floats.
    """
    full = editor.model.transformer.config.context_attention == "full"
    for_full = ("context_refresh", "regions")
    used = {
        name: options
        for name, options in APPROXIMATIONS.items()
        if full or not any(option in options for option in for_full)
    }
    items = _items(n, size)
    _edit(editor, items[0], steps, {})  # warms up
    for options in used.values() if editor.model.compiled else ():
        _edit(editor, items[0], steps, options)  # compiles what it adds
    for i, item in enumerate(progress(items, n, "approximations")):
        exact, exact_ms, result = _edit(editor, item, steps, {})
        record = _recorder(run, item)
        record("exact", exact, exact, exact_ms, result)
        if fp8 is not None:
            picture, ms, result = fp8[i]
            record(FP8, exact, picture, ms, result)
            fewer = max(1, round(steps * ms / exact_ms))
            record(f"fewer steps in the time of {FP8}", exact, *_edit(editor, item, fewer, {}))
        for name, options in used.items():
            lock = {"lock": options.get("lock", False)}
            reference = _edit(editor, item, steps, lock)[0] if lock["lock"] else exact
            picture, ms, result = _edit(editor, item, steps, options)
            record(name, reference, picture, ms, result)
            fewer = max(1, round(steps * ms / exact_ms))
            record(f"fewer steps in the time of {name}", reference, *_edit(editor, item, fewer, lock))


def _items(n: int, size: int) -> list[Item]:
    return [draw_item("test", CATEGORIES[i % 2], i // 2, size) for i in range(n)]


def _edit(editor: Editor, item: Item, steps: int, options: Mapping[str, Any]) -> Made:
    """Picture, milliseconds and result of an edit whose contexts and prompt are cached."""
    request = EditRequest(
        prompt=item.prompt,
        picture=item.input_picture,
        seed=item.seed,
        steps=steps,
        **{"lock": False, "regions": False, **options},
    )
    editor.prefill(item.input_picture)
    started = time.perf_counter()
    (result,) = ask(editor, [request])
    ms = 1000 * (time.perf_counter() - started)
    return np.asarray(result.picture.convert("RGB")), ms, result


def _recorder(run: Run, item: Item) -> Callable[[str, Picture, Picture, float, Result], None]:
    """Adds records of one item."""

    def record(row: str, exact: Picture, picture: Picture, ms: float, result: Result) -> None:
        difference = picture.astype(np.float64) - exact
        figures = {
            "total": ms,
            "evaluations": float(result.evaluations),
            "rms": float(np.sqrt(np.square(difference).mean())),
            "dE": float(color_distance(lab(picture), lab(exact)).mean()),
        }
        run.add(Record(item.key, row, "approximations", "test", item.key, figures))

    return record


def sections(result: RunJson) -> list[str]:
    """One table of all rows."""
    rows = {row: groups["test"] for row, groups in result["rows"].items()}
    return [report.table("Distance to the exact result", rows, FIGURES)]
