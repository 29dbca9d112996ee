"""The tasks of a batch: one for each picture of a folder or each row of a table."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath

from kontext.batch import tables
from kontext.engine.requests import check_prompt
from kontext.errors import BadRequest, NotFound
from kontext.loras import LoraAccess
from kontext.loras import parse as parse_loras
from kontext.pictures import MAX_NAME_BYTES, WRITABLE, looks_like_picture

OWN_NAMES = ".kontext-"
"""How files and folders of the batch itself begin."""


@dataclass(frozen=True)
class Task:
    """One edit.

    `output` is a path inside the output folder; `settings` are those of `Editor.edit`, with pictures as
    paths.
    """

    picture: str
    prompt: str
    output: str
    settings: Mapping[str, object] = field(default_factory=dict)
    named: bool = False
    """Whether the output name was given, not derived from the picture."""

    def digest(self, model: str) -> str:
        """Hash of the task: another digest means another result."""
        return self._hash(model, {"output": self.output})

    def work(self, model: str) -> str:
        """Hash of the work, independent of the output name."""
        return self._hash(model, {})

    def contents(self) -> dict[str, str]:
        """SHA-256 of each input file that is there, by its path: picture, mask, markup, references, LoRAs.

        Not part of the digests: those are in journals of earlier versions, and a file may be deleted after
        its edit.
        """
        named: list[object] = [self.picture, self.settings.get("mask"), self.settings.get("markup")]
        references, loras = self.settings.get("references"), self.settings.get("loras")
        named += references if isinstance(references, list | tuple) else []
        paths = [Path(name) for name in named if isinstance(name, str) and name]
        for lora in parse_loras(loras):
            with suppress(NotFound):
                paths.append(LoraAccess.of_account().find(lora))
        files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        found = {str(file): _content(file) for file in files}
        return {name: content for name, content in found.items() if content is not None}

    def _hash(self, model: str, more: Mapping[str, str]) -> str:
        parts = {"picture": self.picture, "prompt": self.prompt, "settings": dict(self.settings), **more}
        return hashlib.sha256(json.dumps([parts, model], sort_keys=True).encode()).hexdigest()


def _content(file: Path) -> str | None:
    """SHA-256 of a file; None if it cannot be read."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        return _sha256(file, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=256)
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    """SHA-256 of a file; read once while size and time stay: tasks share references and LoRAs."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def from_folder(
    folder: Path, prompt: str, settings: Mapping[str, object], ending: str, output: Path
) -> list[Task]:
    """A task for each picture file under a folder, except those in `output` below it. Raises BadRequest.

    Pictures are recognized by content or extension; files with a picture extension that cannot be opened
    fail with their name.
    """
    base, results = folder.resolve(), output.resolve()
    if base == results:
        raise BadRequest(
            f"{output}: the results cannot be written among the source pictures; use another output folder"
        )
    below = results.is_relative_to(base)
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (below and path.resolve().is_relative_to(results))
        and path.is_file()
        and looks_like_picture(path)
    ]
    if not paths:
        raise BadRequest(f"{folder}: it contains no pictures")
    if not prompt:
        raise BadRequest("a folder needs a PROMPT that says what to change in each picture")
    check_prompt(prompt)
    names = _distinct([path.relative_to(folder) for path in paths], ending)
    return [Task(str(path.resolve()), prompt, name, dict(settings)) for path, name in zip(paths, names)]


def from_table(path: Path, prompt: str, settings: Mapping[str, object], ending: str) -> list[Task]:
    """A task for each row of a table with columns of `tables.COLUMNS`; paths are relative to the table.

    Columns take precedence over `prompt` and `settings`; several references are separated by `|` in CSV.
    Raises BadRequest.
    """
    if prompt:
        check_prompt(prompt)
    found = tables.read(path)
    for line, row in found:
        if "picture" not in row or not (row.get("prompt") or prompt):
            raise BadRequest(
                f"{path}, line {line}: a row needs a picture, and a prompt unless one is given for all rows"
            )
    if not found:
        raise BadRequest(f"{path}: it contains no rows")
    derived = iter(
        _distinct(
            [
                PurePosixPath(Path(str(row["picture"])).name or "picture")
                for _, row in found
                if "output" not in row
            ],
            ending,
        )
    )
    tasks = []
    for line, row in found:
        own = {key: value for key, value in row.items() if key not in ("picture", "prompt", "output")}
        name = _output(path, line, str(row["output"])) if "output" in row else next(derived)
        used = str(row.get("prompt") or prompt)
        tasks.append(Task(str(row["picture"]), used, name, {**settings, **own}, named="output" in row))
    _check_distinct(path, [task.output for task in tasks])
    return tasks


def _output(path: Path, line: int, output: str) -> str:
    """Validate the output name of a table row. Raises BadRequest."""
    name = PurePosixPath(output.replace("\\", "/"))
    relative = not name.is_absolute() and ".." not in name.parts and ":" not in output
    free = not any(part.startswith(OWN_NAMES) for part in name.parts)
    printable = not any(unicodedata.category(character) in ("Cc", "Cs") for character in output)
    if not relative or not free or not printable or name.suffix.lower() not in WRITABLE:
        expected = "a .png, .jpg or .webp name inside the output folder"
        raise BadRequest(f"{path}, line {line}: output {output!r} is not {expected}")
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in name.parts):
        raise BadRequest(
            f"{path}, line {line}: output {output[:40]!r}... is longer than {MAX_NAME_BYTES} bytes"
        )
    return str(name)


def _distinct(paths: Sequence[PurePath], ending: str) -> list[str]:
    """Output names with the new extension; a.jpg and a.png become a.jpg.png and a.png.png."""
    plain = [_fitting(_text(path.with_suffix("").as_posix()), ending) for path in paths]
    folded = [_folded(name) for name in plain]
    names = [
        name if folded.count(fold) == 1 else _fitting(_text(path.as_posix()), ending)
        for name, fold, path in zip(plain, folded, paths)
    ]
    count: dict[str, int] = {}
    taken: set[str] = set()
    for at, name in enumerate(names):  # the same picture in several rows
        number = count.get(_folded(name), 0) + 1
        unused = name
        while (
            number > 1
            and _folded(unused := _fitting(f"{name.removesuffix(ending)}-{number}", ending)) in taken
        ):
            number += 1
        count[_folded(name)] = number
        taken.add(_folded(unused))
        names[at] = unused
    return names


def _text(name: str) -> str:
    """A file name with non-UTF-8 bytes as %XX, for display and storage."""
    return re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", name)


def _fitting(name: str, ending: str) -> str:
    """A name with its extension; a name that is too long is cut and gets a digest of the full name."""
    folder, _, last = name.rpartition("/")
    if len(last.encode()) + len(ending) > MAX_NAME_BYTES:
        digest = hashlib.sha256(last.encode()).hexdigest()[:12]
        room = MAX_NAME_BYTES - len(ending) - len(digest) - 1
        last = last.encode()[:room].decode(errors="ignore") + "-" + digest
    return (f"{folder}/" if folder else "") + last + ending


def _folded(name: str) -> str:
    """A key that is equal for names that are the same file on some file system."""
    return unicodedata.normalize("NFC", name).casefold()


def _check_distinct(path: Path, outputs: Sequence[str]) -> None:
    used: set[str] = set()
    for output in outputs:
        if _folded(output) in used:
            raise BadRequest(f"{path}: two rows have the output {output!r}; give each row its own")
        used.add(_folded(output))
