"""Folder layouts of published editing benchmarks: KontextBench, GEdit-Bench, ImgEdit-Bench.

- KontextBench: ``test/metadata.jsonl`` and pictures; fields ``file_name, instruction, category, key``.
- GEdit-Bench: parquet files (``key, task_type, instruction, instruction_language, input_image``), or the
  same fields in a ``metadata.jsonl`` next to pictures; results go to ``fullset/<task>/<language>/<key>.png``.
- ImgEdit-Bench: one JSON file ``{key: {id, prompt, edit_type}}``, ``id`` the picture's path below.

All three are reference-free: results are judged (``kontext.bench.judge``), never compared with a target.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kontext.errors import BadRequest, NotFound


@dataclass(frozen=True)
class PublishedTask:
    """One picture and one instruction of a published set."""

    key: str
    picture: Path | bytes
    prompt: str
    category: str
    language: str
    result: str
    """Path of the result under the folder of results, as the set's own scripts expect it."""


def load(folder: Path | str) -> tuple[str, list[PublishedTask]]:
    """The name of the layout found in ``folder``, and its tasks in file order.

    Raises NotFound (unknown layout, missing picture) and BadRequest (missing field).
    """
    folder = Path(folder)
    for name, reader in (("kontextbench", _kontextbench), ("gedit", _gedit), ("imgedit", _imgedit)):
        tasks = list(reader(folder))
        if tasks:
            for task in tasks:
                if isinstance(task.picture, Path) and not task.picture.is_file():
                    raise NotFound(f"{task.picture}: named by task '{task.key}' but not there")
            return name, tasks
    raise NotFound(
        f"{folder}: no benchmark found; expected test/metadata.jsonl (KontextBench), *.parquet or "
        "metadata.jsonl (GEdit-Bench), or a JSON file of {key: {id, prompt, edit_type}} (ImgEdit-Bench)"
    )


def _lines(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in (folder / "test" / "metadata.jsonl", folder / "metadata.jsonl"):
        if path.is_file():
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                if line.strip():
                    try:
                        yield path.parent, json.loads(line)
                    except json.JSONDecodeError as error:
                        raise BadRequest(f"{path} line {number}: not JSON ({error.msg})") from error
            return


def _field(row: dict[str, Any], name: str, folder: Path) -> str:
    if name not in row:
        raise BadRequest(f"{folder}: a task has no '{name}'; it has {', '.join(sorted(row))}")
    return str(row[name])


def _kontextbench(folder: Path) -> Iterator[PublishedTask]:
    for where, row in _lines(folder):
        if "task_type" in row:
            return
        key = str(row.get("key", _field(row, "file_name", folder)))
        picture = where / _field(row, "file_name", folder)
        prompt, category = _field(row, "instruction", folder), str(row.get("category", "all"))
        yield PublishedTask(key, picture, prompt, category, "en", f"{key}.png")


def _gedit(folder: Path) -> Iterator[PublishedTask]:
    rows = [(where, row) for where, row in _lines(folder) if "task_type" in row]
    for where, row in rows or _parquet(folder):
        key, task = _field(row, "key", folder), _field(row, "task_type", folder)
        language = str(row.get("instruction_language", "en"))
        image = row.get("input_image_raw") or row.get("input_image")
        picture: Path | bytes
        if isinstance(image, dict) and image.get("bytes"):
            picture = image["bytes"]
        else:
            picture = where / _field(row, "file_name", folder)
        prompt = _field(row, "instruction", folder)
        yield PublishedTask(key, picture, prompt, task, language, f"fullset/{task}/{language}/{key}.png")


def _parquet(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        return
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise BadRequest(
            f"{files[0]}: reading parquet needs pyarrow (pip install pyarrow), "
            "or export the set to pictures with a metadata.jsonl"
        ) from error
    for path in files:
        for batch in parquet.ParquetFile(path).iter_batches(64):
            yield from ((path.parent, row) for row in batch.to_pylist())


def _imgedit(folder: Path) -> Iterator[PublishedTask]:
    for path in sorted(folder.glob("*.json")):
        try:
            table = json.loads(path.read_text("utf-8"))
        except json.JSONDecodeError as error:
            raise BadRequest(f"{path}: not JSON ({error.msg})") from error
        if not isinstance(table, dict):
            continue
        for key, row in table.items():
            if isinstance(row, dict) and {"id", "prompt", "edit_type"} <= set(row):
                yield PublishedTask(
                    key, folder / row["id"], row["prompt"], row["edit_type"], "en", f"{key}.png"
                )
