"""Writes a model: a folder of the kontext layout, a `diffusers` folder, BFL files, or one part.

A folder is written next to its destination and renamed; readers never see an incomplete one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from kontext.checkpoint import configs, names
from kontext.checkpoint.file_names import DIFFUSERS_FOLDERS, DIFFUSERS_TOKENIZERS, TOKENIZERS
from kontext.checkpoint.tensors import Weights, write_safetensors, write_sharded
from kontext.checkpoint.tokenizer import with_fixed_length
from kontext.errors import BadRequest
from kontext.model.presets import Preset

BFL_FILES = {
    "transformer": "transformer.safetensors",
    "autoencoder": "ae.safetensors",
    "t5": "t5xxl.safetensors",
    "clip": "clip_l.safetensors",
}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces `folder` if the block succeeds and is removed if it fails.

    A model in it is replaced; other files (a README) are kept. Raises BadRequest if `folder` is a file or
    contains something other than a model.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise BadRequest(f"{folder} is a file; give a folder for the model")
    entries = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if entries - {"README.md"} and not entries & {"config.json", "model_index.json"}:
        raise BadRequest(f"{folder} holds other things than a model; give an empty or new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    former = folder.with_name(f".{folder.name}.{os.getpid()}.former")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rename(former)
        partial.rename(folder)
        if former.exists():
            for entry in former.iterdir():
                if not (folder / entry.name).exists():
                    entry.rename(folder / entry.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def preset_text(preset: Preset) -> str:
    return json.dumps(configs.to_json(preset), sort_keys=True)


def write_kontext(
    folder: Path,
    preset: Preset,
    parts: Mapping[str, Weights],
    tokenizers: Mapping[str, Tokenizer],
    shard_bytes: int | None = None,
) -> None:
    """The kontext layout: config.json, one file per part (or several with an index), two tokenizers."""
    with new_folder(folder) as place:
        for part, weights in parts.items():
            write_sharded(place / f"{part}.safetensors", weights, shard_bytes)
        for name, tokenizer in tokenizers.items():
            (place / TOKENIZERS[name]).write_text(tokenizer.to_str(pretty=True), "utf-8")
        _write_json(
            place / "config.json", {"format": "kontext", "version": 1, "preset": configs.to_json(preset)}
        )


def write_bfl(
    folder: Path, preset: Preset, parts: Mapping[str, Weights], tokenizers: Mapping[str, Tokenizer]
) -> None:
    """The separate files of the BFL layout under their usual names, and the tokenizers."""
    metadata = {"kontext": preset_text(preset)}
    with new_folder(folder) as place:
        for part, weights in parts.items():
            write_safetensors(place / BFL_FILES[part], weights, metadata)
        for which, tokenizer in tokenizers.items():
            (place / DIFFUSERS_TOKENIZERS[which]).mkdir()
            (place / DIFFUSERS_TOKENIZERS[which] / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")


def write_diffusers(
    folder: Path, preset: Preset, parts: Mapping[str, Weights], tokenizers: Mapping[str, Tokenizer]
) -> None:
    """A folder for `FluxKontextPipeline.from_pretrained`. Raises BadRequest for models it cannot run."""
    settings = {part: configs.to_diffusers_config(getattr(preset, part)) for part in parts}
    with new_folder(folder) as place:
        for part, weights in parts.items():
            home = place / DIFFUSERS_FOLDERS[part]
            home.mkdir()
            file = "diffusion_pytorch_model" if part in names.TABLES else "model"
            if part in names.TABLES:
                weights = names.to_diffusers(part, weights)
            write_safetensors(home / f"{file}.safetensors", weights)
            _write_json(home / "config.json", settings[part])
        lengths = {"t5": preset.text_length, "clip": preset.clip.length}
        for which, tokenizer in tokenizers.items():
            home = place / DIFFUSERS_TOKENIZERS[which]
            home.mkdir()
            padded = with_fixed_length(tokenizer, lengths[which])
            (home / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
            _write_json(
                home / "tokenizer_config.json",
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "model_max_length": lengths[which],
                    "pad_token": (padded.padding or {})["pad_token"],
                },
            )
        (place / "scheduler").mkdir()
        _write_json(place / "scheduler" / "scheduler_config.json", SCHEDULER)
        _write_json(place / "kontext.json", {"preset": configs.to_json(preset)})
        _write_json(place / "model_index.json", PIPELINE)


SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
"""As published with FLUX.1 Kontext [dev]."""

PIPELINE = {
    "_class_name": "FluxKontextPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "image_encoder": [None, None],
    "feature_extractor": [None, None],
}


def write_file(path: Path, preset: Preset, part: str, weights: Weights, layout: str) -> None:
    """One part as one file, with BFL or `diffusers` names and its sizes in the metadata."""
    if layout == "diffusers":
        configs.to_diffusers_config(getattr(preset, part))  # refuses what diffusers cannot run
        if part in names.TABLES:
            weights = names.to_diffusers(part, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, weights, {"kontext": preset_text(preset)})


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
