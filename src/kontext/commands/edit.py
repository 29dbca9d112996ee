"""`kontext edit PICTURE... PROMPT`: one edit of one or several pictures, or several variants of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kontext.commands import options
from kontext.commands.options import STDOUT
from kontext.errors import BadRequest

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def edit(
    picture: Annotated[
        list[str],
        typer.Argument(
            help="The pictures to edit: files, patterns, or - for standard input.",
            metavar="PICTURE",
            show_default=False,
        ),
    ],
    prompt: Annotated[str, typer.Argument(help="What to change.", metavar="PROMPT", show_default=False)],
    output: options.Output = None,
    force: options.Force = False,
    reference: options.Reference = None,
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
    box: Annotated[str | None, typer.Option(help="Edit only this box, in pixels.", metavar="X,Y,W,H")] = None,
    mask: Annotated[
        str | None, typer.Option(help="Edit only where this mask is white.", metavar="FILE")
    ] = None,
    markup: Annotated[
        str | None, typer.Option(help="Transparent overlay drawn over the picture.", metavar="FILE")
    ] = None,
    lock: options.Lock = True,
    regions: options.Regions = None,
    variants: options.Variants = 1,
    expand_prompt: options.ExpandPrompt = None,
    expand_model: options.ExpandModel = None,
    region: Annotated[
        Path | None, typer.Option(help="Save the edited region as a mask.", metavar="FILE")
    ] = None,
    cutout: Annotated[
        Path | None, typer.Option(help="Save the changed part on a transparent background.", metavar="FILE")
    ] = None,
    model: options.Model = "nano",
    lora: options.Lora = None,
    device: options.Device = None,
    memory: options.Memory = None,
    fp8: options.Fp8 = False,
    compile: options.Compile = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Edit a picture by a text instruction; what it does not mention stays unchanged.

    Without -o the result is PICTURE-edited.png next to the picture (standard output for -), or the next free
    name: PICTURE-edited-2.png, and so on. Variants are NAME-1.png, NAME-2.png, and so on.
    """
    from kontext.commands import inputs
    from kontext.commands.output import Outputs, describe, show
    from kontext.engine import EditRequest
    from kontext.engine.checks import check_request, check_variants
    from kontext.engine.requests import EditOptions
    from kontext.terminal import say_json

    check_variants(variants)
    if (region or cutout) and not lock:
        raise BadRequest("--region and --cutout need the lock; omit --no-lock")
    found = inputs.sources(picture)
    if len(found) > 1 and (region or cutout):
        raise BadRequest("--region and --cutout need a single picture; edit the pictures one by one")
    if len(found) > 1 and output and not Path(output).is_dir():
        raise BadRequest(f"{output}: several pictures need an existing folder; give -o FOLDER")
    if as_json and (output == STDOUT or (output is None and found[0].path is None)):
        raise BadRequest("--json and the picture cannot both go to standard output; give -o FILE")

    other_inputs = inputs.files([*(reference or ()), *(path for path in (mask, markup) if path)])
    common: EditOptions = {
        "references": reference or (),
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
        "loras": lora or (),
        "box": options.parse_box(box),
        "mask": mask,
        "markup": markup,
        "lock": lock,
        "regions": regions,
    }
    taken: set[str] = set()
    work = []
    for source in found:  # validate everything before loading the weights
        here = source.path or Path("stdin.png")
        outputs = Outputs(
            output or (STDOUT if source.path is None else None),
            here.with_name(f"{here.stem}-edited.png"),
            variants,
            source=source.content,
            region=region,
            cutout=cutout,
            inputs=[*other_inputs, *(found_source.name for found_source in found)],
            force=force,
            taken=taken,
        )
        check_request(EditRequest(prompt=prompt, picture=source.content, **common), variants)
        work.append((source, outputs))

    answers, written = [], 0
    used_prompt = options.expanded(prompt, expand_prompt, expand_model, edits=True)
    try:
        options.download_model(model, quiet)
        with options.progress(quiet) as on_step:
            from kontext.engine import Editor

            editor = Editor.load(model, device=device, memory=memory, canvas=canvas, fp8=fp8, compile=compile)
        used_prompt = options.fitting(used_prompt, prompt, editor, quiet)
        told_prompt = None if used_prompt == prompt else used_prompt
        for source, outputs in work:
            with options.progress(quiet) as on_step:
                results = editor.variants(source.content, used_prompt, variants, on_step=on_step, **common)
            names = outputs.write(results)
            written += 1
            if not as_json:
                name = source.name if len(work) > 1 else ""
                show(results, names, generated=False, quiet=quiet, of=name)
            elif len(work) == 1:
                say_json(describe(results, names, told_prompt))
            else:
                answers.append({"picture": source.name, **describe(results, names, told_prompt)})
    except KeyboardInterrupt:
        summary = f"{written} of {len(work)} pictures were written" if written else "nothing was written"
        raise KeyboardInterrupt(f"stopped; {summary}") from None
    if answers:
        say_json({"pictures": answers})
