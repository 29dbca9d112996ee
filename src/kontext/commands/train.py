"""`kontext train autoencoder|flow|distill|lora`: train our own networks from a TOML file of settings."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", help="Settings, TOML; unknown keys are refused.")]
Out = Annotated[Path, typer.Option("-o", "--output", help="Folder of the run: log, sheets, state, weights.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in the folder stopped.")]
Seconds = Annotated[float | None, typer.Option(help="Time budget; overrides the file's.", min=1)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; overrides the file's.")]


@app.command()
def autoencoder(
    config: Config,
    output: Out,
    resume: Resume = False,
    start: Annotated[Path | None, typer.Option(help="Weights to start from (safetensors).")] = None,
    seconds: Seconds = None,
    device: Device = None,
) -> None:
    """Train the autoencoder on pictures of the world."""
    from kontext.train import autoencoder as trainer
    from kontext.train.config import AutoencoderTraining, read

    settings = _override(read(AutoencoderTraining, config), seconds, device)
    _prepare()
    typer.echo(json.dumps({"weights": str(trainer.train(settings, output, resume, start))}))


@app.command()
def words(config: Config, output: Out, resume: Resume = False, seconds: Seconds = None) -> None:
    """Teach the text encoders to read, from sentences of the world alone."""
    from kontext.train import words as trainer
    from kontext.train.config import WordsTraining, read

    settings = _override(read(WordsTraining, config), seconds, None)
    _prepare()
    typer.echo(json.dumps({"weights": str(trainer.train(settings, output, resume))}))


@app.command()
def flow(
    config: Config,
    autoencoder: Annotated[Path, typer.Option(help="Trained autoencoder (autoencoder.safetensors).")],
    output: Out,
    resume: Resume = False,
    start: Annotated[
        Path | None, typer.Option(help="state.pt of an earlier run, whose averaged weights to start from.")
    ] = None,
    words: Annotated[
        Path | None, typer.Option(help="Folder of `train words`, whose encoders to start from.")
    ] = None,
    seconds: Seconds = None,
    device: Device = None,
) -> None:
    """Train the transformer and both text encoders on edits of the world."""
    from kontext.train import flow as trainer
    from kontext.train.config import FlowTraining, read

    settings = _override(read(FlowTraining, config), seconds, device)
    _prepare()
    model = trainer.train(settings, output, autoencoder, resume, start, words)
    typer.echo(json.dumps({"model": str(model)}))


@app.command()
def distill(
    config: Config,
    autoencoder: Annotated[Path, typer.Option(help="Trained autoencoder (autoencoder.safetensors).")],
    output: Out,
    start: Annotated[Path | None, typer.Option(help="state.pt of the flow run that teaches.")] = None,
    resume: Resume = False,
    seconds: Seconds = None,
    device: Device = None,
) -> None:
    """Distil guidance and steps of a trained flow model into a student of the same size."""
    from kontext.train import distill as trainer
    from kontext.train.config import DistillTraining, read

    settings = _override(read(DistillTraining, config), seconds, device)
    _prepare()
    typer.echo(json.dumps({"model": str(trainer.train(settings, output, autoencoder, resume, start))}))


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
    seconds: Seconds = None,
    device: Device = None,
) -> None:
    """Teach a trained model a look or an edit from a few pairs of pictures, as a LoRA file."""
    from kontext.train import lora as trainer
    from kontext.train.config import LoraTraining, read

    settings = _override(read(LoraTraining, config), seconds, device, model=model)
    _prepare()
    typer.echo(json.dumps({"lora": str(trainer.train(settings, output, data, resume))}))


@app.command("all")
def everything(
    output: Out,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Stages, TOML; default: the one for a GPU that comes with the package."),
    ] = None,
    call_seconds: Annotated[
        float | None, typer.Option(help="Pause after so long; the same command goes on.", min=1)
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Where the model is written in small files.")] = None,
) -> None:
    """Make the weights in order, from the autoencoder to the distillation, in calls of any length."""
    from kontext.train.recipe import follow

    _prepare()
    path = recipe or Path(__file__).parent.parent / "train" / "configs" / "recipe-gpu.toml"
    typer.echo(json.dumps({"finished": follow(path, output, call_seconds, export)}))


def _override(settings: Any, seconds: float | None, device: str | None, **more: Any) -> Any:
    given = {"seconds": seconds, "device": device, **more}
    return settings.model_copy(update={name: value for name, value in given.items() if value is not None})


def _prepare() -> None:
    import torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_float32_matmul_precision("high")
