"""Identifies the model at a path, part by part, without reading its numbers.

Supported: a folder of the kontext layout, a `diffusers` folder (`model_index.json`), a `.safetensors` file
with one or all parts (BFL or `diffusers` names, with or without prefix), and a `.gguf` file of the
transformer. All are converted to our names.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.overrides import TorchFunctionMode

from kontext.checkpoint import configs, names
from kontext.checkpoint.companions import (
    companion_files,
    component_file,
    is_companion,
    snapshot,
    tokenizer_places,
    transformer_file,
)
from kontext.checkpoint.file_names import (
    COMPANIONS,
    COMPONENT_FILES,
    DIFFUSERS_FOLDERS,
    DIFFUSERS_TOKENIZERS,
    OWN_ENDS,
    SHARD,
    TOKENIZERS,
    WEIGHTS,
)
from kontext.checkpoint.files import weights_file
from kontext.checkpoint.gguf_files import PRESET_KEY, read_gguf
from kontext.checkpoint.quantized import unpack
from kontext.checkpoint.recognize import is_lora, lora_model, model_family
from kontext.checkpoint.tensors import (
    Weights,
    finite,
    is_index,
    read_json,
    read_safetensors,
    read_sharded,
    refuse_code,
    stored,
    summarize,
)
from kontext.checkpoint.tokenizer import read_tokenizer, t5_tokenizer
from kontext.errors import BadCheckpoint, NotFound
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS, Preset
from kontext.model.text import ClipText, T5Encoder
from kontext.model.transformer import Transformer

MODULES: dict[str, type[nn.Module]] = {
    "transformer": Transformer,
    "autoencoder": Autoencoder,
    "t5": T5Encoder,
    "clip": ClipText,
}

_OTHER_PIPELINES = re.compile(
    "StableDiffusion|Flux2|FluxFill|FluxControl|FluxPrior|Chroma|QwenImage|Sana|PixArt|Wan|Hunyuan|Lumina|ZImage"
    "|AuraFlow|LTX|Kolors|Kandinsky|CogView|LatentConsistency"
)
"""Pipelines of `diffusers` that are not those of FLUX.1 and its Kontext."""


class _SkipInit(TorchFunctionMode):
    """Skips the initialization of weights."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def empty_module(part: str, config: configs.Config) -> nn.Module:
    """A network of these sizes on the meta device: shapes without values.

    Initializing weights there would import torch's compiler, which takes seconds.
    """
    try:
        with torch.device("meta"), _SkipInit():
            return MODULES[part](config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError):
        raise BadCheckpoint(f"no {part} can have these sizes: {config}") from None


