"""Names of the published files of models and their parts. Cheap to import."""

from __future__ import annotations

import re
from pathlib import Path

SAFETENSORS = (".safetensors", ".sft")
"""File extensions by format."""

COMPONENT_FILES = ("diffusion_pytorch_model", "model")
"""Names that `diffusers` and `transformers` give to a component's tensors."""

VARIANTS = ("", "bf16", "fp16")
"""Variants of a component's files (`model.fp16.safetensors`), best first; others come after these."""

COMPONENT = re.compile(
    rf"(?:{'|'.join(COMPONENT_FILES)})(?:\.(?P<file>[\w-]+))?\.(?:safetensors|sft)"
    rf"|(?:{'|'.join(COMPONENT_FILES)})\.safetensors(?P<index>\.index)(?:\.(?P<variant>[\w-]+))?\.json"
)
"""A component's file, or the index of its shards."""

SHARD = re.compile(r"-0*(\d+)-of-0*(\d+)")

DIFFUSERS_FOLDERS = {
    "transformer": "transformer",
    "autoencoder": "vae",
    "t5": "text_encoder_2",
    "clip": "text_encoder",
}
TOKENIZERS = {"t5": "tokenizer.json", "clip": "tokenizer_clip.json"}
"""Tokenizer files of our own layout."""
DIFFUSERS_TOKENIZERS = {"t5": "tokenizer_2", "clip": "tokenizer"}

OWN_ENDS = (".safetensors.index.json", ".safetensors", ".sft", ".gguf")
"""Extension of the parts' files in the kontext layout."""

WEIGHTS = (*SAFETENSORS, ".gguf")
"""Extensions of files of weights, best first."""
COMFYUI_FOLDERS = ("vae", "text_encoders", "clip")
"""ComfyUI's folders for the other parts of a model."""
TRANSFORMER_FOLDERS = ("diffusion_models", "unet")
"""ComfyUI's folders for transformers."""
COMPANIONS: dict[str, tuple[str, ...]] = {
    "autoencoder": ("autoencoder", "ae", "*ae"),
    "t5": ("t5", "t5xxl_fp16", "t5xxl*", "t5-v1_1-xxl*", "t5_v1*xxl*"),
    "clip": ("clip", "clip_l*"),
}
"""Names of the other parts' files without extension, best first, before the folders of `diffusers`."""


def variant_order(match: re.Match[str]) -> tuple[int, str]:
    """Sort key and name of a component file's variant, from a match of `COMPONENT`."""
    variant = (match["variant"] if match["index"] else match["file"]) or ""
    return (VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS)), variant


def is_there(path: Path) -> bool:
    """Whether a path exists; False for names that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
