"""Results to files and to the terminal: names decided and checked first, then everything written, then one
answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from kontext.engine import pictures
from kontext.engine.requests import Result
from kontext.errors import BadRequest


class Outputs:
    """Where the results of one command go. Raises BadRequest at once for names that cannot be written.

    `source` is the file that was edited: a history inside it goes on in what is written.
    """

    def __init__(
        self,
        output: Path | None,
        default: Path,
        count: int,
        source: Path | None = None,
        region: Path | None = None,
        cutout: Path | None = None,
    ):
        self.pictures = _numbered(output, count) if output else _unused(default, count)
        self.source, self.region, self.cutout = source, region, cutout
        for path in (*self.pictures, region, cutout):
            if path is not None:
                pictures.check_writable(path)
        if count > 1 and (region or cutout):
            raise BadRequest("--region and --cutout go with one result; leave --variants away")

    def write(self, results: Sequence[Result], as_json: bool) -> None:
        from kontext.session import provenance

        for result, path in zip(results, self.pictures):
            pictures.save(result.picture, path, provenance.texts(provenance.continued(self.source, result)))
        first = results[0]
        region = first.region or Image.new("L", first.size, 255)
        if self.region:
            pictures.save(region, self.region)
        if self.cutout:
            pictures.save(pictures.cutout(first.picture, region), self.cutout)
        answers = [describe(result, path) for result, path in zip(results, self.pictures)]
        if as_json:
            answer = answers[0] if len(answers) == 1 else {**answers[0], "variants": answers}
            typer.echo(json.dumps(answer, ensure_ascii=False))
            return
        for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
            typer.echo(f"warning: {warning}", err=True)
        for result, path in zip(results, self.pictures):
            typer.echo(
                f"{path}  {result.size[0]}x{result.size[1]}  seed {result.seed}  "
                f"{result.changed_fraction:.0%} changed  {result.seconds['total']:.1f} s"
            )


def describe(result: Result, path: Path) -> dict[str, Any]:
    """A result as the plain data of `--json`."""
    return {
        "output": str(path),
        "seed": result.seed,
        "steps": result.steps,
        "guidance": result.guidance,
        "size": list(result.size),
        "model": result.model,
        "changed_fraction": round(result.changed_fraction, 6),
        "evaluations": result.evaluations,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "warnings": list(result.warnings),
    }


def _numbered(path: Path, count: int) -> list[Path]:
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, count + 1)]


def _unused(path: Path, count: int) -> list[Path]:
    """Names nobody has given are names nobody has used: kid-edited.png, then kid-edited-2.png, ..."""
    found: list[Path] = []
    number = 1
    while len(found) < count:
        ending = path.suffix if number == 1 else f"-{number}{path.suffix}"
        stem = os.fsencode(path.stem)[: pictures.MAX_NAME_BYTES - len(ending)]  # a long name leaves no room
        candidate = path.with_name(os.fsdecode(stem) + ending)
        if not candidate.exists():
            found.append(candidate)
        number += 1
    return found