@dataclass(frozen=True)
class Report:
    """How the tensors of a part differ from those of its sizes; all empty if they fit."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    wrong_type: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.wrong_shape or self.wrong_type)

    def __str__(self) -> str:
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of wrong shape": self.wrong_shape,
            "of wrong type": self.wrong_type,
        }
        return "; ".join(f"{len(items)} {kind}: {summarize(items)}" for kind, items in kinds.items() if items)


@dataclass(frozen=True)
class Part:
    """One network in a file: its sizes, and its tensors under the file's names (prefix removed)."""

    name: str
    source: Path
    layout: str
    config: configs.Config
    tensors: Weights

    @cached_property
    def report(self) -> Report:
        expected = stored(empty_module(self.name, self.config).state_dict())
        if self.layout == "diffusers":
            expected = names.to_diffusers(self.name, expected)
        return Report(
            missing=tuple(name for name in expected if name not in self.tensors),
            unexpected=tuple(name for name in self.tensors if name not in expected),
            wrong_shape=tuple(
                f"{name} is {_by(self.tensors[name].shape)}, must be {_by(tensor.shape)}"
                for name, tensor in expected.items()
                if name in self.tensors and self.tensors[name].shape != tensor.shape
            ),
            wrong_type=tuple(
                f"{name} holds {str(self.tensors[name].dtype).removeprefix('torch.')}, must hold floats"
                for name in expected
                if name in self.tensors and not self.tensors[name].dtype.is_floating_point
            ),
        )

    @property
    def weights(self) -> Weights:
        """The tensors under our names. Raises BadCheckpoint unless they fit exactly."""
        if self.report:
            raise BadCheckpoint(f"{self.source.name}: the {self.name} does not fit; {self.report}")
        return names.to_bfl(self.name, self.tensors) if self.layout == "diffusers" else self.tensors

    @property
    def parameters(self) -> int:
        return sum(tensor.count for tensor in self.tensors.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """Parameters by type, the most frequent first."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors.values():
            counts[tensor.kind or str(tensor.dtype).removeprefix("torch.")] += tensor.count
        return dict(counts.most_common())


@dataclass
class Checkpoint:
    """The model at a path."""

    path: Path
    layout: str
    """"kontext", "diffusers", "bfl" or "gguf"."""
    preset: Preset
    """Sizes of the parts; for absent parts, those of the most similar preset."""
    parts: dict[str, Part] = field(default_factory=dict)
    tokenizers: dict[str, Tokenizer] = field(default_factory=dict)
    """"t5", "clip": as stored, without a fixed length."""
    warnings: list[str] = field(default_factory=list)

    @property
    def absent(self) -> list[str]:
        """Parts and tokenizers that the model lacks."""
        return [p for p in names.PARTS if p not in self.parts] + [
            f"tokenizer of {t}" for t in TOKENIZERS if t not in self.tokenizers
        ]


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def open_checkpoint(path: Path, companions: bool = True) -> Checkpoint:
    """Open the checkpoint at `path`. With `companions`, search for missing parts next to it.

    Raises NotFound if there is nothing, BadCheckpoint if it is damaged, refused or not a model of this
    family. Tensors that do not fit are reported by `Part.report`, not raised here.
    """
    if path.is_dir():
        path = snapshot(path)
        if (path / "model_index.json").is_file():
            return _diffusers_folder(path)
        config = path / "config.json"
        if config.is_file():
            data = read_json(config)
            if data.get("format") == "kontext":
                return _own_folder(path, data)
            if "_class_name" in data or "architectures" in data:
                return _single_file(weights_file(path), companions=False)
        indexes = sorted(file for file in path.iterdir() if is_index(file) and not is_companion(file))
        return _single_file(indexes[0] if len(indexes) == 1 else transformer_file(path), companions)
    refuse_code(path)
    if not path.exists():
        raise NotFound(f"{path}: no such file or folder")
    if not is_index(path) and path.suffix.lower() not in WEIGHTS:
        raise BadCheckpoint(f"{path.name}: give a .safetensors or .gguf file, or a model folder")
    return _single_file(path, companions)


def _read(path: Path) -> tuple[Weights, dict[str, Any]]:
    """Tensors, with their scales applied and checked for NaN when read, and metadata."""
    metadata: dict[str, Any] = {}
    if is_index(path):
        weights = read_sharded(path)
    elif path.suffix.lower() == ".gguf":
        weights, metadata = read_gguf(path)
        if isinstance(metadata.get(PRESET_KEY), str):
            metadata["kontext"] = metadata[PRESET_KEY]
    else:
        weights, strings = read_safetensors(path)
        metadata.update(strings)
    unpacked = unpack(weights, path.name)
    checked = {name: finite(path.name, name, tensor) for name, tensor in unpacked.items()}
    return names.from_llama(checked), metadata


def _own_folder(folder: Path, data: dict[str, Any]) -> Checkpoint:
    if data.get("version") != 1:
        raise BadCheckpoint(
            f"{folder}/config.json: version {data.get('version')} is unknown; this code reads 1"
        )
    preset = configs.preset_from_json(data.get("preset") or {}, f"{folder}/config.json")
    found = Checkpoint(folder, "kontext", preset)
    for part in names.PARTS:
        candidates = (folder / f"{part}{end}" for end in OWN_ENDS)
        file = next((file for file in candidates if file.is_file()), None)
        if file is not None:
            weights, _ = _read(file)
            found.parts[part] = Part(part, file, "bfl", getattr(preset, part), weights)
    for name, file_name in TOKENIZERS.items():
        if (folder / file_name).is_file() and (tokenizer := read_tokenizer(folder / file_name)):
            found.tokenizers[name] = tokenizer
    return found


def _diffusers_folder(folder: Path) -> Checkpoint:
    pipeline = str(read_json(folder / "model_index.json").get("_class_name"))
    if _OTHER_PIPELINES.match(pipeline):
        raise BadCheckpoint(f"{folder.name}: a folder of {pipeline}; FluxKontextPipeline is needed")
    found = Checkpoint(folder, "diffusers", PRESETS["dev"])
    for part, name in DIFFUSERS_FOLDERS.items():
        file = component_file(folder, name, part)
        if file is None:
            continue
        weights, metadata = _read(file)
        parts, rest = names.find_parts(weights)
        if part not in parts:
            raise BadCheckpoint(f"{file}: holds no {part} (it has {summarize(rest) or 'other parts'})")
        layout, tensors = parts[part]
        settings = folder / name / "config.json"
        if file.parent == settings.parent:
            config = configs.from_diffusers(part, read_json(settings), f"{name}/config.json")
        else:
            ours = names.to_bfl(part, tensors) if layout == "diffusers" else tensors
            config = configs.from_shapes(part, ours, file.name)
        found.parts[part] = Part(part, file, layout, config, tensors)
        if part == "t5" and (tokenizer := t5_tokenizer(metadata)):
            found.tokenizers["t5"] = tokenizer
    for name, place in DIFFUSERS_TOKENIZERS.items():
        if tokenizer := read_tokenizer(folder / place):
            found.tokenizers[name] = tokenizer
    if pipeline != "FluxKontextPipeline":
        found.warnings.append(
            f"model_index.json says {pipeline}: assumed to be FLUX.1 Kontext [dev]; "
            "a model that was not trained to edit will not edit"
        )
    extra = folder / "kontext.json"
    data = read_json(extra).get("preset") if extra.is_file() else None
    found.preset = _assembled(found.parts, configs.preset_from_json(data, str(extra)) if data else None)
    return found


def _single_file(path: Path, companions: bool) -> Checkpoint:
    shard = SHARD.search(path.name)
    if shard and shard[2] != "1" and not is_index(path):
        raise BadCheckpoint(
            f"{path.name}: shard {shard[1]} of {shard[2]} of a model; give its folder, or the "
            ".safetensors.index.json that names all of them"
        )
    weights, metadata = _read(path)
    config_file = path.parent / "config.json"
    config = read_json(config_file) if config_file.is_file() else {}
    parts, rest = names.find_parts(weights)
    own = _preset_in(metadata, path)
    if own is None:
        _refuse_foreign(path, weights)
    if not parts:
        raise BadCheckpoint(
            f"{path.name}: holds no part of a FLUX model (its tensors: {summarize(rest) or 'none'})"
        )
    if own is None and config.get("format") == "kontext":
        own = configs.preset_from_json(config.get("preset") or {}, str(config_file))
    found = Checkpoint(path, "gguf" if path.suffix.lower() == ".gguf" else "bfl", PRESETS["dev"])
    for part, (layout, tensors) in parts.items():
        if own is not None:
            sizes = getattr(own, part)
        elif path.name.startswith(COMPONENT_FILES) and config:
            sizes = configs.from_diffusers(part, config, f"{path.parent.name}/config.json")
        else:
            ours = names.to_bfl(part, tensors) if layout == "diffusers" else tensors
            sizes = configs.from_shapes(part, ours, path.name)
            if part == "transformer":
                found.warnings += _assumptions(path, sizes)
        found.parts[part] = Part(part, path, layout, sizes, tensors)
    if len(parts) == 1 and next(iter(parts.values()))[0] == "diffusers":
        found.layout = "diffusers"
    if rest:
        found.warnings.append(
            f"{path.name}: {len(rest)} tensors belong to no part and are left out: {summarize(rest)}"
        )
    if "t5" in parts and (tokenizer := t5_tokenizer(metadata)):
        found.tokenizers["t5"] = tokenizer
    if companions and "transformer" in found.parts:
        _add_companions(found)
    found.preset = _assembled(found.parts, own)
    return found


def _refuse_foreign(path: Path, weights: Weights) -> None:
    """Raise BadCheckpoint for a LoRA and for files of other models."""
    if is_lora(weights):
        model = lora_model(weights)
        raise BadCheckpoint(
            f"{path.name}: a LoRA{f' for {model}' if model else ''}, not a model"
            + ("; give it with --lora" if model in (None, "FLUX.1") else "")
        )
    family = model_family(weights)
    if family:
        raise BadCheckpoint(f"{path.name}: {family}; FLUX.1 Kontext [dev] is needed")


def _preset_in(metadata: dict[str, Any], path: Path) -> Preset | None:
    """The preset in the metadata of files that this package wrote."""
    if "kontext" not in metadata:
        return None
    try:
        return configs.preset_from_json(json.loads(metadata["kontext"]), path.name)
    except (ValueError, AttributeError, RecursionError):
        raise BadCheckpoint(f"{path.name}: its metadata is damaged; get the file again") from None


def _assumptions(path: Path, config: Any) -> list[str]:
    """Warnings about properties that shapes do not show. Raises BadCheckpoint for other tools of FLUX.1."""
    if config.in_channels != 64 and config.axes == (16, 56, 56):
        tools = {384: "FLUX.1 Fill [dev]", 128: "FLUX.1 Canny or Depth [dev]"}
        raise BadCheckpoint(
            f"{path.name}: takes {config.in_channels} channels, like "
            f"{tools.get(config.in_channels, 'another model')}; FLUX.1 Kontext [dev] takes 64"
        )
    if config == PRESETS["dev"].transformer and "kontext" not in path.name.lower():
        return ["assumed to be FLUX.1 Kontext [dev]; FLUX.1 [dev], which cannot edit, has the same shapes"]
    if not config.guidance_embed and config.axes == (16, 56, 56):
        return ["it has no guidance, like FLUX.1 [schnell], which was not trained to edit"]
    return []


def _add_companions(found: Checkpoint) -> None:
    """Find parts and tokenizers next to a single file."""
    home = found.path.parent
    for part in COMPANIONS:
        if part in found.parts:
            continue
        refusals: list[BadCheckpoint] = []
        for file in companion_files(part, home):
            try:
                companion = _single_file(file, companions=False)
            except BadCheckpoint as error:
                refusals.append(error)
                continue
            if part not in companion.parts:
                holds = ", the ".join(companion.parts)
                refusals.append(
                    BadCheckpoint(f"{file}: its name promises the {part}, but it holds the {holds}")
                )
                continue
            found.parts[part] = companion.parts[part]
            found.tokenizers = {**companion.tokenizers, **found.tokenizers}
            break
        else:
            if refusals:
                raise refusals[0]
    for name in TOKENIZERS:
        for place in tokenizer_places(name, home):
            if name not in found.tokenizers and place.exists() and (tokenizer := read_tokenizer(place)):
                found.tokenizers[name] = tokenizer


def _assembled(parts: dict[str, Part], preset: Preset | None) -> Preset:
    """The preset with the sizes of the parts found; named after it only if all are equal."""
    sizes: dict[str, Any] = {name: part.config for name, part in parts.items()}
    if preset is None:
        same = (
            p for p in PRESETS.values() if "transformer" in sizes and p.transformer == sizes["transformer"]
        )
        preset = next(same, PRESETS["dev"])
    if all(getattr(preset, name) == size for name, size in sizes.items()):
        return preset
    return replace(preset, name="custom", **sizes)
