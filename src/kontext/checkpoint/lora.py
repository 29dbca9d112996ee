"""Merges LoRA files into a model's weights when these are read, tensor by tensor.

A matrix gains scale * alpha / rank * up @ down. `lora_names` knows the dialects, `lora_strength` where alpha
is written, `lora_changes` the kinds of adapters (LoRA, DoRA, LoHa, LoKr, plain differences).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kontext.checkpoint import lora_names, names
from kontext.checkpoint.file_names import SAFETENSORS, is_there
from kontext.checkpoint.lora_changes import changes
from kontext.checkpoint.lora_strength import Config, read_strengths
from kontext.checkpoint.recognize import is_lora, lora_family
from kontext.checkpoint.tensors import (
    EIGHT_BIT_FLOATS,
    LazyTensor,
    Weights,
    finite,
    read_safetensors,
    stored,
    summarize,
    write_safetensors,
)
from kontext.errors import BadCheckpoint, BadRequest, NotFound
from kontext.model.lora import Change
from kontext.model.stored import all_finite

MARK_BYTES = 2**20
_FOLDER_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
"""Names of the weights in folders of PEFT and `diffusers`."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA file, read for a model."""

    changes: dict[str, dict[str, list[Change]]]
    """Part -> name of our tensor -> changes."""
    warnings: list[str]
    """What was ignored, in plain words."""


def parse(text: str | Path) -> tuple[Path, float]:
    """FILE or FILE:scale. Raises BadRequest for a scale that is not a finite number."""
    path, colon, scale = str(text).rpartition(":")
    if not colon or is_there(Path(text)):
        return Path(text), 1.0
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRequest(
            f"LoRA '{text}': give FILE or FILE:scale with a finite number, such as knit.safetensors:0.8"
        )
    return Path(path), number


def merged(
    parts: Mapping[str, Weights], entries: Iterable[str | Path], warnings: list[str] | None = None
) -> dict[str, Weights]:
    """The weights (our names) of a model with LoRA files, each FILE or FILE:scale, merged in when read.

    warnings: receives what was ignored. Raises NotFound for a missing file, BadRequest for a scale that is
    not a finite number, BadCheckpoint for a LoRA that does not fit.
    """
    out = {part: dict(weights) for part, weights in parts.items()}
    for entry in entries:
        path, scale = parse(entry)
        adapter, mark = read_lora(path, out), _mark(path, scale)
        if warnings is not None:
            warnings += adapter.warnings
        for part, changed in adapter.changes.items():
            for name, some in changed.items():
                out[part][name] = _changed(path.name, name, out[part][name], some, scale, mark)
    return out


def _changed(
    file: str, name: str, tensor: LazyTensor, some: list[Change], scale: float, mark: str
) -> LazyTensor:
    dtype = torch.bfloat16 if tensor.dtype in EIGHT_BIT_FLOATS else tensor.dtype

    def read() -> Tensor:
        merged = tensor.read().float().clone()
        for change in some:
            merged = change.applied(merged, scale)
        merged = merged.to(dtype)
        if not all_finite(merged):
            raise BadCheckpoint(f"{file}: at strength {scale:g} {name} exceeds its number type; use less")
        return merged

    return replace(tensor, dtype=dtype, read=read, parts=(), before=tensor, change=tensor.change + mark)


def _mark(path: Path, scale: float) -> str:
    """A key of the file and its strength: size, and hash of its start and end."""
    found = hashlib.sha256()
    with open(lora_file(path), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        for place in (0, max(0, size - MARK_BYTES)):
            file.seek(place)
            found.update(file.read(MARK_BYTES))
    return f"{size} {found.hexdigest()} {scale:g};"


def lora_file(path: Path) -> Path:
    """The weights file at a path, which may be a folder saved by PEFT or `diffusers`."""
    if not is_there(path):
        raise NotFound(f"{path}: no such file")
    if not path.is_dir():
        return path
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SAFETENSORS and file.is_file())
    if len(files) != 1:
        names_found = summarize([file.name for file in files]) or "no .safetensors file"
        raise NotFound(f"{path}: a folder with {names_found}; give the LoRA file itself")
    return files[0]


