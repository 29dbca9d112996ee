"""`kontext weights inspect|convert|quantize`: inspect and convert files of weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kontext.commands import options
from kontext.terminal import say, say_json

if TYPE_CHECKING:
    from kontext.checkpoint import Checkpoint

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(help="A model's name, file or folder.", metavar="SOURCE", show_default=False)
]


@app.callback()
def weights() -> None:
    """Inspect, convert and quantize weights."""


@app.command()
def inspect(source: Source, as_json: options.Json = False) -> None:
    """Show layout, model, parameters, types and missing parts of weights, or the properties of a LoRA."""
    from kontext.checkpoint import open_checkpoint
    from kontext.checkpoint.find import find_model
    from kontext.checkpoint.lora_inspect import describe_lora

    path = find_model(source)
    lora = describe_lora(path)
    if lora is None:
        _show(open_checkpoint(path), as_json)
    elif as_json:
        say_json(lora)
    else:
        _show_lora(lora)


@app.command()
def convert(
    source: Source,
    destination: Annotated[
        Path,
        typer.Argument(
            help="A new folder for a whole model, or a new .safetensors file for one part.",
            metavar="DESTINATION",
            show_default=False,
        ),
    ],
    to: Annotated[str, typer.Option(help="bfl, diffusers or kontext.", metavar="LAYOUT")] = "kontext",
    lora: options.MergedLora = None,
    shard: Annotated[
        float | None, typer.Option(help="Split larger files, with an index.", metavar="MIB")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--type", help="float32, float16 or bfloat16; default: as stored.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Convert weights to another layout, optionally with LoRAs merged into them."""
    from kontext.checkpoint.convert import convert

    shard_bytes = int(shard * 2**20) if shard else None
    converted = convert(source, destination, to, lora or (), shard_bytes=shard_bytes, dtype=dtype)
    _show(converted, as_json)


@app.command()
def quantize(
    source: Source,
    destination: Annotated[
        Path, typer.Argument(help="A new .gguf file.", metavar="DESTINATION", show_default=False)
    ],
    kind: Annotated[
        str, typer.Option("--type", help="Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, BF16 or F16.", metavar="TYPE")
    ] = "Q8_0",
    as_json: options.Json = False,
) -> None:
    """Quantize the transformer to a GGUF file."""
    from kontext.checkpoint.convert import quantize

    _show(quantize(source, destination, kind), as_json)


def _show_lora(data: dict[str, Any]) -> None:
    """Print the result of `describe_lora`."""
    say(f"{data['path']}  {data['kind']} for {data['model'] or 'an unknown model'}")
    for part, count in data["modules"].items():
        say(f"  {part:<12} {count:>5} modules")
    if data["ranks"]:
        say(f"  rank         {', '.join(map(str, data['ranks']))}")
    say(f"  alpha        {data['alpha'] or 'not given: the rank'}")
    for warning in data["warnings"]:
        say(f"  note: {warning}")


def _show(found: Checkpoint, as_json: bool) -> None:
    data = describe(found)
    if as_json:
        say_json(data)
        return
    say(f"{found.path}  layout {data['layout']}, model {data['model']}")
    for name, part in data["parts"].items():
        types = ", ".join(part["types"])
        say(f"  {name:<12} {part['tensors']:>5} tensors {part['parameters']:>15,} parameters  {types}")
        if not part["fits"]:
            say(f"    does not fit: {found.parts[name].report}")
    if data["absent"]:
        say(f"  absent       {', '.join(data['absent'])}")
    for warning in found.warnings:
        say(f"  note: {warning}")


def describe(found: Checkpoint) -> dict[str, Any]:
    """A checkpoint as plain data."""
    parts = {}
    for name, part in found.parts.items():
        report = part.report
        parts[name] = {
            "file": str(part.source),
            "layout": part.layout,
            "tensors": len(part.tensors),
            "parameters": part.parameters,
            "types": part.dtypes,
            "fits": not report,
            "missing": report.missing,
            "unexpected": report.unexpected,
            "wrong_shape": report.wrong_shape,
            "wrong_type": report.wrong_type,
        }
    return {
        "path": str(found.path),
        "layout": found.layout,
        "model": found.preset.name,
        "parts": parts,
        "absent": found.absent,
        "warnings": found.warnings,
    }
