"""Which file of a folder holds the weights: one file or an index of shards, of a variant or not."""

from __future__ import annotations

import re
from pathlib import Path

from kontext.checkpoint.tensors import SAFETENSORS, read_index, refuse_code
from kontext.errors import BadCheckpoint

COMPONENT_FILES = ("diffusion_pytorch_model", "model")
"""Names that `diffusers` and `transformers` give to a component's tensors."""

VARIANTS = ("", "bf16", "fp16")
"""Variants of a component's files (`model.fp16.safetensors`), best first; others come after these."""
_COMPONENT = re.compile(
    rf"(?:{'|'.join(COMPONENT_FILES)})(?:\.(?P<file>[\w-]+))?\.(?:safetensors|sft)"
    rf"|(?:{'|'.join(COMPONENT_FILES)})\.safetensors(?P<index>\.index)(?:\.(?P<variant>[\w-]+))?\.json"
)
SHARD = re.compile(r"-0*(\d+)-of-0*(\d+)")


def is_weights(path: Path) -> bool:
    return path.suffix.lower() in (*SAFETENSORS, ".gguf") and path.is_file()


def weights_file(folder: Path) -> Path:
    """The tensors of a component's folder: the index of shards that are all there, or else one file."""
    found: list[tuple[tuple[int, bool, str], Path]] = []
    files = sorted(folder.iterdir())
    for file in files:
        match = _COMPONENT.fullmatch(file.name)
        if match is None or not file.is_file() or SHARD.search(file.name):
            continue
        variant = (match["variant"] if match["index"] else match["file"]) or ""
        order = VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS)
        incomplete = bool(match["index"]) and not _is_complete(file)
        found.append(((order + 10 * incomplete, not match["index"], file.name), file))
    if found:
        return min(found)[1]
    if any(SHARD.search(file.name) and is_weights(file) for file in files):
        raise BadCheckpoint(f"{folder}: holds shards without their .safetensors.index.json; get that too")
    for file in files:
        refuse_code(file)
    raise BadCheckpoint(f"{folder}: holds no diffusion_pytorch_model.safetensors or model.safetensors")


def _is_complete(index: Path) -> bool:
    try:
        return all((index.parent / file).is_file() for file in set(read_index(index).values()))
    except BadCheckpoint:
        return False
