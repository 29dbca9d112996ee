"""`kontext train autoencoder|flow|distill|lora|all`: train our own networks from a TOML file of settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kontext.errors import BadRequest
from kontext.terminal import log_handler, say, say_json

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

Config = Annotated[
    Path,
    typer.Option(
        "--config",
        help="Settings: a TOML file, or the name of a packaged file, such as flow-cpu.toml.",
        metavar="FILE|NAME",
    ),
]
Out = Annotated[Path, typer.Option("-o", "--output", help="Folder of the run: log, sheets, state, weights.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a run in the folder.")]
Seconds = Annotated[float | None, typer.Option(help="Time budget; overrides the file's.", min=1)]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps; overrides the file's.", envvar="KONTEXT_DEVICE")
]


@app.command()
def autoencoder(
    config: Config,
    output: Out,
    resume: Resume = False,
    force: Force = False,
    start: Annotated[Path | None, typer.Option(help="Weights to start from (safetensors).")] = None,
    seconds: Seconds = None,
    device: Device = None,
) -> None:
    """Train the autoencoder on pictures of the world."""
    from kontext.train import autoencoder as trainer
    from kontext.train.config import AutoencoderTraining, read

    settings = _override(read(AutoencoderTraining, config), seconds, device)
    _prepare(settings.device, output, resume, force)
    _run("weights", lambda: trainer.train(settings, output, resume, start))


@app.command()
def words(
    config: Config,
    output: Out,
    resume: Resume = False,
    force: Force = False,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an earlier run, or state.pt of a flow run, whose encoders to start from."
        ),
    ] = None,
    anchor: Annotated[
        Path | None,
        typer.Option(
            help="Likewise the encoders whose outputs to stay near, with `anchor` in the settings. "
            "Default: those of --start."
        ),
    ] = None,
    seconds: Seconds = None,
) -> None:
    """Pretrain the text encoders on sentences of the world."""
    from kontext.train import words as trainer
    from kontext.train.config import WordsTraining, read

    settings = _override(read(WordsTraining, config), seconds, None)
    _prepare(settings.device, output, resume, force)
    _run("weights", lambda: trainer.train(settings, output, resume, start, anchor))


@app.command()
def flow(
    config: Config,
    autoencoder: Annotated[Path, typer.Option(help="Trained autoencoder (autoencoder.safetensors).")],
    output: Out,
    resume: Resume = False,
    force: Force = False,
    start: Annotated[
        Path | None, typer.Option(help="state.pt of an earlier run, whose averaged weights to start from.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(help="Folder of `train words`, whose encoders to start from, also with --start."),
    ] = None,
    seconds: Seconds = None,
    device: Device = None,
) -> None:
    """Train the transformer and both text encoders on edits of the world."""
    from kontext.train import flow as trainer
    from kontext.train.config import FlowTraining, read

    settings = _override(read(FlowTraining, config), seconds, device)
    _prepare(settings.device, output, resume, force)
    _run("model", lambda: trainer.train(settings, output, autoencoder, resume, start, words))


@app.command()
def compact(
    state: Annotated[Path, typer.Argument(help="state.pt of a flow run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    force: Force = False,
) -> None:
    """Write a flow run's state without what a resumed run recomputes; small enough for a repository.

    To resume from it, copy it to state.pt in an empty folder of a run.
    """
    from kontext.commands.output import check_new
    from kontext.train.run import compact as write

    check_new(output, force)
    say_json({"state": str(output), "bytes": write(state, output)})


@app.command()
def distill(
    config: Config,
    autoencoder: Annotated[Path, typer.Option(help="Trained autoencoder (autoencoder.safetensors).")],
    output: Out,
    start: Annotated[Path | None, typer.Option(help="state.pt of the flow run that teaches.")] = None,
    resume: Resume = False,
    force: Force = False,
    seconds: Seconds = None,
    device: Device = None,
) -> None:
    """Distill guidance and steps of a trained flow model into a student of the same size."""
    from kontext.train import distill as trainer
    from kontext.train.config import DistillTraining, read

    settings = _override(read(DistillTraining, config), seconds, device)
    _prepare(settings.device, output, resume, force)
    say_json({"model": str(trainer.train(settings, output, autoencoder, resume, start))})


@app.command()
def lora(
    config: Config,
    output: Out,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of pairs: NAME_before.png, NAME_after.png, NAME.txt, NAME_reference.png."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to change; overrides the file's.")] = None,
    resume: Resume = False,
    force: Force = False,
    seconds: Seconds = None,
    device: Device = None,
) -> None:
    """Train a LoRA of a style or an edit from a few pairs of pictures."""
    from kontext.train import lora as trainer
    from kontext.train.config import LoraTraining, read

    settings = _override(read(LoraTraining, config), seconds, device, model=model)
    _prepare(settings.device, output, resume, force)
    say_json({"lora": str(trainer.train(settings, output, data, resume))})


@app.command("all")
def everything(
    output: Out,
    recipe: Annotated[
        Path,
        typer.Option(
            help="Stages: a TOML file, or the name of a packaged one: recipe-gpu.toml, recipe-tiny.toml.",
            metavar="FILE|NAME",
        ),
    ] = Path("recipe-gpu.toml"),
    call_seconds: Annotated[
        float | None, typer.Option(help="Pause after this time in seconds; run again to resume.", min=1)
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Folder to write the model to, in small files.")] = None,
    device: Device = None,
) -> None:
    """Train all stages, from the autoencoder to the distillation, in calls of any length."""
    from kontext.train.recipe import follow

    _logs()
    try:
        finished = follow(recipe, output, call_seconds, export, device)
    except BadRequest as error:
        raise BadRequest(f"{error}; --device cpu is slow, --recipe recipe-tiny.toml rehearses it") from None
    say_json({"finished": finished})


def _override(settings: Any, seconds: float | None, device: str | None, **more: Any) -> Any:
    overrides = {"seconds": seconds, "device": device, **more}
    return settings.model_copy(update={name: value for name, value in overrides.items() if value is not None})


def _run(result: str, train: Callable[[], Path]) -> None:
    """Print the path of what a run has trained; a signal saves and pauses it instead."""
    from kontext.train.run import Paused, pausing_on_signals

    try:
        with pausing_on_signals():
            path = train()
    except Paused:
        say("paused; --resume continues the run", err=True)
        return
    say_json({result: str(path)})


def _prepare(device: str, output: Path, resume: bool, force: bool) -> None:
    """Check the device and the folder before the first picture is drawn. Raises BadRequest."""
    from kontext.engine.editor import usable_device
    from kontext.pictures import check_regular

    usable_device(device)
    check_regular(output / "state.pt")
    if (output / "state.pt").exists() and not (resume or force):
        raise BadRequest(f"{output} holds a run; --resume continues it, --force replaces it")
    _logs()


def _logs() -> None:
    import torch

    logging.basicConfig(level=logging.INFO, handlers=[log_handler("%(asctime)s %(message)s")])
    torch.set_float32_matmul_precision("high")
