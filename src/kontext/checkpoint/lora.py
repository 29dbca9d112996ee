"""LoRA files: low-rank changes of a model's matrices, in the dialects of `diffusers`/PEFT, kohya, BFL and
x-flux. They are merged into the weights as these are read, tensor by tensor.

A matrix gains scale * alpha / rank * up @ down. The names of modules go through the table of `names`, as
those of weights do; a fused matrix (q, k, v) gets the rows that are meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kontext.checkpoint import names
from kontext.checkpoint.tensors import (
    EIGHT_BIT_FLOATS,
    Stored,
    Weights,
    few,
    read_safetensors,
    stored,
    write_safetensors,
)
from kontext.errors import BadCheckpoint, BadRequest

_DOWN, _UP = ("lora_A", "lora_down", "lora.down", "down"), ("lora_B", "lora_up", "lora.up", "up")
_WORDS = {
    **{f".{word}{end}": "down" for word in _DOWN for end in (".weight", ".default.weight")},
    **{f".{word}{end}": "up" for word in _UP for end in (".weight", ".default.weight")},
    ".alpha": "alpha",
    ".lora_B.bias": "bias",
    ".scale": "scale",
}
"""How the names of a module's tensors end."""
_ENDS = sorted(_WORDS, key=len, reverse=True)

_OTHER_METHODS = ("dora_scale", "lora_magnitude_vector", "lokr_", "hada_", "oft_")
_PREFIXES = (
    "base_model.model.",
    "lora_unet_",
    "lora_transformer_",
    *filter(None, names.PREFIXES["transformer"]),
)
_ENCODERS = {"text_encoder.": "clip", "lora_te1_": "clip", "text_encoder_2.": "t5", "lora_te2_": "t5"}
_X_FLUX = (
    (re.compile(r"(double_blocks\.\d+)\.processor\.(qkv|proj)_lora1"), r"\1.img_attn.\2"),
    (re.compile(r"(double_blocks\.\d+)\.processor\.(qkv|proj)_lora2"), r"\1.txt_attn.\2"),
)


@dataclass(frozen=True)
class Patch:
    """What a LoRA does to one of our tensors."""

    up: Tensor | None
    """(rows, rank)."""
    down: Tensor | None
    """(rank, columns)."""
    factor: float
    """alpha / rank."""
    first_row: int = 0
    value: Tensor | None = None
    """Instead of a product: rows to add, or ..."""
    replaces: bool = False
    """... a whole tensor to move to."""

    def applied(self, whole: Tensor, scale: float) -> Tensor:
        """The tensor, float32, with this change."""
        if self.replaces and self.value is not None:
            return torch.lerp(whole, self.value.float(), scale)
        if self.value is not None:
            change = self.value.float()
        else:
            assert self.up is not None and self.down is not None
            change = self.factor * (self.up.float() @ self.down.float())
        whole[self.first_row : self.first_row + len(change)] += scale * change
        return whole


def parse(given: str | Path) -> tuple[Path, float]:
    """FILE or FILE:scale. Raises BadRequest for a scale that is no number."""
    path, colon, scale = str(given).rpartition(":")
    if not colon or Path(given).exists():
        return Path(given), 1.0
    try:
        return Path(path), float(scale)
    except ValueError:
        raise BadRequest(f"LoRA '{given}': give FILE or FILE:scale, such as knit.safetensors:0.8") from None


def merged(parts: Mapping[str, Weights], given: Iterable[str | Path]) -> dict[str, Weights]:
    """The weights (our names) of a model with LoRA files, each FILE or FILE:scale, merged in when read.

    Raises NotFound for a file that is not there, BadRequest for a scale that is no number, BadCheckpoint for
    what does not fit.
    """
    out = {part: dict(weights) for part, weights in parts.items()}
    for one in given:
        path, scale = parse(one)
        for part, patches in read_lora(path, out).items():
            for name, changes in patches.items():
                out[part][name] = _changed(out[part][name], changes, scale)
    return out


def _changed(tensor: Stored, patches: list[Patch], scale: float) -> Stored:
    dtype = torch.bfloat16 if tensor.dtype in EIGHT_BIT_FLOATS else tensor.dtype

    def read() -> Tensor:
        whole = tensor.read().float().clone()
        for patch in patches:
            whole = patch.applied(whole, scale)
        return whole.to(dtype)

    return replace(tensor, dtype=dtype, read=read)


def read_lora(path: Path, parts: Mapping[str, Weights]) -> dict[str, dict[str, list[Patch]]]:
    """The changes that a file holds for a model: part -> name of our tensor -> patches."""
    held, metadata = read_safetensors(path)
    other = [name for name in held if any(word in name for word in _OTHER_METHODS)]
    if other:
        raise BadCheckpoint(
            f"{path.name}: not a plain LoRA but one of DoRA, LoKr, LoHa or OFT ({few(other)})"
        )
    modules: dict[str, dict[str, Stored]] = {}
    unknown: list[str] = []
    for name, tensor in held.items():
        end = next((end for end in _ENDS if name.endswith(end)), None)
        if end is None:
            unknown.append(name)
        else:
            modules.setdefault(name.removesuffix(end), {})[_WORDS[end]] = tensor
    alpha, found = _alpha_of(metadata), {part: dict[str, list[Patch]]() for part in parts}
    flat = {part: _flattened(weights) for part, weights in parts.items()}
    for module, tensors in modules.items():
        place = _place(module, parts, flat)
        if place is None:
            unknown.append(module)
            continue
        part, stem, first, swap = place
        for name, patch in _patches(path, stem, tensors, alpha, swap):
            whole = parts[part][name]
            if first:
                patch = replace(patch, first_row=first * parts[part][f"{stem}.weight"].shape[1])
            _check(path, name, whole, patch)
            found[part].setdefault(name, []).append(patch)
    if unknown or not any(found.values()):
        raise BadCheckpoint(
            f"{path.name}: no LoRA for this model; names that fit nothing: {few(unknown) or 'none'}"
        )
    return found