def read_lora(path: Path, parts: Mapping[str, Weights]) -> Adapter:
    """Read the changes that a file, or a folder of PEFT or `diffusers`, makes to a model.

    Raises NotFound for a missing file, BadCheckpoint for a file that is damaged, of another kind, or for
    another model. Single names that do not fit are ignored with a warning.
    """
    path = lora_file(path)
    weights, metadata = read_safetensors(path)
    other = lora_names.other_kind(weights)
    if other:
        raise BadCheckpoint(
            f"{path.name}: an adapter of the kind {other[0]} ({other[1]}), which cannot be merged; "
            "LoRA, DoRA, LoHa and LoKr can"
        )
    unused: list[str] = []
    modules = _modules(path, weights, unused)
    if not is_lora(weights):
        raise _not_readable(path, weights)
    strengths, warnings = read_strengths(path, metadata, is_peft(path, weights))
    flattened = {part: lora_names.flattened(part, own) for part, own in parts.items()}
    out: dict[str, dict[str, list[Change]]] = {part: {} for part in parts}
    sources: dict[tuple[object, ...], str] = {}
    ranks: list[str] = []
    absent: list[str] = []
    for (module, adapter), tensors in modules.items():
        part, bare = lora_names.bare(module)
        place = lora_names.place(module, parts, flattened)
        if place is None:
            absent_part = part is not None and part not in parts
            (absent if absent_part else unused).append(part if absent_part and part else module)
            continue
        source = sources.setdefault((place, adapter, *sorted(tensors)), module)
        if source != module:
            unused.append(f"{module}, which {source} is too")
            continue
        config = strengths.get(place.part, strengths.get("", Config()))
        factor = partial(_factor, f"{path.name}: {module}", bare, tensors, config, ranks)
        for kind, change in changes(f"{path.name}: {module}", tensors, factor, place.swap):
            name = _target(place.stem, kind, parts[place.part])
            if name is None:
                unused.append(f"the {kind} of {module}")
                continue
            _check(path, name, parts[place.part][name], change, place)
            out[place.part].setdefault(name, []).append(replace(change, first_row=place.first_row))
    if not any(out.values()):
        if absent and not unused:
            raise BadCheckpoint(f"{path.name}: changes only the {_encoders(absent)}, which is not here")
        raise _not_readable(path, weights)
    return Adapter(out, [*warnings, *_left_out(path, unused, absent, ranks)])


def _modules(path: Path, tensors: Weights, unused: list[str]) -> dict[tuple[str, str], dict[str, LazyTensor]]:
    """Tensors by module and adapter, then by word. Other tensors go to `unused`."""
    modules: dict[tuple[str, str], dict[str, LazyTensor]] = {}
    for name, tensor in tensors.items():
        found = lora_names.split(name)
        if found is None:
            unused.append(name)
            continue
        module, adapter, word = found
        words = modules.setdefault((module, adapter), {})
        if word in words:
            unused.append(name)  # the same matrix under two spellings
        else:
            words[word] = finite(path.name, name, tensor)
    for (module, adapter), words in list(modules.items()):
        if words.keys() == {"magnitude"} or words.keys() == {"magnitude", "alpha"}:
            raise BadCheckpoint(
                f"{path.name}: {module} has the magnitudes of DoRA without matrices; the file is incomplete"
            )
        if words.keys() == {"alpha"}:  # written without the adapter's name, or without matrices
            del modules[module, adapter]
            named = [other for name, other in modules if name == module]
            for other in named:
                modules[module, other].setdefault("alpha", words["alpha"])
            if not named:
                unused.append(f"{module}.alpha")
    return modules


def _not_readable(path: Path, tensors: Weights) -> BadCheckpoint:
    family = lora_family(tensors)
    if family:
        return BadCheckpoint(f"{path.name}: {family}, not a LoRA for this model")
    return BadCheckpoint(
        f"{path.name}: no LoRA for this model; names that fit nothing: {summarize(tensors) or 'none'}"
    )


