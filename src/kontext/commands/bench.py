"""`kontext bench`: measure a model against exact answers, and compare two measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kontext.commands.bench_arguments import (
    choose_names,
    editor_for,
    figures_of,
    load_editor,
    own_steps,
    session_rows,
    step_counts,
)
from kontext.commands.bench_options import (
    QUALITY_ROWS,
    SESSION_ROWS,
    SHORT_ROWS,
    Force,
    JsonFile,
    Number,
    Report,
    Resume,
    Rows,
    Size,
    Steps,
)
from kontext.commands.bench_run import open_run, publish, write_text
from kontext.commands.options import Compile, Device, Fp8, Model
from kontext.commands.tables import track_items
from kontext.errors import BadRequest
from kontext.terminal import say

if TYPE_CHECKING:
    from kontext.bench.run import SpeedJson

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure quality, drift and speed."""


@app.command()
def quality(
    model: Model = "nano",
    n: Number = 40,
    split: Annotated[str, typer.Option(help="test,pairs,phrasing,words,chinese, or all.")] = "test",
    category: Annotated[
        str,
        typer.Option(
            help="Only these categories; several_references runs only if named.", metavar="NAME,..."
        ),
    ] = "all",
    steps: Steps = None,
    size: Size = None,
    rows: Annotated[str, Rows("Baselines, variants of the model, and diffusers.")] = QUALITY_ROWS,
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    resume: Resume = False,
    device: Device = None,
    fp8: Fp8 = False,
    compile: Compile = False,
) -> None:
    """Single edits of every category: success, preservation, IoU."""
    from kontext.bench import quality as suite
    from kontext.bench.items import CATEGORIES, SINGLE, SPLITS, size_for
    from kontext.bench.rows import row_names

    splits = choose_names(split, SPLITS, "split")
    categories = list(SINGLE) if category == "all" else choose_names(category, CATEGORIES, "category")
    row_names(rows.split(","), step_counts(steps))
    editor = editor_for(rows.split(","), model, device, fp8, compile)
    size = size_for(editor, size)
    names = row_names(rows.split(","), step_counts(steps) or [own_steps(editor)])
    settings = {"size": size, "n": n, "splits": splits, "categories": categories, "rows": names}
    settings |= {name: True for name, used in (("fp8", fp8), ("compile", compile)) if used}
    with open_run("quality", editor, model, settings, report, resume) as run:
        suite.measure(
            editor,
            run,
            n=n,
            size=size,
            rows=names,
            splits=splits,
            categories=categories,
            progress=track_items,
        )
        headline = {k: suite.FIGURES[k] for k in suite.HEADLINE}
        publish(
            run, model, suite.FIGURES, headline, json_file, report, lambda r: suite.sections(run, r, size)
        )


@app.command()
def region(
    model: Model = "nano",
    n: Number = 200,
    split: Annotated[str, typer.Option(help="test, phrasing, chinese; or all.")] = "test",
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    resume: Resume = False,
    device: Device = None,
) -> None:
    """Whether the model knows where an edit will act before painting it."""
    from kontext.bench import region as suite
    from kontext.bench.items import size_for

    splits = choose_names(split, suite.SPLITS, "split")
    editor = load_editor(model, device)
    if editor.model.preset.transformer.region_after is None:
        raise BadRequest(f"{model} has no region head")
    size = size_for(editor)
    settings = {"size": size, "n": n, "splits": splits}
    with open_run("region", editor, model, settings, report, resume) as run:
        suite.measure(editor, run, n=n, size=size, splits=splits, progress=track_items)
        publish(
            *(run, model, suite.FIGURES, suite.FIGURES, json_file, report),
            lambda r: suite.sections(run, r, size),
        )


@app.command()
def drift(
    model: Model = "nano",
    n: Number = 20,
    kinds: Annotated[str, typer.Option(help="edits, nothing, back; or all.", metavar="NAME,...")] = "all",
    steps: Steps = None,
    rows: Annotated[str, Rows("copy, codec, oracle, model, model+lock.")] = SESSION_ROWS,
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    resume: Resume = False,
    device: Device = None,
) -> None:
    """Ten rounds, each on the result of the previous round."""
    from kontext.bench import drift as suite
    from kontext.bench.items import size_for

    chosen = choose_names(kinds, suite.KINDS, "kind")
    editor = editor_for(rows.split(","), model, device)
    size = size_for(editor)
    names = session_rows(rows, steps, editor)
    settings = {"size": size, "n": n, "kinds": chosen, "rows": names}
    with open_run("drift", editor, model, settings, report, resume) as run:
        suite.measure(editor, run, n=n, size=size, rows=names, kinds=chosen, progress=track_items)
        publish(
            *(run, model, suite.FIGURES, suite.HEADLINE, json_file, report),
            lambda r: suite.sections(run, r, size),
        )


