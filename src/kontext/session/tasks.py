"""What a batch has to do: a task for each picture of a folder, or each row of a table (.csv or .jsonl)."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from kontext.engine.pictures import WRITABLE
from kontext.errors import BadRequest, NotFound

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".ico", ".tga")
NUMBERS: dict[str, Callable[[str], Any]] = {"seed": int, "steps": int, "guidance": float}
FILES = ("picture", "mask", "markup")
COLUMNS = ("picture", "prompt", "output", *NUMBERS, "size", "box", "mask", "markup", "references")


@dataclass(frozen=True)
class Task:
    """One edit: `output` is a name inside the output folder; `settings` are those of `Editor.edit`, pictures
    by path.
    """

    picture: str
    prompt: str
    output: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def digest(self, model: str) -> str:
        """Names the task: another digest means another picture."""
        return hashlib.sha256(json.dumps([asdict(self), model], sort_keys=True).encode()).hexdigest()


def from_folder(
    folder: Path, prompt: str, settings: Mapping[str, Any], ending: str, output: Path
) -> list[Task]:
    """A task for each picture file under a folder, except those in `output` below it. Raises BadRequest."""
    base, results = folder.resolve(), output.resolve()
    if base == results:
        raise BadRequest(f"{output}: the results cannot go among the pictures; give another output folder")
    below = results.is_relative_to(base)
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (below and path.resolve().is_relative_to(results))
        and path.is_file()
    ]
    if not paths:
        raise BadRequest(f"{folder}: no pictures in it ({', '.join(ENDINGS)})")
    if not prompt:
        raise BadRequest("a folder needs a PROMPT: what to change in each of its pictures")
    names = _distinct([path.relative_to(folder) for path in paths], ending)
    return [Task(str(path.resolve()), prompt, name, dict(settings)) for path, name in zip(paths, names)]


def from_table(path: Path, prompt: str, settings: Mapping[str, Any], ending: str) -> list[Task]:
    """A task for each row of a .csv or .jsonl file with columns of COLUMNS; paths are relative to the table.

    Columns win over `prompt` and `settings`; several references are separated by `|` in a CSV. Raises
    BadRequest.
    """
    found: list[tuple[int, dict[str, Any], str | None]] = []
    for line, row in _rows(path):
        unknown = sorted(set(row) - set(COLUMNS), key=str)
        if unknown:
            raise BadRequest(f"{path}: there is no column {unknown[0]!r}; there are {', '.join(COLUMNS)}")
        row = {key: value for key, value in row.items() if value not in (None, "", [])}
        if "picture" not in row or not (row.get("prompt") or prompt):
            raise BadRequest(
                f"{path}, line {line}: a row needs a picture, and a prompt where none is given for all"
            )
        try:
            found.append((line, _typed(row, path.parent), row.get("output")))
        except (ValueError, TypeError) as error:
            raise BadRequest(f"{path}, line {line}: {error}") from None
    if not found:
        raise BadRequest(f"{path}: no rows in it")
    made = iter(
        _distinct([PurePosixPath(Path(row["picture"]).name) for _, row, out in found if not out], ending)
    )
    tasks = []
    for line, row, output in found:
        output = str(output) if output else next(made)
        name = PurePosixPath(output.replace("\\", "/"))
        inside = not name.is_absolute() and ".." not in name.parts and ":" not in output
        if not inside or name.suffix.lower() not in WRITABLE:
            wanted = "a .png, .jpg or .webp name inside the output folder"
            raise BadRequest(f"{path}, line {line}: output {output!r} is not {wanted}")
        own = {key: value for key, value in row.items() if key not in ("picture", "prompt", "output")}
        tasks.append(Task(row["picture"], row.get("prompt") or prompt, str(name), {**settings, **own}))
    _check_distinct(path, [task.output for task in tasks])
    return tasks


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                reader = csv.DictReader(file, restkey="(more cells than the first line)")
                yield from ((reader.line_num, row) for row in reader)
                return
            for line, text in enumerate(file, start=1):
                if text.strip():
                    row = json.loads(text)
                    if type(row) is not dict:
                        raise BadRequest(f"{path}, line {line}: not an object")
                    yield line, row
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such folder or table") from None
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise BadRequest(f"{path}: cannot be read as a table, .csv or .jsonl ({error})") from None


def _typed(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Cells as the editor takes them. Raises ValueError, TypeError."""
    typed = dict(row)
    for key, kind in NUMBERS.items():
        if key in row:
            try:
                typed[key] = kind(row[key])
            except (ValueError, TypeError):
                raise ValueError(f"{key} {row[key]!r} is no number") from None
    for key in FILES:
        if key in row:
            typed[key] = str((folder / str(row[key])).resolve())
    if "references" in row:
        names = (
            row["references"] if isinstance(row["references"], list) else str(row["references"]).split("|")
        )
        typed["references"] = [str((folder / str(name).strip()).resolve()) for name in names]
    if "box" in row:
        box = row["box"] if isinstance(row["box"], list) else str(row["box"]).replace(",", " ").split()
        if len(box) != 4:
            raise ValueError(f"box {row['box']!r} is not X,Y,W,H")
        typed["box"] = [int(one) for one in box]
    for key in ("prompt", "size", "output"):
        if key in row and not isinstance(row[key], str):
            raise ValueError(f"{key} {row[key]!r} is no text")
    return typed


def _distinct(paths: Sequence[Any], ending: str) -> list[str]:
    """Output names: the picture's own with the new ending; a.jpg and a.png become a.jpg.png and a.png.png."""
    plain = [path.with_suffix(ending).as_posix() for path in paths]
    folded = [name.casefold() for name in plain]
    names = [
        name if folded.count(name.casefold()) == 1 else path.as_posix() + ending
        for name, path in zip(plain, paths)
    ]
    seen: dict[str, int] = {}
    for at, name in enumerate(names):  # the same picture in several rows
        count = seen[name.casefold()] = seen.get(name.casefold(), 0) + 1
        if count > 1:
            names[at] = f"{name.removesuffix(ending)}-{count}{ending}"
    return names


def _check_distinct(path: Path, outputs: Sequence[str]) -> None:
    seen: set[str] = set()
    for output in outputs:
        if output.casefold() in seen:
            raise BadRequest(f"{path}: two rows have the output {output!r}; give each its own")
        seen.add(output.casefold())
