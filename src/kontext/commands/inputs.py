"""Pictures on a command line: files, patterns, `-` for standard input. URLs and folders are rejected."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kontext.errors import BadPicture, BadRequest, NotFound

STDIN = "-"


@dataclass(frozen=True)
class InputPicture:
    """An input picture."""

    name: str
    """Its name in messages and for the default output: a path, or - for standard input."""
    data: bytes | None = None
    """The bytes read from standard input; None: the path is read when needed."""

    @property
    def content(self) -> str | bytes:
        """The path or bytes to pass to the editor."""
        return self.name if self.data is None else self.data

    @property
    def path(self) -> Path | None:
        return Path(self.name) if self.data is None else None


def sources(names: Sequence[str]) -> list[InputPicture]:
    """The pictures that names and patterns stand for, in their order, patterns sorted.

    A file with several names, also through links, is one picture, under the first of them.
    Raises BadRequest for addresses, folders and a second `-`, NotFound for patterns without a match.
    """
    found: list[InputPicture] = []
    for name in names:
        if name == STDIN:
            found.append(InputPicture(name, _standard_input()))
            continue
        check_file_name(name)
        if glob.has_magic(name) and not Path(name).exists():  # the Windows shell does not expand patterns
            matches = sorted(path for path in glob.glob(name) if Path(path).is_file())
            if not matches:
                raise NotFound(f"{name}: no such file, and no file matches the pattern")
            found += map(InputPicture, matches)
        elif not Path(name).exists():
            hint = f"; put the prompt in quotes: {_sentence(names)}" if len(names) > 1 else ""
            raise NotFound(f"{name}: there is no such file{hint}")
        else:
            found.append(InputPicture(name))
    if sum(source.name == STDIN for source in found) > 1:
        raise BadRequest("standard input (-) has only one picture; give it once")
    distinct: dict[str, InputPicture] = {}
    for source in found:
        name = os.path.normcase(os.path.realpath(source.name))
        distinct.setdefault(STDIN if source.path is None else name, source)
    return list(distinct.values())


def files(names: Iterable[str] | None) -> list[str]:
    """References, masks and overlays: files only. Raises BadRequest."""
    found = list(names or ())
    for name in found:
        if name == STDIN:
            raise BadRequest("only the picture to edit can come from standard input (-); give a file here")
        check_file_name(name)
    return found


def check_file_name(name: str) -> None:
    """Raise BadRequest for a URL or a folder where a picture file is expected."""
    address = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+:)/+", name)  # Path removes one of the two slashes
    if address and not Path(name).exists():
        shown = f"{address[1]}//{name[address.end() :]}"
        raise BadRequest(f"{shown}: a URL, not a file; download it first, for example with curl -LO")
    if Path(name).is_dir():
        raise BadPicture(f"{name}: a folder, not a picture; kontext batch edits all pictures of a folder")


def _sentence(names: Sequence[str]) -> str:
    return f'"{" ".join(name for name in names if not Path(name).exists())} ..."'


def _standard_input() -> bytes:
    if sys.stdin is None or sys.stdin.closed:
        raise BadRequest("standard input is closed; pipe a picture into it, or give a file")
    if sys.stdin.isatty():
        raise BadRequest("standard input is a terminal; pipe a picture into it, or give a file")
    return sys.stdin.buffer.read()
