"""`kontext generate PROMPT`: generate a picture from text."""

from __future__ import annotations

from typing import Annotated

import typer

from kontext.commands import options
from kontext.commands.options import STDOUT
from kontext.errors import BadRequest

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to generate.", metavar="PROMPT", show_default=False)],
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
    size: Annotated[
        str | None, typer.Option(help="WxH or W:H; default: the model's own.", metavar="SIZE")
    ] = None,
    variants: options.Variants = 1,
    expand_prompt: options.ExpandPrompt = None,
    expand_model: options.ExpandModel = None,
    model: options.Model = "nano",
    lora: options.Lora = None,
    device: options.Device = None,
    memory: options.Memory = None,
    fp8: options.Fp8 = False,
    compile: options.Compile = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Generate a picture from text.

    Without -o the result is generated.png here, or the next free name: generated-2.png, and so on.
    Variants are NAME-1.png, NAME-2.png, and so on.
    """
    from kontext.commands import inputs
    from kontext.commands.output import Outputs, describe, show
    from kontext.engine import EditRequest
    from kontext.engine.checks import check_request, check_variants
    from kontext.engine.requests import GenerateOptions
    from kontext.terminal import say_json

    check_variants(variants)
    if as_json and output == STDOUT:
        raise BadRequest("--json and the picture cannot both go to standard output; give -o FILE")
    references = inputs.files(reference)
    outputs = Outputs(output, "generated.png", variants, inputs=references, force=force)
    common: GenerateOptions = {
        "references": references,
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
        "size": size,
        "loras": lora or (),
    }
    check_request(EditRequest(prompt=prompt, lock=False, **common), variants)
    used_prompt = options.expanded(prompt, expand_prompt, expand_model, edits=False)
    try:
        options.download_model(model, quiet)
        with options.progress(quiet) as on_step:
            from kontext.engine import Editor

            editor = Editor.load(model, device=device, memory=memory, canvas=canvas, fp8=fp8, compile=compile)
        used_prompt = options.fitting(used_prompt, prompt, editor, quiet)
        with options.progress(quiet) as on_step:
            results = editor.variants(None, used_prompt, variants, lock=False, on_step=on_step, **common)
        names = outputs.write(results)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; nothing was written") from None
    if as_json:
        say_json(describe(results, names, None if used_prompt == prompt else used_prompt))
    else:
        show(results, names, generated=True, quiet=quiet)
