"""`kontext batch FOLDER|TABLE PROMPT -o FOLDER`: edit many pictures; run it again to resume."""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from kontext.commands import inputs, options
from kontext.options import offered
from kontext.terminal import draw, is_interactive, say, say_json

if TYPE_CHECKING:
    from kontext.engine import Editor
    from kontext.engine.requests import EditOptions

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of pictures, or a .csv or .jsonl table with a column picture and, optionally, "
            f"prompt, output, {', '.join(option.name for option in offered('table'))}.",
            metavar="FOLDER|TABLE",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Output folder.", metavar="FOLDER", show_default=False),
    ],
    prompt: Annotated[
        str, typer.Argument(help="What to change in each picture.", metavar="PROMPT", show_default=False)
    ] = "",
    workers: Annotated[
        int, typer.Option(help="Worker processes, each with its own model.", min=1, metavar="N")
    ] = 1,
    format: Annotated[str, typer.Option(help="png, jpg or webp.", metavar="FORMAT")] = "png",
    seed: options.Seed = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    context_refresh: options.ContextRefresh = None,
    step_cache: options.StepCache = None,
    canvas: options.Canvas = None,
    guidance: options.Guidance = None,
    negative_prompt: options.NegativePrompt = None,
    true_guidance: options.TrueGuidance = None,
    nag: options.Nag = None,
    guidance_steps: options.GuidanceSteps = None,
    reference_layout: options.ReferenceLayout = None,
    strength: options.Strength = None,
    expand: options.Expand = None,
    size: options.Size = "match",
    reference: options.Reference = None,
    lock: options.Lock = True,
    regions: options.Regions = None,
    lora: options.Lora = None,
    sign: Annotated[bool, typer.Option("--sign", help="Sign PNG files (extra `provenance`).")] = False,
    model: options.Model = "nano",
    device: options.Device = None,
    memory: options.Memory = None,
    fp8: options.Fp8 = False,
    compile: options.Compile = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Edit many pictures. Failures are listed (exit code 1) and retried by the next run."""
    from kontext.batch.run import Progress, run
    from kontext.batch.tasks import from_folder, from_table
    from kontext.engine.checks import check_settings
    from kontext.errors import BadRequest
    from kontext.loras import parse as parse_loras

    ending = "." + format.removeprefix(".").lower()
    if ending not in (".png", ".jpg", ".jpeg", ".webp"):
        raise BadRequest(f"format must be png, jpg or webp, got {format!r}")
    if sign:
        from kontext.session.signing import own_identity

        own_identity()  # created once before the workers start, and fails early if the extra is missing
    values = {
        "seed": seed,
        "steps": steps,
        "sampler": sampler,
        "context_refresh": context_refresh,
        "step_cache": step_cache,
        "canvas": canvas,
        "guidance": guidance,
        "negative_prompt": negative_prompt,
        "true_guidance": true_guidance,
        "nag": nag,
        "guidance_steps": guidance_steps,
        "reference_layout": reference_layout,
        "strength": strength,
        "expand": expand,
        "size": size,
        "lock": lock,
    }
    settings: dict[str, object] = {key: value for key, value in values.items() if value is not None}
    if regions is not None:  # only where it is given: it names the task in the journal
        settings["regions"] = regions
    if reference:
        settings["references"] = [str(Path(name).resolve()) for name in inputs.files(reference)]
    if lora:
        settings["loras"] = [item.to_json() for item in parse_loras(lora)]
    check_settings(prompt or "each row has its own", cast("EditOptions", settings))
    if source.is_dir():
        tasks = from_folder(source, prompt, settings, ending, output)
    else:
        tasks = from_table(source, prompt, settings, ending)

    start, live = time.monotonic(), is_interactive(sys.stderr)
    reported = 0

    def show(progress: Progress) -> None:
        nonlocal reported
        for failure in progress.failed[reported:]:
            if live:
                draw("")
            say(f"failed: {failure.picture}: {failure.reason}", err=True)
        reported = len(progress.failed)
        finished = progress.done + reported
        if live:
            completed = finished - progress.before
            remaining = progress.total - finished
            left = remaining * (time.monotonic() - start) / completed if completed else 0
            minutes = f", about {left / 60:.0f} min left" if left > 60 else ""
            draw(f"{finished} of {progress.total}{minutes}")

    shared = {task.prompt for task in tasks}
    load = functools.partial(
        load_editor,
        model,
        device,
        memory,
        canvas,
        fp8,
        compile,
        prompt=shared.pop() if len(shared) == 1 else None,
    )
    try:
        options.download_model(model)  # before the workers want it
        progress = run(tasks, output, load, model=model, workers=workers, sign=sign, on_progress=show)
    except KeyboardInterrupt:
        if live:
            draw("")
        raise KeyboardInterrupt("stopped; run the same command again to resume") from None
    seconds = time.monotonic() - start
    if live:
        draw("")
    if as_json:
        answer = {"output": str(output), "seconds": round(seconds, 3), **asdict(progress)}
        say_json(answer)
    else:
        earlier = f" ({progress.before} by earlier runs)" if progress.before else ""
        failed = f", {len(progress.failed)} failed" if progress.failed else ""
        say(f"{progress.done} of {progress.total} pictures are in {output}{earlier}{failed}, {seconds:.1f} s")
    raise typer.Exit(1 if progress.failed else 0)


def load_editor(
    model: str,
    device: str | None,
    memory: str | None = None,
    canvas: int | None = None,
    fp8: bool = False,
    compile: bool = False,
    prompt: str | None = None,
) -> Editor:
    """The editor of one worker process. Raises BadRequest for a prompt that is too long for its model."""
    from kontext.engine import Editor

    editor = Editor.load(model, device=device, memory=memory, canvas=canvas, fp8=fp8, compile=compile)
    if prompt is not None:
        editor.prompts.check(prompt)
    return editor
