"""`kontext models`: list, download and remove models; plan their memory."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from kontext.commands import options
from kontext.errors import BadRequest, KontextError, NotFound
from kontext.home import models_folder
from kontext.terminal import is_interactive, say, say_json

if TYPE_CHECKING:
    from kontext.checkpoint import Checkpoint


class _ListByDefault(TyperGroup):
    """`kontext models [FOLDER]` is `kontext models list [FOLDER]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ListByDefault, rich_markup_mode=None, add_completion=False)

Name = Annotated[
    str,
    typer.Argument(
        help="dev, dev:fp8, dev:q4, or owner/repo on a hub, optionally with @revision and :variant.",
        metavar="NAME",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class ModelRow:
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
    """Default number of sampling steps."""
    width: int | None = None
    """Of the squarest picture size at which it works, pixels."""
    height: int | None = None
    bytes: int | None = None
    """Size on disk."""


@app.callback()
def models() -> None:
    """List, download and remove models; plan their memory."""


@app.command("list")
def list_models(
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
    """List the available models: packaged ones, and files and folders with weights.

    Models in KONTEXT_HOME/models are found by name, others by path. `list` may be omitted.
    """
    for place in folder or ():
        if not place.is_dir():
            raise NotFound(f"{place}: there is no such folder")
    rows = list(_shipped())
    for place in folder or (models_folder(), Path(".")):
        rows += _found(place, by_name=place == models_folder())
    rows += _offered({row.name for row in rows})
    if as_json:
        say_json({"models": [asdict(row) for row in rows]})
        return
    width = max(len(row.name) for row in rows)
    say(*(f"{row.name:<{width}}  {'ok     ' if row.usable else 'missing'}  {row.note}" for row in rows))


@app.command()
def pull(name: Name, quiet: options.Quiet = False, as_json: options.Json = False) -> None:
    """Download a model from the Hugging Face Hub: only the files that are needed; resumes partial downloads.

    The files go into the cache of huggingface_hub (HF_HOME), which other programs share.
    """
    from kontext.checkpoint.hub import models as hub
    from kontext.checkpoint.hub.client import gigabytes

    with options.downloading(quiet) as on_progress:
        folder = hub.pull(name, on_progress)
    model = hub.read(folder)
    size = model.bytes if model else 0
    if as_json:
        say_json({"name": name, "path": str(folder), "bytes": size})
    elif not quiet:
        say(f"{name} is ready: {gigabytes(size)}, {folder}")


@app.command()
def plan(
    model: Annotated[
        str, typer.Argument(help="A model's name, file or folder.", metavar="MODEL", show_default=False)
    ],
    memory: options.Memory = None,
    device: options.Device = None,
    fp8: options.Fp8 = False,
    canvas: options.Canvas = None,
    as_json: options.Json = False,
) -> None:
    """Show where each part of a model would be placed within a memory limit. Reads no weights.

    With --memory, --device may name a device that is not in this machine.
    """
    from kontext.checkpoint import open_checkpoint
    from kontext.checkpoint.find import find_model
    from kontext.engine.device import free_memory, planned_device, usable_device
    from kontext.engine.memory_plan import computing_types, make_plan
    from kontext.engine.memory_sizes import usual_workload
    from kontext.memory import parse_memory
    from kontext.model.fp8 import check_fp8

    limit = parse_memory(memory)
    place = planned_device(device) if limit and device else usable_device(device)
    if fp8 and (place.type == "mps" or not (limit and device)):  # of another machine's GPU nothing is known
        check_fp8(place)
    found = open_checkpoint(find_model(model))
    parts = {name: part.weights for name, part in found.parts.items()}
    types = computing_types(parts, place)
    workload = usual_workload(found.preset, canvas)
    memory_plan = make_plan(parts, found.preset, limit or free_memory(place), place, types, workload, fp8)
    width, height = memory_plan.workload.canvas
    if as_json:
        say_json(
            {
                "model": str(found.path),
                "device": str(place),
                "limit": memory_plan.limit,
                "bytes": memory_plan.bytes,
                "canvas": [width, height],
                "types": {part: str(dtype).removeprefix("torch.") for part, dtype in types.items()},
                "rows": [asdict(row) for row in memory_plan.rows],
                "absent": found.absent,
            }
        )
        return
    say(f"{found.path} on {place}, canvas {width}x{height}, limit {memory_plan.limit / 1e9:.1f} GB")
    columns = [max(len(getattr(row, name)) for row in memory_plan.rows) for name in ("what", "where")]
    for row in memory_plan.rows:
        say(f"  {row.what:<{columns[0]}}  {row.where:<{columns[1]}}  {row.bytes / 1e9:6.2f} GB")
    say(f"  {'total':<{sum(columns) + 2}}  {memory_plan.bytes / 1e9:6.2f} GB")
    if found.absent:
        say(f"  not counted, because missing: {', '.join(found.absent)}")


@app.command()
def remove(
    name: Annotated[
        str, typer.Argument(help="A model in the models folder.", metavar="NAME", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.Json = False,
) -> None:
    """Delete a model from the models folder; for a model from a hub, also its files in the hub's cache.

    Files that other models need are kept.
    """
    from kontext.checkpoint.find import shipped_models
    from kontext.checkpoint.hub import models as hub
    from kontext.checkpoint.hub.client import gigabytes

    if name in shipped_models() or name.partition(":")[0].endswith("-random"):
        raise BadRequest(f"{name} comes with the package and cannot be removed")
    placed = models_folder() / name
    own = Path(name).name == name and os.path.lexists(placed) and hub.read(placed) is None
    found = None if own else hub.removal(name)
    size = found.bytes if found else _disk_bytes(placed)
    where = [str(placed)] if found is None else [str(file) for file in (found.folder, *found.files) if file]
    if not yes:
        if not (is_interactive(sys.stdin) and is_interactive(sys.stderr)):
            raise BadRequest(f"{name}: give --yes to delete {gigabytes(size)} without confirmation")
        say(
            *where,
            *(f"kept, other models need it: {file}" for file in (found.needed_elsewhere if found else ())),
            err=True,
        )
        typer.confirm(f"Delete {name}, {gigabytes(size)}?", abort=True, err=True)
    if found is not None:
        size = hub.remove(found)
    elif placed.is_dir() and not placed.is_symlink():
        shutil.rmtree(placed)
    else:
        placed.unlink()
    if as_json:
        needed = list(found.needed_elsewhere) if found else []
        say_json({"name": name, "removed": where, "bytes": size, "kept": needed})
    else:
        say(f"removed {name}; {gigabytes(size)} freed")


def _shipped() -> Iterator[ModelRow]:
    from kontext.checkpoint import open_checkpoint
    from kontext.checkpoint.find import SHIPPED, shipped_models

    for name in shipped_models():
        yield _row(name, open_checkpoint(SHIPPED / name), "comes with the package")
    yield ModelRow("tiny-random", True, "random weights, for tests")
    yield ModelRow("nano-random", True, "random weights, for timings")
    yield ModelRow(
        "dev-random", True, "random weights of [dev]'s size, for timings; dev-random:N has N blocks"
    )


def _offered(here: set[str]) -> Iterator[ModelRow]:
    """FLUX.1 Kontext [dev] in the forms that can be downloaded, as far as it is not here."""
    from kontext.checkpoint.hub import cache
    from kontext.checkpoint.hub.client import gigabytes
    from kontext.checkpoint.hub.names import OFFERED, parse

    for name, size in OFFERED.items():
        hub_name = parse(name)
        if hub_name is None or name in here or hub_name.folder in here:
            continue
        partial = sum(file.stat().st_size for file in cache.partial_files(hub_name.source))
        part = f" ({gigabytes(partial)} downloaded)" if partial else ""
        yield ModelRow(name, False, f"{size}{part}; download it with: kontext models pull {name}")


def _found(place: Path, by_name: bool) -> Iterator[ModelRow]:
    """Models among the files and folders directly in a folder.

    In the models folder, files that are not models are also listed, with the reason.
    """
    from kontext.checkpoint import open_checkpoint
    from kontext.checkpoint.hub import models as hub

    try:
        entries = sorted(place.iterdir())
    except OSError:
        return
    for path in entries:
        folder = path.is_dir()
        if path.name.startswith(".") or (not folder and path.suffix not in (".safetensors", ".gguf")):
            continue
        if (
            folder
            and not by_name
            and not any((path / f).is_file() for f in ("config.json", "model_index.json"))
        ):
            continue
        pulled = hub.read(path) if folder and by_name else None
        name = pulled.name if pulled else path.name if by_name else str(path)
        if pulled and pulled.missing:
            lost = ", ".join(source.place for source in pulled.missing[:3])
            note = (
                f"{lost} is no longer in the hub's cache: download it again with: kontext models pull {name}"
            )
            yield ModelRow(name, False, note, str(path), bytes=pulled.bytes)
            continue
        try:
            found = open_checkpoint(path)
        except (KontextError, OSError) as error:
            if by_name:
                yield ModelRow(name, False, str(error), str(path), bytes=_disk_bytes(path))
            continue
        if "transformer" in found.parts:
            yield _row(name, found, str(path) if by_name else "", pulled.bytes if pulled else None)


def _row(name: str, found: Checkpoint, more: str, size: int | None = None) -> ModelRow:
    from kontext.checkpoint.hub.client import gigabytes

    parameters = sum(part.parameters for part in found.parts.values())
    width, height = min(found.preset.sizes, key=lambda size: abs(size[0] / size[1] - 1))
    size = _disk_bytes(found.path) if size is None else size
    notes = [f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"]
    notes += [gigabytes(size), f"{found.layout} layout", f"{width}x{height}"]
    notes += [f"{found.preset.sampling.steps} steps"]
    notes += [f"prompts up to {found.preset.text_length} tokens", more]
    if found.absent:
        notes.insert(0, f"the {', the '.join(found.absent)} is missing next to it")
    return ModelRow(
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
        bytes=size,
    )


def _disk_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder; links count as what they lead to."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
