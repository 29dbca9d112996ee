"""`kontext generate PROMPT`: a picture from words, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kontext.commands import options

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to show.", metavar="PROMPT", show_default=False)],
    output: options.Output = None,
    reference: options.Reference = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    size: Annotated[
        str | None, typer.Option(help="WxH or W:H; default: the model's own.", metavar="SIZE")
    ] = None,
    variants: options.Variants = 1,
    model: options.Model = "nano",
    lora: options.Lora = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Make a picture from words."""
    from kontext.commands.output import Outputs

    outputs = Outputs(output, Path("generated.png"), variants)
    with options.progress() as on_step:
        from kontext.engine import Editor

        results = Editor.load(model, device=device, lora=lora or ()).variants(
            None,
            prompt,
            variants,
            references=reference or (),
            seed=seed,
            steps=steps,
            guidance=guidance,
            size=size,
            lock=False,
            on_step=on_step,
        )
    outputs.write(results, as_json)
