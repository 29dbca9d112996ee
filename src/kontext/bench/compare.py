"""Paired comparison of two runs of one suite.

Only items of both runs are compared, in pairs, so that the difficulty of an item cancels; the interval comes
from a bootstrap over scenes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from kontext.bench.run import Figure, RecordJson, RunJson
from kontext.bench.statistics import Estimate, paired
from kontext.errors import BadRequest, NotFound

# Parts of row and figure names in files of earlier versions, and what they are now.
_RENAMED = {
    "diffusers beside ": "diffusers for ",
    "a whole edit beside 28 steps": "a whole edit / 28 steps of diffusers",
    "prefix seen": "prefix cached",
    "colours": "colors",
}


def load(path: Path) -> RunJson:
    """The JSON of a run, including those of earlier versions. Raises NotFound and BadRequest."""
    if not path.is_file():
        raise NotFound(f"{path}: no such file")
    try:
        result = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise BadRequest(f"{path}: not JSON ({error.msg})") from error
    if not isinstance(result, dict) or not {"suite", "items", "settings"} <= set(result):
        raise BadRequest(f"{path}: not a run of kontext bench; give the file written by --json")
    return cast("RunJson", {**result, "items": [_renamed(record) for record in result["items"]]})


def _renamed(record: RecordJson) -> RecordJson:
    figures = {_current_name(name): value for name, value in record["figures"].items()}
    return {**record, "row": _current_name(record["row"]), "figures": figures}


def _current_name(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def compare(
    first: RunJson, second: RunJson, figures: Mapping[str, Figure]
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """row -> split -> figure -> second minus first, over items, rows and figures that both have.

    Raises BadRequest when the runs are of different suites, or an item of one name differs between them.
    """
    if first["suite"] != second["suite"]:
        raise BadRequest(f"runs of different suites: {first['suite']} and {second['suite']}")
    sums = {record["item"]: record["sum"] for record in first["items"]}
    for record in second["items"]:
        if sums.get(record["item"], record["sum"]) != record["sum"]:
            raise BadRequest(f"item {record['item']} is not the same in both runs: other size or version")
    out: dict[str, dict[str, dict[str, Estimate]]] = {}
    values = [_values(run) for run in (first, second)]
    for row, split in values[0].keys() & values[1].keys():
        before, after = values[0][row, split], values[1][row, split]
        shared = {f: d for f in figures if (d := _difference(before, after, f)).n}
        if shared:
            out.setdefault(row, {})[split] = shared
    return {row: dict(sorted(splits.items())) for row, splits in sorted(out.items())}


def _values(run: RunJson) -> dict[tuple[str, str], dict[str, RecordJson]]:
    """(row, split) -> item -> its record."""
    out: dict[tuple[str, str], dict[str, RecordJson]] = {}
    for record in run["items"]:
        out.setdefault((record["row"], record["split"]), {})[record["item"]] = record
    return out


def _difference(before: Mapping[str, RecordJson], after: Mapping[str, RecordJson], figure: str) -> Estimate:
    def of(records: Mapping[str, RecordJson]) -> dict[str, float]:
        figures = {item: record["figures"].get(figure) for item, record in records.items()}
        return {item: float(value) for item, value in figures.items() if value is not None}

    scenes = {item: record["scene"] for item, record in before.items()}
    categories = {item: record["category"] for item, record in before.items()}
    return paired(of(before), of(after), scenes, categories)


def verdict(difference: Estimate, figure: Figure) -> str:
    """Is it "better", "worse" or "no proven difference", for a figure of which more (or less) is better."""
    if figure.better == 0 or difference.low <= 0 <= difference.high:
        return "no proven difference"
    return "better" if (difference.mean > 0) == (figure.better > 0) else "worse"
