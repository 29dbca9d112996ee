"""`kontext world`: inspect the illustrated world that the models are trained and measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kontext.commands import options
from kontext.terminal import say

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

Output = Annotated[
    Path, typer.Argument(help="Picture to write: .png, .jpg or .webp.", metavar="OUT", show_default=False)
]
Seed = Annotated[str, typer.Option(help="The same seed gives the same pictures.")]
Split = Annotated[str, typer.Option(help="train, test, pairs, phrasing or words.")]
Kind = Annotated[str | None, typer.Option(help="Only this kind of edit.")]
Category = Annotated[str | None, typer.Option(help="Only this category.")]


@app.command()
def sheet(
    output: Output,
    rows: Annotated[int, typer.Option(min=1, help="Samples, if a kind or category is given.")] = 24,
    each: Annotated[int, typer.Option(min=1, help="Samples per kind, otherwise.")] = 1,
    seed: Seed = "0",
    split: Split = "train",
    kind: Kind = None,
    category: Category = None,
    force: options.Force = False,
) -> None:
    """Draw a contact sheet: source, instruction, mask and target for every kind of edit."""
    from kontext import pictures
    from kontext.commands.output import check_new
    from kontext.world import World
    from kontext.world.sheets import contact_sheet, every_kind

    pictures.check_writable(output)
    check_new(output, force)
    world = World()
    if kind or category:
        samples = [world.sample(f"{seed}/{row}", split, category, kind) for row in range(rows)]
    else:
        samples = every_kind(world, seed, each, split)
    pictures.save(contact_sheet(samples), output)
    say(f"{output}: {len(samples)} samples")


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", metavar="FOLDER", show_default=False)],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 1,
    seed: Seed = "0",
    split: Split = "train",
    kind: Kind = None,
    category: Category = None,
    force: options.Force = False,
) -> None:
    """Write samples: source, target and mask as PNG, the rest as lines of samples.jsonl."""
    import json

    from PIL import Image

    from kontext import pictures
    from kontext.commands.output import check_new
    from kontext.world import World

    table = folder / "samples.jsonl"
    check_new(table, force)
    world = World()
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        drawn = world.sample(f"{seed}/{index}", split, category, kind)
        planes = {"source": drawn.source, "target": drawn.target, "mask": drawn.mask}
        planes |= {f"reference{i}": picture for i, picture in enumerate(drawn.references)}
        files = {}
        for name, pixels in planes.items():
            if pixels is not None:
                files[name] = f"{index:05d}_{name}.png"
                pictures.save(Image.fromarray(pixels), folder / files[name])
        fields = (
            "english",
            "chinese",
            "category",
            "kind",
            "value",
            "labels",
            "before",
            "after",
            "seed",
            "split",
        )
        sample_fields = {key: getattr(drawn, key) for key in fields}
        lines.append(json.dumps({**files, **sample_fields}, ensure_ascii=False))
    pictures.write(table, ("\n".join(lines) + "\n").encode())
    say(f"{folder}: {count} samples")


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", metavar="FOLDER", show_default=False)],
    packages: Annotated[Path, typer.Option(help="The node_modules folder with icons and fonts.")] = Path(
        "node_modules"
    ),
) -> None:
    """Build the art pack from the published packages (see kontext/world/drawing/pack.py)."""
    from kontext.world.drawing.pack import build_pack

    for path in build_pack(packages, folder):
        say(f"{path} {path.stat().st_size}")


@app.command()
def count() -> None:
    """Count the distinct things that the world can draw."""
    from kontext.world.variety import variety

    for name, number in variety().items():
        say(f"{name:<24}{number:>12.4g}")
