"""The arguments of `kontext bench` as values: steps, rows, suites and the editor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kontext.commands.bench_options import SESSION_ROWS
from kontext.commands.options import download_model
from kontext.errors import BadRequest

if TYPE_CHECKING:
    from kontext.bench.run import Figure
    from kontext.engine import Editor


def choose_names(text: str, known: Sequence[str], what: str) -> list[str]:
    """The names in a comma-separated list; "all": all known ones. Raises BadRequest for another name."""
    names = list(known) if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise BadRequest(f"{what} must be all or one of {', '.join(known)}, got {name!r}")
    return names


def step_counts(text: str | None) -> list[int]:
    """The numbers in a comma-separated list. Raises BadRequest for anything but numbers of at least 1."""
    try:
        counts = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise BadRequest(f"steps '{text}' are not understood; give whole numbers such as 4 or 1,2,4,8")
    return counts


def session_rows(rows: str, steps: str | None, editor: Editor | None) -> list[str]:
    """The rows of a suite of sessions, the model's at each number of steps. Raises BadRequest."""
    names = choose_names(rows, SESSION_ROWS.split(","), "row")
    counts = step_counts(steps) or [own_steps(editor)]
    expanded = {row: [f"{row}@{n}" for n in counts] if row.startswith("model") else [row] for row in names}
    return [name for row in names for name in expanded[row]]


def own_steps(editor: Editor | None) -> int:
    """Steps of the model's schedule; 4 without a model."""
    return editor.model.preset.sampling.steps if editor is not None else 4


def editor_for(
    rows: Iterable[str], model: str, device: str | None, fp8: bool = False, compile: bool = False
) -> Editor | None:
    """The editor, or None where no row needs a model."""
    if not any(row.startswith(("codec", "model")) for row in rows):
        return None
    return load_editor(model, device, fp8, compile)


def load_editor(model: str, device: str | None, fp8: bool = False, compile: bool = False) -> Editor:
    """The editor of a model, which is downloaded if it is missing."""
    from kontext.engine import Editor

    download_model(model)
    return Editor.load(model, device=device, fp8=fp8, compile=compile)


def figures_of(suite: str) -> dict[str, Figure]:
    """The figures of a suite by name. Raises BadRequest for an unknown suite."""
    from importlib import import_module

    known = (
        *("quality", "region", "drift", "identity", "text", "style"),
        *("speed", "approximations", "kontextbench"),
    )
    if suite not in known:
        raise BadRequest(f"suite must be one of {', '.join(known)}, got {suite!r}")
    return import_module(f"kontext.bench.{suite}").FIGURES
