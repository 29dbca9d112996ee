"""Describes a LoRA file without a model to merge it into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kontext.checkpoint import lora_names
from kontext.checkpoint.file_names import SAFETENSORS
from kontext.checkpoint.lora import is_peft, lora_file
from kontext.checkpoint.lora_strength import read_strengths
from kontext.checkpoint.recognize import is_lora, lora_model
from kontext.checkpoint.tensors import read_safetensors, summarize
from kontext.errors import NotFound

_KINDS = (("magnitude", "DoRA"), ("hada_w1_a", "LoHa"), ("lokr_w1", "LoKr"), ("lokr_w1_a", "LoKr"))


def describe_lora(path: Path) -> dict[str, Any] | None:
    """Kind, model, ranks, and the location of alpha, as plain data; None if the file is not a LoRA."""
    try:
        file = lora_file(path)
    except NotFound:
        return None
    if file.suffix.lower() not in SAFETENSORS or not file.is_file():
        return None
    tensors, metadata = read_safetensors(file)
    if not is_lora(tensors):
        return None
    parts: dict[str, set[str]] = {}
    words: set[str] = set()
    ranks: set[int] = set()
    others: list[str] = []
    for name, tensor in tensors.items():
        found = lora_names.split(name)
        if found is None:
            others.append(name)
            continue
        module, _, word = found
        parts.setdefault(lora_names.bare(module)[0] or "transformer", set()).add(module)
        words.add(word)
        if word in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b") and tensor.shape:
            ranks.add(tensor.shape[0])
    other = lora_names.other_kind(tensors)
    strengths, warnings = read_strengths(file, metadata, is_peft(file, tensors))
    if other:
        warnings.append(f"adapters of the kind {other[0]} cannot be merged")
    if others:
        warnings.append(f"{len(others)} tensors are not LoRA weights and are ignored: {summarize(others)}")
    return {
        "path": str(file),
        "layout": "lora",
        "kind": other[0] if other else next((kind for word, kind in _KINDS if word in words), "LoRA"),
        "model": lora_model(tensors),
        "modules": {part: len(modules) for part, modules in parts.items()},
        "ranks": sorted(ranks),
        "alpha": "tensors" if "alpha" in words else "configuration" if strengths else None,
        "warnings": warnings,
    }
