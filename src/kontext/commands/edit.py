"""`kontext edit PICTURE PROMPT`: one edit, or several variants of it, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kontext.commands import options
from kontext.errors import BadRequest

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def edit(
    picture: Annotated[
        Path, typer.Argument(help="The picture to edit.", metavar="PICTURE", show_default=False)
    ],
    prompt: Annotated[str, typer.Argument(help="What to change.", metavar="PROMPT", show_default=False)],
    output: options.Output = None,
    reference: options.Reference = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    size: Annotated[str, typer.Option(help="match, WxH or W:H.", metavar="SIZE")] = "match",
    box: Annotated[str | None, typer.Option(help="Edit only here, in pixels.", metavar="X,Y,W,H")] = None,
    mask: Annotated[Path | None, typer.Option(help="Edit only where this is white.", metavar="FILE")] = None,
    markup: Annotated[
        Path | None, typer.Option(help="Transparent overlay drawn over the picture.", metavar="FILE")
    ] = None,
    lock: Annotated[
        bool, typer.Option("--lock/--no-lock", help="Keep the original pixels where nothing changed.")
    ] = True,
    regions: Annotated[
        bool, typer.Option("--regions/--no-regions", help="Compute only where something changes.")
    ] = True,
    variants: options.Variants = 1,
    region: Annotated[
        Path | None, typer.Option(help="Save where the edit acted, as a mask.", metavar="FILE")
    ] = None,
    cutout: Annotated[
        Path | None, typer.Option(help="Save the changed part alone, on transparency.", metavar="FILE")
    ] = None,
    model: options.Model = "nano",
    lora: options.Lora = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Change a picture by a sentence; what the sentence does not name stays as it is."""
    from kontext.commands.output import Outputs
    from kontext.engine import pictures

    if (region or cutout) and not lock:
        raise BadRequest("--region and --cutout need the lock; leave --no-lock away")
    outputs = Outputs(
        output, picture.parent / f"{picture.stem}-edited.png", variants, picture, region, cutout
    )
    given = pictures.load(picture)  # a bad picture is told before the weights are read
    with options.progress() as on_step:
        from kontext.engine import Editor

        editor = Editor.load(model, device=device, lora=lora or ())
        results = editor.variants(
            given,
            prompt,
            variants,
            references=reference or (),
            seed=seed,
            steps=steps,
            guidance=guidance,
            size=size,
            box=options.parse_box(box),
            mask=mask,
            markup=markup,
            lock=lock,
            regions=regions,
            on_step=on_step,
        )
    outputs.write(results, as_json)
