"""`kontext models`: what can be given to --model here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kontext.commands import options
from kontext.terminal import say, say_json

if TYPE_CHECKING:
    from kontext.checkpoint import Checkpoint

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@dataclass(frozen=True)
class Row:
    """One model as it is shown."""

    name: str
    """What to give to --model."""
    usable: bool
    note: str
    """What it is, or what is missing."""
    path: str | None = None
    layout: str | None = None
    parameters: int | None = None
    prompt_tokens: int | None = None
    """Longest prompt, in tokens of its text encoder."""
    steps: int | None = None
    """Sampling steps that it takes unless told otherwise."""
    width: int | None = None
    """Of the squarest picture size at which it works, pixels."""
    height: int | None = None


@app.command()
def models(
    folder: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders to look into; default: the models folder and this one.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the models that can be used here: those of the package, and files and folders with weights.

    Models in KONTEXT_HOME/models are found by name, others by path. GGUF files and 8-bit floats need less
    disk, not less memory.
    """
    from kontext.errors import NotFound
    from kontext.home import models_folder

    for place in folder or ():
        if not place.is_dir():
            raise NotFound(f"{place}: there is no such folder")
    rows = list(_shipped())
    for place in folder or (models_folder(), Path(".")):
        rows += _found(place, by_name=place == models_folder())
    if as_json:
        say_json({"models": [asdict(row) for row in rows]})
        return
    width = max(len(row.name) for row in rows)
    say(*(f"{row.name:<{width}}  {'ok     ' if row.usable else 'missing'}  {row.note}" for row in rows))


def _shipped() -> Iterator[Row]:
    from kontext.checkpoint import open_checkpoint
    from kontext.checkpoint.model import DEV_FILES, DEV_GIGABYTES, SHIPPED, shipped_models
    from kontext.home import models_folder

    for name in shipped_models():
        yield _row(name, open_checkpoint(SHIPPED / name), "comes with the package")
    yield Row("tiny-random", True, "random weights, for tests")
    yield Row("nano-random", True, "random weights, for timings")
    if not (models_folder() / "dev").exists():
        note = f"put {DEV_FILES} into {models_folder() / 'dev'}; {DEV_GIGABYTES} GB of memory"
        yield Row("dev", False, note)


def _found(place: Path, by_name: bool) -> Iterator[Row]:
    """Models among the files and folders directly in a folder. In the models folder all that is no model is
    shown too, with the reason; elsewhere it is somebody else's.
    """
    from kontext.checkpoint import open_checkpoint
    from kontext.errors import KontextError

    try:
        inside = sorted(place.iterdir())
    except OSError:
        return
    for path in inside:
        folder = path.is_dir()
        if not folder and path.suffix not in (".safetensors", ".gguf"):
            continue
        if (
            folder
            and not by_name
            and not any((path / f).is_file() for f in ("config.json", "model_index.json"))
        ):
            continue
        name = path.name if by_name else str(path)
        try:
            found = open_checkpoint(path)
        except (KontextError, OSError) as error:
            if by_name:
                yield Row(name, False, str(error), str(path))
            continue
        if "transformer" in found.parts:
            yield _row(name, found, str(path) if by_name else "")


def _row(name: str, found: Checkpoint, more: str) -> Row:
    parameters = sum(part.parameters for part in found.parts.values())
    width, height = min(found.preset.sizes, key=lambda size: abs(size[0] / size[1] - 1))
    notes = [f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"]
    notes += [f"{found.layout} layout", f"{width}x{height}", f"{found.preset.sampling.steps} steps"]
    notes += [f"prompts up to {found.preset.text_length} tokens", more]
    if found.absent:
        notes.insert(0, f"the {', the '.join(found.absent)} is missing beside it")
    return Row(
        name=name,
        usable=not found.absent,
        note=", ".join(note for note in notes if note),
        path=str(found.path),
        layout=found.layout,
        parameters=parameters,
        prompt_tokens=found.preset.text_length,
        steps=found.preset.sampling.steps,
        width=width,
        height=height,
    )
