"""One run of a suite: a folder that stores every score at once, so that a stopped run can be resumed.

``settings.json`` defines what is measured, ``records.jsonl`` has one line per item and row, ``pictures/`` the
results. ``result`` joins them into the one JSON that is published.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NotRequired, TypedDict, TypeVar, Unpack

import numpy as np
from PIL import Image

from kontext.bench.statistics import EstimateJson, estimate
from kontext.errors import BadRequest

T = TypeVar("T")
Progress = Callable[[Iterable[T], int, str], Iterator[T]]
"""Wraps an iterable of known length with a label; the command line shows a bar, tests show nothing."""


def silent(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """No progress bar."""
    yield from items


@dataclass(frozen=True)
class Figure:
    """Label and format of a figure. ``share`` values are stored as 0..1 and shown in percent."""

    label: str
    share: bool = True
    digits: int = 1
    better: int = 1  # 1: more is better, -1: less is better, 0: neither

    def show(self, value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "–"
        return f"{100 * value if self.share else value:.{self.digits}f}"


@dataclass(frozen=True)
class Record:
    """The figures of one row (a model, a baseline) on one item; ``note`` explains missing figures."""

    item: str
    row: str
    category: str
    split: str
    scene: str
    figures: dict[str, float]
    note: str = ""
    picture: str = ""
    """The result's file under the run's folder."""
    sum: str = ""
    """SHA-256 of everything that decides the score."""


CellsJson = dict[str, EstimateJson]  # by figure
RowsJson = dict[str, dict[str, CellsJson]]  # by row, then by group (see `rows`)


class RecordJson(TypedDict):
    """A `Record` in JSON: None for figures that are not finite."""

    item: str
    row: str
    category: str
    split: str
    scene: str
    figures: dict[str, float | None]
    note: str
    picture: str
    sum: str


class UnscoredJson(TypedDict):
    """An item without figures, and why."""

    item: str
    row: str
    why: str


PairsJson = TypedDict(
    "PairsJson",
    {
        "largest difference": float,
        "refresh, root mean square difference": float,
        "threads": int,
        "steps": int,
        "ratio": dict[str, list[float]],
    },
)
"""Measurements against diffusers; ratio has the quartiles of each way to run the model."""

SpeedJson = TypedDict(
    "SpeedJson",
    {
        "latency": NotRequired[dict[str, dict[str, float]]],
        "memory MiB": NotRequired[float],
        "cold start seconds": NotRequired[float],
        "cold start seconds, diffusers": NotRequired[float],
        "cold start, diffusers / ours": NotRequired[float],
        "diffusers": NotRequired[PairsJson],
    },
)
"""What the suite "speed" adds to a run."""


class RunJson(SpeedJson):
    """A published run."""

    suite: str
    model: str
    n: int
    rows: RowsJson
    settings: Mapping[str, object]
    manifest: str
    unscored: list[UnscoredJson]
    items: list[RecordJson]


class Run:
    """Scores and pictures of a run in ``folder``.

    Raises BadRequest when the folder holds a run and ``resume`` is false, or a run with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object], resume: bool = False):
        self.folder, self.settings = Path(folder), json.loads(json.dumps(settings))
        self._known: dict[tuple[str, str], Record] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "settings.json"
        if path.is_file() and not resume:
            raise BadRequest(f"{folder} holds a run; add --resume to resume it, or choose another folder")
        if path.is_file():
            before = json.loads(path.read_text())
            other = [k for k in {*before, *self.settings} if before.get(k) != self.settings.get(k)]
            if other:
                raise BadRequest(f"{folder} holds a run with other settings ({', '.join(sorted(other))})")
            self._read()
        path.write_text(json.dumps(self.settings, indent=1, sort_keys=True))
        self._lines = open(self.folder / "records.jsonl", "a", encoding="utf-8")

    def _read(self) -> None:
        path = self.folder / "records.jsonl"
        if not path.is_file():
            return
        complete = b""
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # the run was stopped while this line was written
            complete += line
            figures = json.loads(line)
            figures["figures"] = {k: math.nan if v is None else v for k, v in figures["figures"].items()}
            self._keep(Record(**figures))
        path.write_bytes(complete)

    @property
    def records(self) -> list[Record]:
        return list(self._known.values())

    def _keep(self, record: Record) -> None:
        self._known[record.item, record.row] = record

    def done(self, item: str, row: str) -> bool:
        """Whether a record with figures exists; failed items are tried again."""
        known = self._known.get((item, row))
        return known is not None and not known.note

    def record(self, item: str, row: str) -> Record:
        return self._known[item, row]

    def update(self, record: Record, **figures: float) -> None:
        """Add figures to a record; the last line on disk wins."""
        self.add(replace(record, figures=record.figures | figures))

    def add(self, record: Record) -> None:
        """Store a record in memory and on disk."""
        record = replace(record, figures={k: round(float(v), 6) for k, v in record.figures.items()})
        self._keep(record)
        self._lines.write(json.dumps(_record_json(record), ensure_ascii=False) + "\n")
        self._lines.flush()

    def save_picture(self, name: str, picture: np.ndarray | Image.Image) -> str:
        """A PNG under ``pictures/``; returns its path relative to the folder."""
        path = self.folder / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(path, compress_level=1)
        return str(path.relative_to(self.folder))

    @property
    def manifest(self) -> str:
        """SHA-256 over the items' checksums: identifies the benchmark, not the model."""
        lines = sorted({f"{r.item} {r.sum}\n" for r in self.records})
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def picture(self, record: Record) -> Image.Image:
        """The picture that a record names."""
        return Image.open(self.folder / record.picture).convert("RGB")

    def close(self) -> None:
        self._lines.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def result(
        self, suite: str, model: str, figures: dict[str, Figure], **more: Unpack[SpeedJson]
    ) -> RunJson:
        """The published JSON: rows with intervals, settings, items without a score, every item's figures."""
        return {
            "suite": suite,
            "model": model,
            "n": len({r.item for r in self.records}),
            "rows": rows(self.records, figures),
            "settings": self.settings,
            "manifest": self.manifest,
            "unscored": [{"item": r.item, "row": r.row, "why": r.note} for r in self.records if r.note],
            **more,
            "items": [_record_json(r) for r in self.records],
        }


def _record_json(record: Record) -> RecordJson:
    figures = {k: v if math.isfinite(v) else None for k, v in record.figures.items()}
    return {
        "item": record.item,
        "row": record.row,
        "category": record.category,
        "split": record.split,
        "scene": record.scene,
        "figures": figures,
        "note": record.note,
        "picture": record.picture,
        "sum": record.sum,
    }


def rows(records: Iterable[Record], figures: dict[str, Figure]) -> RowsJson:
    """row -> group -> figure -> {mean, low, high, n}. Groups: split (mean of categories), split/category."""
    grouped: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        for group in (record.split, f"{record.split}/{record.category}"):
            grouped.setdefault(record.row, {}).setdefault(group, []).append(record)
    return {
        row: {group: _figures(members, figures) for group, members in groups.items()}
        for row, groups in grouped.items()
    }


def _figures(records: list[Record], figures: dict[str, Figure]) -> CellsJson:
    out = {}
    for name, figure in figures.items():
        values = [r.figures.get(name, math.nan) for r in records]
        scenes, categories = [r.scene for r in records], [r.category for r in records]
        result = estimate(values, scenes, categories, share=figure.share)
        if result.n:
            out[name] = result.as_json()
    return out
