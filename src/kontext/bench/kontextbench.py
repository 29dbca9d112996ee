"""Suite ``kontextbench``: run a published, reference-free set and have a vision model judge the results.

Results are written where the set's own scripts expect them, so that those can be used as well. Without a
judge the pictures are generated but not scored. With ``against`` (a folder of another system's results in
the same layout) the judge also compares in pairs.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from kontext import pictures
from kontext.bench import report
from kontext.bench.judge import Judge, NoScore
from kontext.bench.layouts import PublishedTask, load
from kontext.bench.rows import ask
from kontext.bench.run import Figure, Progress, Record, Run, RunJson, silent
from kontext.engine.requests import EditRequest
from kontext.errors import KontextError

if TYPE_CHECKING:
    from kontext.engine import Editor

FIGURES = {
    "sc": Figure("SC", share=False, digits=2),
    "pq": Figure("PQ", share=False, digits=2),
    "done": Figure("instruction", share=False, digits=2),
    "fit": Figure("fit", share=False, digits=2),
    "clean": Figure("clean", share=False, digits=2),
    "overall": Figure("overall", share=False, digits=2),
    "wins": Figure("wins"),
    "seconds": Figure("s/edit", share=False, digits=2, better=-1),
}


def measure(
    editor: Editor,
    run: Run,
    folder: Path,
    *,
    judge: Judge | None = None,
    against: Path | None = None,
    n: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    workers: int = 4,
    progress: Progress = silent,
) -> tuple[str, dict[str, Figure]]:
    """Every task's picture and, with a judge, its scores, as records of the row ``model``.

    Returns the layout's name and the figures. A task that cannot be edited or judged is a record with a note.
    Raises NotFound and BadRequest when the set itself cannot be read.
    """
    layout, tasks = load(folder)
    pending = [t for t in tasks[:n] if not run.done(_name(t), "model")]
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[PublishedTask, Future]] = deque()

        def finish() -> None:
            task, future = waiting.popleft()
            figures, note = future.result()
            file, name = f"results/{task.result}", _name(task)
            run.add(Record(name, "model", task.category, task.language, name, figures, note, file))

        for task in progress(pending, len(pending), layout):
            result_path, seconds, note = _make(editor, run, task, steps, seed)
            waiting.append(
                (task, pool.submit(_judge, layout, task, result_path, seconds, note, judge, against))
            )
            if len(waiting) > workers:
                finish()
        while waiting:
            finish()
    return layout, FIGURES


def _name(task: PublishedTask) -> str:
    return f"{task.language}/{task.category}/{task.key}"


def _make(
    editor: Editor, run: Run, task: PublishedTask, steps: int | None, seed: int
) -> tuple[Path | None, float, str]:
    """The result's file, the seconds it took, and a note if it is missing; existing files are reused."""
    path = run.folder / "results" / task.result
    if path.is_file():
        return path, float("nan"), ""
    try:
        request = EditRequest(prompt=task.prompt, picture=task.picture, seed=seed, steps=steps)
        (result,) = ask(editor, [request])
    except KontextError as error:
        return None, float("nan"), f"not edited: {error}"
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.save(result.picture, path)
    return path, result.seconds["total"], ""


def _judge(
    layout: str,
    task: PublishedTask,
    result_path: Path | None,
    seconds: float,
    note: str,
    judge: Judge | None,
    against: Path | None,
) -> tuple[dict[str, float], str]:
    if result_path is None:
        return {}, note
    figures, notes = {"seconds": seconds}, []
    if judge is None:
        return figures, ""
    source, result = pictures.load(task.picture).opaque_rgb, Image.open(result_path).convert("RGB")
    try:
        ask_for = judge.imgedit if layout == "imgedit" else judge.viescore
        figures |= ask_for(source, result, task.prompt)
    except NoScore as error:
        notes.append(f"no score: {error}")
    if against is not None:
        other = against / task.result
        try:
            if not other.is_file():
                raise NoScore(f"{other} is not there")
            figures["wins"] = judge.better(source, result, Image.open(other).convert("RGB"), task.prompt)
        except NoScore as error:
            notes.append(f"no comparison: {error}")
    return figures, "; ".join(notes)


def sections(run: Run, folder: Path, result: RunJson, cards: int = 12) -> list[str]:
    """Tables by category and a contact sheet of best, median and worst."""
    _, tasks = load(folder)
    by_name = {_name(t): t for t in tasks}
    out = [report.table("By category", result["rows"].get("model", {}), FIGURES, first="language / category")]
    with_picture = [r for r in run.records if (run.folder / r.picture).is_file()]
    scored = sorted((r for r in with_picture if "overall" in r.figures), key=lambda r: -r.figures["overall"])
    picked = [("Pictures", with_picture[:cards])]
    if scored:
        middle = len(scored) // 2
        picked = [
            ("Best", scored[:4]),
            ("Median", scored[max(0, middle - 2) : middle + 2]),
            ("Worst", scored[-4:]),
        ]
    for title, records in picked:
        shown = [
            report.Card(
                {
                    "picture": pictures.load(by_name[r.item].picture).opaque_rgb,
                    "result": Image.open(run.folder / r.picture),
                },
                by_name[r.item].prompt,
                " · ".join(
                    f"{FIGURES[k].label} {FIGURES[k].show(v)}" for k, v in r.figures.items() if k in FIGURES
                ),
            )
            for r in records
        ]
        out.append(report.sheet(title, shown))
    return out
