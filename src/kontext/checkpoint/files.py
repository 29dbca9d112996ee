"""Finds the weights of a folder: one file or an index of shards, with or without a variant."""

from __future__ import annotations

from pathlib import Path

from kontext.checkpoint.file_names import COMPONENT, SAFETENSORS, SHARD, variant_order
from kontext.checkpoint.tensors import read_index, refuse_code
from kontext.errors import BadCheckpoint


def is_weights(path: Path) -> bool:
    return path.suffix.lower() in (*SAFETENSORS, ".gguf") and path.is_file()


def weights_file(folder: Path) -> Path:
    """The weights of a component's folder: the index of complete shards, one file, or one GGUF file."""
    found: list[tuple[tuple[int, bool, str], Path]] = []
    files = sorted(folder.iterdir())
    for file in files:
        match = COMPONENT.fullmatch(file.name)
        if match is None or not file.is_file() or SHARD.search(file.name):
            continue
        order, _ = variant_order(match)
        incomplete = bool(match["index"]) and not _is_complete(file)
        found.append(((order + 10 * incomplete, not match["index"], file.name), file))
    if found:
        return min(found)[1]
    quantized = [file for file in files if file.suffix.lower() == ".gguf" and file.is_file()]
    if len(quantized) == 1:
        return quantized[0]
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