@app.command()
def identity(
    model: Model = "nano",
    n: Number = 20,
    steps: Steps = None,
    rows: Annotated[str, Rows("copy, codec, oracle, model, model+lock.")] = SESSION_ROWS,
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    resume: Resume = False,
    device: Device = None,
) -> None:
    """Whether a character stays the same, over ten rounds and in a new scene."""
    from kontext.bench import identity as suite
    from kontext.bench.items import size_for
    from kontext.bench.rows import row_names

    editor = editor_for(rows.split(","), model, device)
    size = size_for(editor)
    names = session_rows(rows, steps, editor)
    reference_rows = [{"codec": "codec-target"}.get(row, row) for row in rows.split(",")]
    by_reference = row_names(reference_rows, step_counts(steps) or [own_steps(editor)])
    settings = {"size": size, "n": n, "rows": names}
    with open_run("identity", editor, model, settings, report, resume) as run:
        suite.measure(
            editor, run, n=n, size=size, rows=names, reference_rows=by_reference, progress=track_items
        )
        publish(
            *(run, model, suite.FIGURES, suite.FIGURES, json_file, report),
            lambda r: suite.sections(run, r, size),
        )


@app.command()
def text(
    model: Model = "nano",
    n: Number = 40,
    split: Annotated[str, typer.Option(help="test, words, chinese, phrasing; or all.")] = "test,words",
    steps: Steps = None,
    rows: Annotated[str, Rows("Baselines and variants of the model.")] = SHORT_ROWS,
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    resume: Resume = False,
    device: Device = None,
) -> None:
    """Whether the letters are right."""
    from kontext.bench import text as suite
    from kontext.bench.items import SPLITS

    splits = choose_names(split, SPLITS, "split")
    _simple(suite, "text", model, n, steps, rows, json_file, report, resume, device, splits=splits)


@app.command()
def style(
    model: Model = "nano",
    n: Number = 40,
    steps: Steps = None,
    rows: Annotated[str, Rows("Baselines and variants of the model.")] = SHORT_ROWS,
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    resume: Resume = False,
    device: Device = None,
) -> None:
    """Whether style and content are right, and nothing was just copied."""
    from kontext.bench import style as suite

    _simple(suite, "style", model, n, steps, rows, json_file, report, resume, device)


@app.command()
def approximations(
    model: Model = "nano",
    n: Number = 12,
    steps: Annotated[int, typer.Option(min=4, max=200, help="Steps of the exact edit.")] = 28,
    size: Size = None,
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    device: Device = None,
    fp8: Fp8 = False,
    compile: Compile = False,
) -> None:
    """Time and error of --step-cache and --context-refresh, compared with fewer steps.

    With --fp8 also of products in 8-bit floats; the model is then loaded twice, one after the other.
    """
    from kontext.bench import approximations as suite
    from kontext.bench.items import size_for

    fp8_edits = None
    if fp8:
        editor = load_editor(model, device, fp8, compile)
        fp8_edits = suite.edits(editor, n=n, size=size_for(editor, size), steps=steps, progress=track_items)
        del editor
    editor = load_editor(model, device, compile=compile)
    size = size_for(editor, size)
    settings = {"size": size, "n": n, "steps": steps}
    settings |= {"compile": True} if compile else {}
    with open_run("approximations", editor, model, settings, report, False) as run:
        suite.measure(editor, run, n=n, size=size, steps=steps, fp8=fp8_edits, progress=track_items)
        publish(run, model, suite.FIGURES, suite.FIGURES, json_file, report, suite.sections)


@app.command()
def speed(
    model: Model = "nano",
    n: Number = 20,
    steps: Steps = None,
    size: Size = None,
    against: Annotated[
        str | None, typer.Option(help="diffusers: also time it with the same weights.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(min=2, max=57, help="Blocks of dev-random to use, 2 to 57; default: all.", metavar="N"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", metavar="N")] = None,
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    device: Device = None,
    fp8: Fp8 = False,
    compile: Compile = False,
) -> None:
    """Latency of one edit: p50, p95, stages, memory, cold start."""
    if against not in (None, "diffusers"):
        raise BadRequest(f"--against must be diffusers, got {against!r}")
    if against and fp8:
        raise BadRequest("--against compares equal products; omit --fp8, or measure it without --against")
    if against and compile:
        raise BadRequest("--against compares blocks that are not compiled; omit --compile or --against")
    import torch

    from kontext.bench import speed as suite
    from kontext.bench.items import size_for
    from kontext.bench.peer import as_full
    from kontext.checkpoint.random_weights import DEV_RANDOM, is_dev_random
    from kontext.engine.context import device_of, parameter_type

    if threads:
        torch.set_num_threads(threads)
    if layers is not None:
        if model != DEV_RANDOM:
            raise BadRequest(f"--layers needs --model {DEV_RANDOM}, got {model}")
        model = f"{model}:{layers}"
    editor = load_editor(model, device, fp8, compile)
    size, counts = size_for(editor, size), step_counts(steps) or [own_steps(editor)]
    settings = {"size": size, "n": n, "steps": counts, "threads": torch.get_num_threads()}
    if against:
        as_full(editor.model)  # a network that diffusers does not have is refused before anything is timed
    device = str(device_of(editor.model))
    settings |= {"device": device, "dtype": str(parameter_type(editor.model.transformer)), "fp8": fp8}
    settings |= {"compile": compile}
    with open_run("speed", editor, model, settings, report, False) as run:
        latency = suite.measure(editor, run, runs=n, size=size, steps=counts, progress=track_items)
        more: SpeedJson = {"latency": latency, "memory MiB": round(suite.memory_mib(device), 1)}
        if not is_dev_random(model):  # without files, a start says nothing
            more |= suite.cold_starts(
                model, size, editor.model if against else None, fp8=fp8, compile=compile
            )
        if against:
            more["diffusers"] = suite.against_diffusers(
                editor, run, pairs=n, size=size, steps=counts[-1], progress=track_items
            )
        publish(run, model, suite.FIGURES, suite.FIGURES, json_file, report, suite.sections, more)
        for name, value in more.items():
            say(f"{name}: {json.dumps(value)}")


