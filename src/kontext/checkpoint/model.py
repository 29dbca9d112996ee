"""A complete model in memory: its four networks, its two tokenizers, and their origin."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kontext.checkpoint import names, save
from kontext.checkpoint.file_names import DIFFUSERS_TOKENIZERS, TOKENIZERS
from kontext.checkpoint.find import find_model
from kontext.checkpoint.fingerprints import fingerprint, is_small
from kontext.checkpoint.hub.models import pull_tokenizer
from kontext.checkpoint.layouts import MODULES, Checkpoint, open_checkpoint
from kontext.checkpoint.lora import merged
from kontext.checkpoint.placement import Placement, build
from kontext.checkpoint.random_weights import dev_preset, is_dev_random, random_weights
from kontext.checkpoint.skills import Skills, read_skills
from kontext.checkpoint.tensors import LazyTensor, Weights, stored
from kontext.checkpoint.tokenizer import byte_tokenizer, read_tokenizer, with_fixed_length
from kontext.errors import BadCheckpoint, BadRequest, KontextError
from kontext.model.autoencoder import Autoencoder
from kontext.model.fp8 import Fp8Linear
from kontext.model.linear import StoredWeight
from kontext.model.presets import PRESETS, Preset
from kontext.model.text import ClipText, T5Encoder
from kontext.model.transformer import Transformer


@dataclass
class Model:
    """The networks and tokenizers of a model. Networks are in evaluation mode and need no gradients."""

    preset: Preset
    transformer: Transformer
    autoencoder: Autoencoder
    t5: T5Encoder
    clip: ClipText
    tokenizer: Tokenizer
    """For T5: ids of `preset.text_length`, padded; a longer prompt is truncated and has `overflowing`."""
    tokenizer_clip: Tokenizer
    """For CLIP: ids of `preset.clip.length`."""
    name: str
    warnings: list[str] = field(default_factory=list)
    """Assumptions about the files, in plain words."""
    source: Mapping[str, Weights] | None = None
    """The stored tensors, by part; None for a model created in memory."""
    skills: Skills | None = None
    """Prompts that are known to work; None if unknown."""

    def __post_init__(self) -> None:
        self.tokenizer = with_fixed_length(self.tokenizer, self.preset.text_length)
        self.tokenizer_clip = with_fixed_length(self.tokenizer_clip, self.preset.clip.length)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the stored weights, or samples of large ones.

        Equal in every layout, on every device and in every type of computation.
        """
        return fingerprint(self.source or self.weights())

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @property
    def fp8(self) -> bool:
        """Whether the transformer multiplies in 8-bit floats."""
        return any(isinstance(layer, Fp8Linear) for layer in self.transformer.modules())

    @property
    def compiled(self) -> bool:
        """Whether blocks of the transformer run by torch.compile."""
        return bool(self.transformer.calls.compiled)

    def weights(self) -> dict[str, Weights]:
        """The tensors in memory or in their files, by part."""
        found = {part: stored(getattr(self, part).state_dict()) for part in names.PARTS}
        for part, tensors in found.items():
            for name, layer in getattr(self, part).named_modules():
                if isinstance(layer, StoredWeight):
                    read = partial(getattr, layer, "exact_weight")
                    tensors[f"{name}.weight"] = LazyTensor(layer.shape, layer.dtype, read)
        return found

    def place(self, placement: Placement) -> None:
        """Build the networks anew from where their weights come from, as the placement says.

        The old ones go first. Raises what `build` does; the model is then incomplete until placed again.
        """
        weights = self.source or self.weights()
        for part in names.PARTS:
            setattr(self, part, None)
        for part in names.PARTS:
            setattr(self, part, build(part, getattr(self.preset, part), weights[part], placement))

    def token_ids(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor, list[bool]]:
        """Ids for T5 (b, text_length) and CLIP (b, clip.length), and whether each T5 prompt was truncated."""
        t5 = self.tokenizer.encode_batch(list(prompts))
        clip = self.tokenizer_clip.encode_batch(list(prompts))
        device = self.device
        return (
            torch.tensor([encoding.ids for encoding in t5], device=device),
            torch.tensor([encoding.ids for encoding in clip], device=device),
            [bool(encoding.overflowing) for encoding in t5],
        )


