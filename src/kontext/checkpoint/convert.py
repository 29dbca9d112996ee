"""Converts between layouts and quantizes, tensor by tensor: a 24 GB file needs little memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from kontext.checkpoint import save
from kontext.checkpoint.file_names import SAFETENSORS
from kontext.checkpoint.find import find_model
from kontext.checkpoint.gguf_files import write_gguf
from kontext.checkpoint.layouts import Checkpoint, open_checkpoint
from kontext.checkpoint.lora import merged
from kontext.checkpoint.tensors import cast
from kontext.errors import BadCheckpoint, BadRequest

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FOLDERS = {"kontext": save.write_kontext, "diffusers": save.write_diffusers, "bfl": save.write_bfl}
"""Writers of a whole model, by layout."""


def convert(
    source: str | Path,
    destination: Path,
    layout: str,
    lora: Sequence[str | Path] = (),
    shard_bytes: int | None = None,
    dtype: str | None = None,
    replace: bool = False,
) -> Checkpoint:
    """Write the model at `source` to `destination` in a layout: "kontext", "diffusers" or "bfl".

    lora: LoRA files to merge, each FILE or FILE:scale. shard_bytes: larger files of the kontext layout are
    split into shards with an index. dtype: float32, float16 or bfloat16; None: as stored. replace: overwrite
    a model at the destination.

    A destination named `*.safetensors` receives a single part; any other is a new folder for a whole model.
    Returns the opened result; its warnings name what was omitted of the LoRAs. Raises BadRequest for an
    impossible destination, BadCheckpoint for a source that does not fit or is incomplete.
    """
    if layout not in FOLDERS:
        raise BadRequest(f"layout {layout!r} is unknown; possible: {', '.join(FOLDERS)}")
    if not replace:
        _refuse_existing(destination)
    one_file = destination.suffix.lower() in SAFETENSORS
    path = find_model(source)
    found = open_checkpoint(path, companions=path.is_dir() or not one_file)
    warnings: list[str] = []
    parts = merged({name: part.weights for name, part in found.parts.items()}, lora, warnings)
    if dtype is not None:
        if dtype not in DTYPES:
            raise BadRequest(f"type {dtype!r} is unknown; possible: {', '.join(DTYPES)}")
        parts = {name: cast(weights, DTYPES[dtype]) for name, weights in parts.items()}
    if not one_file:
        if found.absent:
            raise BadCheckpoint(
                f"{found.path.name}: a folder holds a whole model, and the {', the '.join(found.absent)} "
                "could not be found; name a .safetensors file to convert one part"
            )
        if shard_bytes is not None and layout == "kontext":
            save.write_kontext(destination, found.preset, parts, found.tokenizers, shard_bytes)
        elif shard_bytes is not None:
            raise BadRequest(f"only the kontext layout is written in shards, not {layout}")
        else:
            FOLDERS[layout](destination, found.preset, parts, found.tokenizers)
    elif len(parts) == 1 and layout != "kontext":
        [(part, weights)] = parts.items()
        save.write_file(destination, found.preset, part, weights, layout)
    else:
        raise BadRequest(
            f"{destination.name} can hold one part in the bfl or diffusers layout, and {found.path.name} has "
            f"{', '.join(parts)}; give a folder instead"
        )
    written = open_checkpoint(destination, companions=not one_file)
    written.warnings += warnings
    return written


def quantize(source: str | Path, destination: Path, kind: str) -> Checkpoint:
    """Write the transformer at `source` as a GGUF file with matrices of type `kind`, such as Q8_0."""
    if destination.suffix != ".gguf":
        raise BadRequest(f"{destination.name}: quantized weights are written as .gguf; name the file so")
    _refuse_existing(destination)
    found = open_checkpoint(find_model(source), companions=False)
    if "transformer" not in found.parts:
        raise BadCheckpoint(f"{found.path.name}: holds no transformer, which is what is quantized")
    write_gguf(destination, found.parts["transformer"].weights, kind, save.preset_text(found.preset))
    return open_checkpoint(destination, companions=False)


def _refuse_existing(destination: Path) -> None:
    if destination.exists():
        raise BadRequest(f"{destination} is there already; name another, or remove it first")
