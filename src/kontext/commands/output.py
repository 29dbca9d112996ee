"""Writes results to files and prints them.

Names are chosen and checked first, then everything is written. Existing files are only replaced with
--force.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from PIL import Image

from kontext import pictures
from kontext.commands.options import STDOUT
from kontext.engine.requests import Result
from kontext.errors import BadRequest
from kontext.terminal import is_interactive, say, write_bytes

TRANSPARENT = ("PNG", "WEBP")
"""Formats that store transparency."""


class Outputs:
    """The output files of one picture. Raises BadRequest for names that cannot be written.

    output: as given; None means `default`. Default names are unused ones: NAME.png, NAME-2.png, ...; several
    variants are always NAME-1.png, NAME-2.png, ....
    source: the edited picture, a path or bytes; its embedded history is extended in the output.
    inputs: files that are read and must not be overwritten.
    taken: names used by other pictures of the same command; updated.
    """

    def __init__(
        self,
        output: str | None,
        default: Path | str,
        count: int,
        *,
        source: str | bytes | None = None,
        region: Path | None = None,
        cutout: Path | None = None,
        inputs: Sequence[str] = (),
        force: bool = False,
        taken: set[str] | None = None,
    ):
        self.source, self.region, self.cutout, self.force = source, region, cutout, force
        taken = set() if taken is None else taken
        if count > 1 and (region or cutout):
            raise BadRequest("--region and --cutout need a single result; omit --variants")
        self.default = default if output is None else output
        self.named = output is not None and not _is_folder(output)
        if self.default == STDOUT:
            _check_standard_output(count)
            self.pictures: list[Path] = []
        elif self.named:
            self.pictures = list(islice(_names(Path(output or ""), count), count))
        else:
            folder = Path(output) if output else Path(default).parent
            self.default = folder / Path(default).name
            self.pictures = _unused(Path(self.default), count, taken)
        for path in (*self.pictures, region, cutout):
            if path is not None:
                self._check(path, inputs, taken)

    def _check(self, path: Path, inputs: Sequence[str], taken: set[str]) -> None:
        """Raises BadRequest for a name that cannot be written or would overwrite an input."""
        pictures.check_writable(path)
        if path == self.cutout and pictures.format_for(path) not in TRANSPARENT:
            raise BadRequest(
                f"{path}: --cutout needs a transparent background, which {path.suffix} files cannot have; "
                "end the name in .png or .webp"
            )
        exists = os.path.lexists(path)
        if key(path) in taken:
            raise BadRequest(f"{path}: two outputs have this name; give each its own")
        taken.add(key(path))
        edited = isinstance(self.source, str) and _same(path, self.source)
        if edited and not (self.force and path in self.pictures):
            hint = "give another name" + (", or --force" if path in self.pictures else "")
            raise BadRequest(f"{path}: the input picture would be overwritten; {hint}")
        if not edited and any(_same(path, input_name) for input_name in inputs):
            raise BadRequest(f"{path}: an input of this command would be overwritten; give another name")
        if exists and not self.force:
            raise BadRequest(f"{path}: already exists; give another name, or --force to replace it")

    def write(self, results: Sequence[Result]) -> list[str]:
        """Write everything; returns the names of the pictures, or [-] for standard output."""
        from kontext.session import provenance

        texts = [provenance.texts(provenance.extend_history(self.source, result)) for result in results]
        first = results[0]
        region = first.region or Image.new("L", first.size, 255)
        for path, picture in (
            (self.region, region),
            (self.cutout, pictures.cutout(first.picture, region) if self.cutout else None),
        ):
            if path and picture:
                pictures.write(path, pictures.encode(picture, pictures.format_for(path)), self.force)
        if not self.pictures:
            write_bytes(pictures.encode(first.picture, "PNG", texts[0]))
            return [STDOUT]
        return [str(self._place(*item)) for item in zip(self.pictures, results, texts)]

    def _place(self, path: Path, result: Result, text: dict[str, str]) -> Path:
        """Write one picture. A default name that was taken in the meantime is replaced by the next one."""
        data = pictures.encode(result.picture, pictures.format_for(path), text)
        ahead = [path] if self.named else chain([path], _names(Path(self.default), 1))
        for name in ahead:
            if self.named or not os.path.lexists(name):
                try:
                    return pictures.write(name, data, self.force and self.named)
                except BadRequest as error:
                    if self.named or not isinstance(error.__cause__, FileExistsError):
                        raise
        raise BadRequest(f"{path}: no name is free")


def show(
    results: Sequence[Result], names: Sequence[str], *, generated: bool, quiet: bool, of: str = ""
) -> None:
    """Print the results: warnings on stderr (for the picture `of`), one line per picture."""
    about = f"{of}: " if of else ""
    for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
        say(f"warning: {about}{warning}", err=True)
    if quiet:
        return
    for result, name in zip(results, names):
        columns = [name, f"{result.size[0]}x{result.size[1]}", f"seed {result.seed}"]
        if not generated:
            columns.append(f"{result.changed_fraction:.0%} changed")
        columns.append(f"{result.seconds['total']:.1f} s")
        say("  ".join(columns), err=name == STDOUT)


def describe(
    results: Sequence[Result], names: Sequence[str], expanded_prompt: str | None = None
) -> dict[str, Any]:
    """The results of one picture as the plain data of `--json`; with the prompt if it was expanded."""
    answers = [_described(result, name) for result, name in zip(results, names)]
    described = answers[0] if len(answers) == 1 else {**answers[0], "variants": answers}
    return described if expanded_prompt is None else {**described, "prompt": expanded_prompt}


def _described(result: Result, name: str) -> dict[str, Any]:
    return {
        "output": name,
        "seed": result.seed,
        "steps": result.steps,
        "guidance": result.guidance,
        "size": list(result.size),
        "model": result.model,
        "changed_fraction": round(result.changed_fraction, 6),
        "evaluations": result.evaluations,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "warnings": list(result.warnings),
        **{name: True for name in ("fp8", "compile") if result.settings.get(name)},
    }


def check_new(path: Path, force: bool = False) -> None:
    """Raise BadRequest for what is not a file, and for a file that exists, unless it may be replaced."""
    pictures.check_regular(path)
    if path.is_dir():
        raise BadRequest(f"{path}: a folder has this name; choose another")
    if os.path.lexists(path) and not force:
        raise BadRequest(f"{path}: already exists; give another name, or --force to replace it")


def unused(path: Path) -> Path:
    """The first unused name of NAME.png, NAME-2.png, ...."""
    return _unused(path, 1, set())[0]


def key(path: Path) -> str:
    """A key that is equal for names of the same file: ignores case, Unicode form and folder links."""
    return unicodedata.normalize("NFC", os.path.join(os.path.realpath(path.parent), path.name)).casefold()


def _names(path: Path, variants: int) -> Iterator[Path]:
    """NAME.png, NAME-2.png, ... for one result; NAME-1.png, NAME-2.png, ... for several."""
    for number in count(1):
        alone = variants == 1 and number == 1
        ending = path.suffix if alone else f"-{number}{path.suffix}"
        stem = os.fsencode(path.stem)[: pictures.MAX_NAME_BYTES - len(ending)]  # long names are cut
        yield path.with_name(os.fsdecode(stem) + ending)


def _unused(path: Path, variants: int, taken: set[str]) -> list[Path]:
    free = (name for name in _names(path, variants) if not os.path.lexists(name) and key(name) not in taken)
    return list(islice(free, variants))


def _is_folder(output: str) -> bool:
    return output != STDOUT and (output.endswith(("/", os.sep)) or Path(output).is_dir())


def _same(path: Path, input_name: str) -> bool:
    """Whether two names are the same file, also through links and on case-insensitive file systems."""
    try:
        return os.path.samefile(path, input_name)
    except OSError:
        return False


def _check_standard_output(count: int) -> None:
    if count > 1:
        raise BadRequest("standard output can have only one picture; give -o FILE for several variants")
    if sys.stdout is None:
        raise BadRequest("standard output is closed; give -o FILE")
    if is_interactive(sys.stdout):
        raise BadRequest("standard output is a terminal; redirect it (> out.png), or give -o FILE")