def load_model(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    lora: Sequence[str | Path] = (),
    place: Callable[[Preset, Mapping[str, Weights]], Placement] | None = None,
) -> Model:
    """Load a model by name or path; "tiny-random", "nano-random", "dev-random" have random weights.

    lora: LoRA files to merge into it, each FILE or FILE:scale. dtype: of the networks. None: float32 for
    models below a billion parameters, otherwise as stored, with 8-bit floats and float16 as bfloat16 (T5
    overflows in float16, so it is bfloat16 even with dtype float16). place: chooses device and type from the
    unread weights, in place of `device` and `dtype`. Missing models of a hub are downloaded. Raises NotFound
    for an unknown name or path, Unavailable if the hub cannot be reached or the repository is gated,
    BadCheckpoint for damaged, incomplete or other models' files.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise BadRequest(f"a model is given by its name or path, got {type(name_or_path).__name__}")
    if is_dev_random(str(name_or_path)):
        return _dev_random(str(name_or_path), device, dtype, place)
    preset, _, random = str(name_or_path).rpartition("-")
    if random == "random" and preset in PRESETS and preset != "dev":
        model = random_model(PRESETS[preset], dtype=dtype)
        if place is not None:
            model.source = merged(model.weights(), lora, model.warnings)
            model.place(place(model.preset, model.source))
            return model
        changed = merged(model.weights(), lora, model.warnings) if lora else {}
        for part, weights in changed.items():
            getattr(model, part).load_state_dict({name: tensor.read() for name, tensor in weights.items()})
        for part in names.PARTS:  # LoRA files are read on the CPU
            getattr(model, part).to(device)
        return model
    path = find_model(name_or_path, download=True)
    found = open_checkpoint(path)
    add_tokenizers(found)
    if found.absent:
        raise BadCheckpoint(
            f"{path.name}: missing the {', the '.join(found.absent)}. Put next to it ae.safetensors, "
            "clip_l.safetensors, t5xxl_fp16.safetensors and the folders tokenizer and tokenizer_2, "
            "as published with FLUX.1 Kontext [dev]; kontext models pull dev downloads all of it"
        )
    source = merged({name: part.weights for name, part in found.parts.items()}, lora, found.warnings)
    if place is not None:
        placement = place(found.preset, source)
    else:
        dtype = torch.float32 if dtype is None and is_small(source) else dtype
        placement = Placement.of(device, dtype)
    modules = {
        name: build(name, getattr(found.preset, name), weights, placement) for name, weights in source.items()
    }
    own_name = path.stem if path.is_file() else path.name
    model = _model(found.preset, modules, found.tokenizers, own_name, found.warnings, source)
    model.skills = read_skills(path)
    return model


def add_tokenizers(found: Checkpoint) -> None:
    """Download the tokenizers of FLUX.1 if a model lacks nothing else: a few MB, not gated.

    Raises BadCheckpoint if they cannot be downloaded.
    """
    if not all(part.startswith("tokenizer") for part in found.absent):
        return
    for which in [part.removeprefix("tokenizer of ") for part in found.absent]:
        try:
            tokenizer = read_tokenizer(pull_tokenizer(which))
        except KontextError as error:
            place = found.path if found.path.is_dir() else found.path.parent
            raise BadCheckpoint(
                f"{found.path.name}: missing the tokenizer of {which}, which cannot be downloaded ({error}); "
                f"put it into {place / DIFFUSERS_TOKENIZERS[which] / 'tokenizer.json'}"
            ) from None
        if tokenizer is not None:
            found.tokenizers[which] = tokenizer


def _dev_random(
    name: str,
    device: str | torch.device,
    dtype: torch.dtype | None,
    place: Callable[[Preset, Mapping[str, Weights]], Placement] | None,
) -> Model:
    """A model of the size of FLUX.1 Kontext [dev] with random weights; see `random_weights`."""
    preset = dev_preset(name)
    source = {part: random_weights(part, preset) for part in names.PARTS}
    placement = place(preset, source) if place is not None else Placement.of(device, dtype)
    modules = {part: build(part, getattr(preset, part), source[part], placement) for part in names.PARTS}
    tokenizers = {which: byte_tokenizer() for which in TOKENIZERS}
    return _model(preset, modules, tokenizers, name, [], source)


def random_model(
    preset: Preset, seed: int = 0, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Model:
    """A model with seeded random weights and byte tokenizers, for tests without files."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = {part: MODULES[part](getattr(preset, part)) for part in names.PARTS}
    for module in modules.values():
        module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    tokenizers = {which: byte_tokenizer() for which in TOKENIZERS}
    return _model(preset, modules, tokenizers, f"{preset.name}-random", [], None)


def _model(
    preset: Preset,
    modules: Mapping[str, Any],
    tokenizers: Mapping[str, Tokenizer],
    name: str,
    warnings: list[str],
    source: Mapping[str, Weights] | None,
) -> Model:
    return Model(
        preset=preset,
        **modules,
        tokenizer=tokenizers["t5"],
        tokenizer_clip=tokenizers["clip"],
        name=name,
        warnings=warnings,
        source=source,
    )


def save_model(model: Model, folder: str | Path) -> None:
    """Write a model in the kontext layout, atomically replacing a model in that folder."""
    save.write_kontext(Path(folder), model.preset, model.weights(), _tokenizers(model))


def save_diffusers(model: Model, folder: str | Path) -> None:
    """Write a model as a `diffusers` folder. Raises BadRequest for models that diffusers cannot run."""
    save.write_diffusers(Path(folder), model.preset, model.weights(), _tokenizers(model))


def _tokenizers(model: Model) -> dict[str, Tokenizer]:
    return {"t5": model.tokenizer, "clip": model.tokenizer_clip}
