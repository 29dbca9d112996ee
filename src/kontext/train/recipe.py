"""A recipe of training stages, from the autoencoder to the weights to ship, in any number of calls.

A recipe is a TOML file of stages, each with a settings file or inline settings. A call resumes where the last
one stopped, in the same folder, and pauses when its time is over, with the state saved and the current model
exported in shards of a limited size.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from kontext.checkpoint.convert import convert
from kontext.engine.editor import usable_device
from kontext.errors import BadConfig
from kontext.train import autoencoder, distill, flow
from kontext.train.config import (
    AutoencoderTraining,
    DistillTraining,
    FlowTraining,
    TrainingSettings,
    checked,
    find_config,
    read,
)
from kontext.train.run import Paused

log = logging.getLogger(__name__)

KINDS: dict[str, tuple[type[TrainingSettings], Callable[..., Path]]] = {
    "autoencoder": (AutoencoderTraining, autoencoder.train),
    "flow": (FlowTraining, flow.train),
    "distill": (DistillTraining, distill.train),
}


class RecipeStage(TrainingSettings):
    name: str
    """Name of the stage and of its folder."""
    kind: Literal["autoencoder", "flow", "distill"]
    config: str | None = None
    """Settings file in the recipe's folder or in the package; or `settings`."""
    settings: dict[str, Any] = {}
    """Settings, which override those of the file."""


class Recipe(TrainingSettings):
    stages: tuple[RecipeStage, ...]
    shard_mib: float = 15.5
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """Data type of the weights to ship."""


def settings_of(stage: RecipeStage, home: Path, **overrides: Any) -> Any:
    """The checked settings of a stage. Raises BadConfig naming the stage."""
    kind = KINDS[stage.kind][0]
    from_file = (
        read(kind, _find_settings(home, stage.config)).model_dump(exclude_unset=True) if stage.config else {}
    )
    return checked(kind, {**from_file, **stage.settings, **overrides}, stage.name)


def _find_settings(home: Path, name: str) -> Path:
    """A settings file in the recipe's folder, else one of the package."""
    return home / name if (home / name).exists() else find_config(Path(name))


def follow(
    path: Path,
    folder: Path,
    call_seconds: float | None = None,
    export: Path | None = None,
    device: str | None = None,
) -> bool:
    """Run the remaining stages of a recipe in a folder; returns whether all are finished.

    call_seconds: time after which the call pauses. export: folder of the exported model, finished or not
    (default: `model` in the folder). device: overrides the settings. Raises BadConfig, and BadRequest for a
    device that is not available.
    """
    path = find_config(path)
    recipe, started = read(Recipe, path), time.monotonic()
    overrides = {"device": device} if device else {}
    # report mistakes before any training
    stages = [(stage, settings_of(stage, path.parent, **overrides)) for stage in recipe.stages]
    for _, settings in stages:
        usable_device(settings.device)
    if not stages or stages[0][0].kind != "autoencoder":
        raise BadConfig(f"{path}: the first stage must train the autoencoder")
    folder.mkdir(parents=True, exist_ok=True)
    codec, previous_state, newest, finished = folder / "none", None, None, True
    for stage, settings in stages:
        stage_folder = folder / stage.name
        if not (stage_folder / "done").exists():
            remaining = None if call_seconds is None else call_seconds - (time.monotonic() - started)
            resume = (stage_folder / "state.pt").exists()
            log.info("%s: %s", stage.name, "resuming" if resume else "starting")
            arguments: tuple = (
                (resume, None) if stage.kind == "autoencoder" else (codec, resume, previous_state)
            )
            try:
                if remaining is not None and remaining <= 0:
                    raise Paused
                KINDS[stage.kind][1](
                    settings.model_copy(update={"call_seconds": remaining}), stage_folder, *arguments
                )
                (stage_folder / "done").touch()
            except Paused:
                finished = False
        if stage.kind == "autoencoder":
            codec = stage_folder / "autoencoder.safetensors"
        elif (stage_folder / "model" / "config.json").exists():
            previous_state, newest = stage_folder / "state.pt", stage_folder / "model"
        if not finished:
            log.info("%s: paused; run the same command to resume", stage.name)
            break
    if newest is not None:
        _write(newest, export or folder / "model", recipe)
    return finished


def _write(model: Path, export: Path, recipe: Recipe) -> None:
    """Export the model in shards, replacing an earlier export."""
    convert(
        model,
        export,
        "kontext",
        dtype=recipe.dtype,
        shard_bytes=int(recipe.shard_mib * 2**20),
        replace=True,
    )
    log.info("%s: %d files", export, len(list(export.iterdir())))
