"""Benchmark results on a terminal: a table per group of items, and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from kontext.terminal import is_interactive

if TYPE_CHECKING:
    from kontext.bench.run import Figure, RunJson

T = TypeVar("T")


def show_table(result: RunJson, figures: dict[str, Figure]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    by_category = result["suite"] in ("drift", "identity")  # their categories are not comparable
    groups = dict.fromkeys(g for row in result["rows"].values() for g in row)
    for group in [g for g in groups if ("/" in g) == by_category]:
        rows = {row: cells[group] for row, cells in result["rows"].items() if group in cells}
        used = [f for f in figures if any(f in cells for cells in rows.values())]
        table = Table(title=f"{result['suite']}: {group}", box=box.SIMPLE, title_justify="left")
        table.add_column("row", no_wrap=True)
        table.add_column("n", justify="right")
        for f in used:
            table.add_column(figures[f].label + (" %" if figures[f].share else ""), justify="right")
        for row, cells in rows.items():
            shown = [figures[f].show(cells[f]["mean"]) if f in cells else "–" for f in used]
            table.add_row(row, str(max((c["n"] for c in cells.values()), default=0)), *shown)
        Console(width=None if is_interactive(sys.stdout) else 160).print(table)


def track_items(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """A progress bar on stderr if it is a terminal."""
    if not is_interactive(sys.stderr):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, label, total, console=Console(stderr=True), transient=True)