def _left_out(path: Path, unused: list[str], absent: list[str], ranks: list[str]) -> list[str]:
    """One warning per reason."""
    embeddings = sorted({name.split(".")[1] for name in unused if name.startswith("bundle_emb.")})
    others = [name for name in unused if not name.startswith("bundle_emb.")]
    lines = []
    if embeddings:
        lines.append(f"its bundled embeddings are not LoRA weights and are ignored: {summarize(embeddings)}")
    if others:
        lines.append(f"{len(others)} of its names fit nothing here and are left out: {summarize(others)}")
    if absent:
        lines.append(f"its changes of the {_encoders(absent)} are left out, as that is not here")
    if ranks:
        lines.append(f"its configuration has other ranks than its matrices: {summarize(ranks)}")
    return [f"{path.name}: {line}" for line in lines]


def _encoders(parts: Iterable[str]) -> str:
    named = {"clip": "CLIP text encoder", "t5": "T5 text encoder"}
    return " and the ".join(named[part] for part in sorted(set(parts)))


def is_peft(path: Path, names_in: Iterable[str]) -> bool:
    """Whether an `adapter_config.json` next to the file belongs to it."""
    if path.name.startswith("adapter_model") or any(
        name.startswith("base_model.model.") for name in names_in
    ):
        return True
    return sum(file.suffix.lower() in SAFETENSORS for file in path.parent.iterdir()) == 1


def _factor(
    where: str,
    module: str,
    tensors: Mapping[str, LazyTensor],
    config: Config,
    ranks: list[str],
    rank: int | None,
) -> float:
    """alpha / rank of a module; 1 by default. A tensor `alpha` takes precedence over the configuration.

    ranks: receives values that contradict the rank of the matrices.
    """
    if "alpha" in tensors:
        if tensors["alpha"].count != 1:
            raise BadCheckpoint(f"{where}: alpha must be one number, got shape {tensors['alpha'].shape}")
        alpha = tensors["alpha"].read().float().item()
        return alpha / rank if rank else 1.0  # LoKr of two whole matrices has no rank, and alpha is unused
    try:
        said = config.rank_of(module)
        if said is None and rank is None:
            return 1.0
        factor = config.factor(module, rank or 1)
    except ValueError as error:
        raise BadCheckpoint(f"{where}: {error}") from None
    if factor is None:
        return 1.0
    if rank and said and said != rank:
        ranks.append(f"{module} has {rank}, not {said:g}")
    return factor


def _target(stem: str, kind: str, weights: Weights) -> str | None:
    """Our tensor for the weight or bias of a module; the weight of a norm is its scale."""
    choices = (f"{stem}.weight", f"{stem}.scale") if kind == "weight" else (f"{stem}.bias",)
    return next((name for name in choices if name in weights), None)


def _check(path: Path, name: str, weight: LazyTensor, change: Change, place: lora_names.Target) -> None:
    """Raise BadCheckpoint for a change that does not fit the tensor."""
    if name == "img_in.weight" and change.shape[1:] == (2 * weight.shape[1],):
        raise BadCheckpoint(
            f"{path.name}: a control LoRA (Canny, Depth), which widens the input; not for editing"
        )
    expected = (place.rows or weight.shape[0], *weight.shape[1:])
    if change.shape != expected:
        family = f" ({name} here is {expected}, the change is {change.shape})"
        raise BadCheckpoint(f"{path.name}: made for a model of another size{family}")


def write_lora(path: Path, matrices: Mapping[str, tuple[Tensor, Tensor]], alpha: float) -> None:
    """Write a LoRA of our modules, stem -> (down, up), with `diffusers` names, which most tools read.

    A fused matrix is split, with the same `down` and a part of `up` each; alpha / rank is multiplied into
    `up`.
    """
    out: dict[str, Tensor] = {}
    for stem, (down, up) in matrices.items():
        known = names.diffusers_stems("transformer", stem)
        if known is None:
            raise BadRequest(f"{stem} has no name in diffusers; leave it out of the LoRA")
        row, stems = known
        width = up.shape[0] // 3 if len(stems) == 3 else down.shape[1]
        sizes = (
            [up.shape[0]] if len(stems) == 1 else [width, width, width, up.shape[0] - 3 * width][: len(stems)]
        )
        if row.change == "swap":
            up = torch.cat(up.chunk(2)[::-1])
        for name, piece in zip(stems, up.split(sizes)):
            out[f"transformer.{name}.lora_A.weight"] = down
            out[f"transformer.{name}.lora_B.weight"] = piece * (alpha / down.shape[0])
    write_safetensors(path, stored(out))