@app.command()
def kontextbench(
    folder: Annotated[Path, typer.Argument(help="KontextBench, GEdit-Bench or ImgEdit-Bench, as published.")],
    model: Model = "nano",
    n: Annotated[int | None, typer.Option("--n", min=1, help="Only the first tasks.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: the model's own.", metavar="N")] = None,
    judge: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint, such as http://host/v1.", metavar="URL")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="The vision model there.", metavar="NAME")] = "gpt-4o",
    judge_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 120.0,
    against: Annotated[
        Path | None, typer.Option(help="Results of another system, for pairwise judging.", metavar="DIR")
    ] = None,
    json_file: JsonFile = None,
    force: Force = False,
    report: Report = None,
    resume: Resume = False,
    device: Device = None,
    fp8: Fp8 = False,
    compile: Compile = False,
) -> None:
    """Run a published benchmark; with --judge, have a vision model score it (key: KONTEXT_JUDGE_KEY)."""
    from kontext.bench import kontextbench as suite
    from kontext.bench.judge import Judge

    vision_judge = None
    if judge:
        vision_judge = Judge.from_environment(judge, judge_model, timeout_seconds=judge_timeout)
    if against and not judge:
        raise BadRequest("--against needs a judge; give --judge URL")
    editor = load_editor(model, device, fp8, compile)
    settings = {"folder": str(folder), "n": n, "steps": steps, "judge": judge and f"{judge} {judge_model}"}
    settings |= {name: True for name, used in (("fp8", fp8), ("compile", compile)) if used}
    with open_run("kontextbench", editor, model, settings, report, resume) as run:
        suite.measure(
            editor, run, folder, judge=vision_judge, against=against, n=n, steps=steps, progress=track_items
        )
        publish(
            *(run, model, suite.FIGURES, suite.FIGURES, json_file, report),
            lambda r: suite.sections(run, folder, r),
        )


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="JSON of the first run.", metavar="A.json")],
    second: Annotated[Path, typer.Argument(help="JSON of the second run.", metavar="B.json")],
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Paired differences, second run minus first, with 95 % intervals."""
    from kontext.bench import compare as pairs

    before, after = pairs.load(first), pairs.load(second)
    figures = figures_of(before["suite"])
    differences = pairs.compare(before, after, figures)
    if not differences:
        raise BadRequest(f"{first} and {second} have no row and item in common")
    for row, splits in differences.items():
        for split, cells in splits.items():
            say(f"{row}, {split} ({max(c.n for c in cells.values())} items)")
            for name, d in cells.items():
                f = figures[name]
                interval = f"{f.show(d.low)} to {f.show(d.high)}"
                say(f"  {f.label:16} {f.show(d.mean):>8}  ({interval})  {pairs.verdict(d, f)}")
    if json_file:
        plain = {
            row: {split: {k: d.as_json() for k, d in cells.items()} for split, cells in splits.items()}
            for row, splits in differences.items()
        }
        write_text(json_file, json.dumps(plain, indent=1))


@app.command()
def headline(model: Model = "nano", n: Number = 12, device: Device = None) -> None:
    """Success, preservation, ten rounds and speed of one model, in a few minutes."""
    quality(model=model, n=n, rows="copy,codec-target,oracle,model+lock", device=device)
    drift(model=model, n=max(2, n // 3), kinds="edits", rows="codec,model+lock", device=device)
    speed(model=model, n=10, device=device)


def _simple(
    suite: Any,
    name: str,
    model: str,
    n: int,
    steps: str | None,
    rows: str,
    json_file: Path | None,
    report: Path | None,
    resume: bool,
    device: str | None,
    **more: Any,
) -> None:
    """The suites that have items and rows like those of ``quality``."""
    from kontext.bench.items import size_for
    from kontext.bench.rows import row_names

    editor = editor_for(rows.split(","), model, device)
    size = size_for(editor)
    names = row_names(rows.split(","), step_counts(steps) or [own_steps(editor)])
    with open_run(name, editor, model, {"size": size, "n": n, "rows": names, **more}, report, resume) as run:
        suite.measure(editor, run, n=n, size=size, rows=names, progress=track_items, **more)
        publish(
            *(run, model, suite.FIGURES, suite.FIGURES, json_file, report),
            lambda r: suite.sections(run, r, size),
        )