def _patches(
    path: Path, stem: str, tensors: Mapping[str, Stored], alpha: float | None, swap: bool
) -> Iterable[tuple[str, Patch]]:
    if "scale" in tensors:  # control LoRAs of BFL bring the norms whole
        yield f"{stem}.scale", Patch(None, None, 1.0, value=tensors["scale"].read(), replaces=True)
    if "bias" in tensors:
        yield f"{stem}.bias", Patch(None, None, 1.0, value=_swapped(tensors["bias"].read(), swap))
    if ("down" in tensors) != ("up" in tensors):
        raise BadCheckpoint(f"{path.name}: {stem} has one of its two matrices only; the file is incomplete")
    if "down" in tensors:
        down, up = tensors["down"].read(), _swapped(tensors["up"].read(), swap)
        own = tensors["alpha"].read().item() if "alpha" in tensors else alpha
        factor = 1.0 if own is None else own / down.shape[0]
        yield f"{stem}.weight", Patch(up, down, factor)


def _check(path: Path, name: str, whole: Stored, patch: Patch) -> None:
    if patch.value is not None:
        fits = (
            patch.value.shape[1:] == whole.shape[1:] and patch.first_row + len(patch.value) <= whole.shape[0]
        )
    else:
        assert patch.up is not None and patch.down is not None
        fits = (
            patch.down.shape[1] == whole.shape[1]
            and patch.up.shape[1] == patch.down.shape[0]
            and patch.first_row + len(patch.up) <= whole.shape[0]
        )
        if name == "img_in.weight" and patch.down.shape[1] == 2 * whole.shape[1]:
            raise BadCheckpoint(
                f"{path.name}: a control LoRA (Canny, Depth), which widens the input; not for editing"
            )
    if not fits:
        raise BadCheckpoint(f"{path.name}: made for a model of another size ({name} here is {whole.shape})")


def _alpha_of(metadata: Mapping[str, str]) -> float | None:
    """The alpha that `diffusers` writes beside the tensors, where there is one for all."""
    try:
        data = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return None
    return next((float(v) for k, v in data.items() if k.endswith("lora_alpha")), None)


def _flattened(weights: Weights) -> dict[str, str]:
    """Stems of our and of `diffusers`' names, as kohya writes them, to the stems."""
    stems = {name.rpartition(".")[0] for name in weights}
    for stem in list(stems):
        known = names.diffusers_stems("transformer", stem)
        stems.update(known[1] if known else ())
    return {stem.replace(".", "_"): stem for stem in stems}


def _place(
    module: str, parts: Mapping[str, Weights], flat: Mapping[str, Mapping[str, str]]
) -> tuple[str, str, int, bool] | None:
    """Part, our stem, which of its equal pieces (q, k, v, the MLP), and whether its halves are exchanged."""
    part = "transformer"
    for prefix, encoder in _ENCODERS.items():
        if module.startswith(prefix):
            part, module = encoder, module.removeprefix(prefix)
    for prefix in _PREFIXES:
        module = module.removeprefix(prefix)
    for pattern, ours in _X_FLUX:
        module = pattern.sub(ours, module)
    if part not in parts:
        return None
    stem = flat[part].get(module.replace(".", "_"), module)
    known = names.bfl_stem("transformer", stem) if part == "transformer" else None
    if known is not None and (not _is_ours(stem, parts[part]) or known[2] != stem):
        row, piece, stem = known
        return (part, stem, piece, row.change == "swap") if _is_ours(stem, parts[part]) else None
    return (part, stem, 0, False) if _is_ours(stem, parts[part]) else None


def _is_ours(stem: str, weights: Weights) -> bool:
    return f"{stem}.weight" in weights or f"{stem}.scale" in weights


def _swapped(tensor: Tensor, swap: bool) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1]) if swap else tensor


def write_lora(path: Path, matrices: Mapping[str, tuple[Tensor, Tensor]], alpha: float) -> None:
    """Write changes of our modules, stem -> (down, up), under `diffusers`' names, which most tools read.

    A fused matrix becomes several, with the same `down` and a part of `up` each; alpha / rank goes into `up`.
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
        for name, piece in zip(stems, _swapped(up, row.change == "swap").split(sizes)):
            out[f"transformer.{name}.lora_A.weight"] = down
            out[f"transformer.{name}.lora_B.weight"] = piece * (alpha / down.shape[0])
    write_safetensors(path, stored(out))
