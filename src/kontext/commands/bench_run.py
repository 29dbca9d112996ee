"""The folder of a benchmark run, and what a finished one prints and writes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kontext.commands.tables import show_table
from kontext.errors import BadRequest
from kontext.pictures import write
from kontext.terminal import say

if TYPE_CHECKING:
    from kontext.bench.run import Figure, Run, RunJson, SpeedJson
    from kontext.engine import Editor


@contextmanager
def open_run(
    suite: str,
    editor: Editor | None,
    model: str,
    settings: Mapping[str, object],
    report: Path | None,
    resume: bool,
) -> Iterator[Run]:
    """The run's folder: that of the report, else one that vanishes."""
    from kontext.bench.items import VERSION
    from kontext.bench.run import Run
    from kontext.version import __version__

    if resume and report is None:
        raise BadRequest("--resume needs --report DIR, where the run lies")
    info = {"suite": suite, "model": model, "items version": VERSION, "kontext": __version__}
    if editor is not None:
        info["fingerprint"] = editor.model.fingerprint
    if report is not None:
        with Run(report / suite, {**info, **settings}, resume) as run:
            yield run
        return
    with tempfile.TemporaryDirectory() as folder, Run(Path(folder), {**info, **settings}) as run:
        yield run


def publish(
    run: Run,
    model: str,
    figures: dict[str, Figure],
    headline: dict[str, Figure],
    json_file: Path | None,
    report: Path | None,
    sections: Callable[[RunJson], list[str]],
    more: SpeedJson | None = None,
) -> None:
    """The table on the terminal, the JSON, the page."""
    from kontext.bench.report import page

    suite = run.settings["suite"]
    result = run.result(suite, model, figures, **(more or {}))
    show_table(result, headline)
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
    if json_file:
        write_text(json_file, text)
    if report:
        write_text(report / f"{suite}.json", text)
        write_text(report / f"{suite}.html", page(result, sections(result)))
        say(f"{report / suite}.html")
    if result["unscored"]:
        say(f"{len(result['unscored'])} without a score, listed under 'unscored'", err=True)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, text.encode())
