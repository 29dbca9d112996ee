"""Options shared by several commands, and the progress bar."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kontext.errors import BadRequest
from kontext.options import option
from kontext.terminal import draw, is_interactive, say

if TYPE_CHECKING:
    from kontext.checkpoint.hub.models import DownloadProgress
    from kontext.engine import Editor
    from kontext.engine.requests import StepInfo

STDOUT = "-"
DRAW_SECONDS = 0.2  # between two drawings of a line of progress

Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="Output: a new .png, .jpg or .webp, a folder, or - for standard output (PNG).",
        metavar="FILE|FOLDER|-",
    ),
]
Reference = Annotated[
    list[str] | None,
    typer.Option("--ref", help="A reference picture; up to 3 times.", metavar="PICTURE"),
]
Seed = Annotated[
    int | None,
    typer.Option(help=option("seed").help, metavar="N"),
]
Steps = Annotated[int | None, typer.Option(help=option("steps").help, metavar="N")]
Guidance = Annotated[
    float | None,
    typer.Option(help=option("guidance").help, metavar="G"),
]
Sampler = Annotated[str | None, typer.Option("--sampler", help=option("sampler").help, metavar="SAMPLER")]
ContextRefresh = Annotated[
    int | None, typer.Option("--context-refresh", help=option("context_refresh").help, metavar="N")
]
StepCache = Annotated[
    float | None, typer.Option("--step-cache", help=option("step_cache").help, metavar="SHARE")
]
NegativePrompt = Annotated[
    str | None, typer.Option("--negative-prompt", help=option("negative_prompt").help, metavar="TEXT")
]
TrueGuidance = Annotated[
    float | None, typer.Option("--true-guidance", help=option("true_guidance").help, metavar="G")
]
Nag = Annotated[float | None, typer.Option("--nag", help=option("nag").help, metavar="G")]
GuidanceSteps = Annotated[
    str | None, typer.Option("--guidance-steps", help=option("guidance_steps").help, metavar="FIRST-LAST")
]
Strength = Annotated[float | None, typer.Option("--strength", help=option("strength").help, metavar="S")]
ReferenceLayout = Annotated[
    str | None,
    typer.Option("--reference-layout", help=option("reference_layout").help, metavar="LAYOUT"),
]
Expand = Annotated[str | None, typer.Option("--expand", help=option("expand").help, metavar="L,T,R,B|W:H")]
ExpandPrompt = Annotated[
    str | None,
    typer.Option(
        "--expand-prompt",
        help="Expand short prompts by the language model at this OpenAI-compatible endpoint, such as "
        "http://localhost:11434/v1 (key: KONTEXT_PROMPT_KEY).",
        metavar="URL",
    ),
]
ExpandModel = Annotated[
    str | None,
    typer.Option("--expand-model", help="The language model there; default: its first.", metavar="NAME"),
]
Canvas = Annotated[int | None, typer.Option("--canvas", help=option("canvas").help, metavar="N")]
Variants = Annotated[
    int,
    typer.Option(help=f"{option('variants').help.rstrip('.')}; files NAME-1, NAME-2, ...", metavar="N"),
]
Size = Annotated[str, typer.Option(help=option("size").help, metavar="SIZE")]
Lock = Annotated[bool, typer.Option("--lock/--no-lock", help=option("lock").help)]
Regions = Annotated[bool | None, typer.Option("--regions/--no-regions", help=option("regions").help)]
Model = Annotated[
    str,
    typer.Option(
        help="A name or path from `kontext models`, or a Hugging Face repository, which is downloaded.",
        metavar="NAME|PATH",
        envvar="KONTEXT_MODEL",
    ),
]
MergedLora = Annotated[
    list[str] | None,
    typer.Option("--lora", help="A LoRA file to merge, with its scale.", metavar="FILE[:SCALE]"),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        help="A LoRA with its scale: a file, or a name in KONTEXT_HOME/loras. Up to 8 times.",
        metavar="FILE[:SCALE]",
    ),
]
EveryLora = Annotated[
    list[str] | None,
    typer.Option("--lora", help="A LoRA applied to every edit.", metavar="FILE[:SCALE]"),
]
LoraFolder = Annotated[
    Path | None,
    typer.Option("--loras", help="Folder of LoRAs that requests may name.", metavar="FOLDER"),
]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda or mps; default: the best available.", metavar="D", envvar="KONTEXT_DEVICE"),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Memory limit on the device, such as 8GB; default: what is free.",
        metavar="auto|SIZE",
        envvar="KONTEXT_MEMORY",
    ),
]
Fp8 = Annotated[
    bool,
    typer.Option(
        "--fp8",
        help="Multiply in 8-bit floats in the transformer, an approximation; GPUs of NVIDIA from Ada on.",
        envvar="KONTEXT_FP8",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the transformer's blocks; the first edit of a size takes about a minute more.",
        envvar="KONTEXT_COMPILE",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder of sessions, jobs and pictures.", metavar="DIR", envvar="KONTEXT_HOME"
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print only warnings and errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def expanded(prompt: str, url: str | None, model: str | None, *, edits: bool) -> str:
    """The prompt, expanded at `--expand-prompt`. Raises BadRequest, Unavailable."""
    if url is None:
        if model is not None:
            raise BadRequest("--expand-model needs --expand-prompt URL")
        return prompt
    from kontext.prompt_expansion import PromptExpander

    return PromptExpander.from_environment(url, model).expand(prompt, edits=edits)


def fitting(expanded_prompt: str, prompt: str, editor: Editor, quiet: bool) -> str:
    """The expanded prompt, or the original with a warning if the expanded one is too long for the model."""
    if expanded_prompt == prompt:
        return prompt
    try:
        editor.prompts.check(expanded_prompt)
    except BadRequest as error:
        say(f"warning: not expanded: {error}", err=True)
        return prompt
    if not quiet:
        say(f"prompt: {expanded_prompt}", err=True)
    return expanded_prompt


def parse_box(text: str | None) -> tuple[int, int, int, int] | None:
    """Parse X,Y,W,H as four integers. Raises BadRequest."""
    if text is None:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise BadRequest(f"box must be X,Y,W,H in pixels, such as 10,20,64,64, got '{text}'") from None
    return x, y, width, height


def parse_switch(text: str, name: str) -> bool | None:
    """on or off, or None for no text. Raises BadRequest."""
    if text not in ("", "on", "off"):
        raise BadRequest(f"{text!r} is not on or off; such as /{name} off")
    return {"on": True, "off": False}.get(text)


def parse_picture(text: str) -> str | None:
    """The path of a picture that can be read, or None for no text. Raises KontextError."""
    from kontext import pictures
    from kontext.commands.inputs import check_file_name

    if not text:
        return None
    check_file_name(text)
    path = Path(text).expanduser()
    pictures.load(path)
    return str(path)


def download_model(model: str, quiet: bool = False) -> None:
    """Download a model that is on a hub and not here, with a progress line. Raises what `hub.pull` does."""
    from kontext.checkpoint.find import find_model
    from kontext.checkpoint.hub.names import parse

    if parse(model) is not None:
        with downloading(quiet) as on_progress:
            find_model(model, download=True, on_progress=on_progress)


@contextmanager
def downloading(quiet: bool = False) -> Iterator[Callable[[DownloadProgress], None]]:
    """An `on_progress` for downloads.

    A progress line on stderr, or one line at the start where stderr is not a terminal.
    """
    from kontext.checkpoint.hub.client import gigabytes

    live, last, first = is_interactive(sys.stderr), 0.0, None

    def on_progress(now: DownloadProgress) -> None:
        nonlocal last, first
        if quiet:
            return
        moment = time.monotonic()
        if first is None:
            first = (moment, now.done)
            if not live:
                say(f"downloading {now.name}, {gigabytes(now.total)}", err=True)
        if now.note and not live:
            say(now.note, err=True)
        if not live or (moment - last < DRAW_SECONDS and not now.note):
            return
        last = moment
        rate = (now.done - first[1]) / max(moment - first[0], 1e-3)
        speed = f", {gigabytes(rate)}/s, {_minutes((now.total - now.done) / rate)} left" if rate > 0 else ""
        words = now.note or f"{gigabytes(now.done)} of {gigabytes(now.total)}{speed}  {now.file}"
        draw(f"{now.name}  {words}"[: shutil.get_terminal_size().columns - 1])

    try:
        yield on_progress
    except KeyboardInterrupt:
        if first is None:
            raise
        raise KeyboardInterrupt("stopped; run the command again to resume") from None
    finally:
        if live and first is not None:
            draw("")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


@contextmanager
def progress(quiet: bool = False) -> Iterator[Callable[[StepInfo], None] | None]:
    """An `on_step` that draws a progress bar on stderr; None if stderr is not a terminal."""
    if quiet or not is_interactive(sys.stderr):
        yield None
        return
    full, empty = "━─" if (sys.stderr.encoding or "").lower().startswith("utf") else "#-"

    def on_step(step: StepInfo) -> None:
        filled = round(24 * step.index / step.steps)
        draw(f"{full * filled}{empty * (24 - filled)} {step.index}/{step.steps}")

    draw("loading")
    try:
        yield on_step
    finally:
        draw("")
