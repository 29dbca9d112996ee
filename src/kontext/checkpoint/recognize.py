"""Recognizes files of other models by names and shapes of tensors, for better messages."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kontext.checkpoint import lora_names
from kontext.checkpoint.tensors import Weights

_CROSS_ATTENTION = re.compile(
    r"attn2[._]to_k\.(?:weight|lora_down\.weight|lora_A\.weight|lora\.down\.weight)$"
)
_BY_TEXT_WIDTH = {
    768: "Stable Diffusion 1.5",
    1024: "Stable Diffusion 2",
    2048: "Stable Diffusion XL",
}
"""Width of the text states that the cross attention reads."""

_MODELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "a ControlNet for FLUX.1",
        (r"controlnet_(blocks|x_embedder|single_blocks)\.", r"(double|transformer)_blocks\.0\."),
    ),
    (
        "a ControlNet for Stable Diffusion",
        (r"(control_model\.|zero_convs\.|controlnet_down_blocks\.|controlnet_cond_embedding\.)",),
    ),
    ("FLUX.1 Redux [dev]", (r"redux_(up|down)\.weight",)),
    ("an IP-Adapter", (r"(^|\.)(image_proj|ip_adapter|ip_adapter_proj_model)\.",)),
    ("FLUX.2", (r"double_stream_modulation_img\.",)),
    ("Chroma", (r"distilled_guidance_layer\.",)),
    ("Qwen-Image", (r"transformer_blocks\.0\.img_mod\.1\.", r"(^|\.)txt_norm\.")),
    ("Stable Diffusion 3", (r"joint_blocks\.0\.",)),
    ("Stable Diffusion 3", (r"transformer_blocks\.0\.attn\.add_q_proj\.", r"(^|\.)pos_embed\.proj\.")),
    ("HunyuanVideo", (r"double_blocks\.0\.img_attn_qkv\.",)),
    ("HiDream", (r"double_stream_blocks\.0\.",)),
    ("Wan", (r"(^|\.)blocks\.0\.cross_attn\.", r"patch_embedding\.")),
    ("Lumina or Z-Image", (r"(noise|context)_refiner\.0\.", r"cap_embedder\.")),
    ("AuraFlow", (r"double_layers\.0\.", r"cond_seq_linear\.")),
    ("LTX-Video", (r"patchify_proj\.|scale_shift_table$", r"transformer_blocks\.0\.attn2\.")),
    ("PixArt", (r"adaln_single\.", r"transformer_blocks\.0\.attn2\.")),
    ("a tiny autoencoder (TAESD, TAEF1)", (r"^(encoder|decoder)\.layers\.\d+\.(conv\.\d+\.)?weight$",)),
    (
        "the autoencoder of Wan or Qwen-Image",
        (r"(decoder\.middle\.0\.residual|decoder\.mid_block\.resnets\.0\.norm1\.gamma)",),
    ),
    (
        "a large language model, such as newer models use as text encoder",
        (r"^(model|language_model\.model|model\.language_model)\.layers\.0\.self_attn\.",),
    ),
    ("an embedding (textual inversion)", (r"^(emb_params|string_to_param|string_to_token)",)),
    ("an embedding (textual inversion)", (r"^clip_[lg]$",)),
)
"""A model, and patterns that must each match a name."""

_LORAS = (
    ("FLUX.2", r"double_stream_modulation|to_qkv_mlp_proj|ff[._]linear_in"),
    ("Chroma", r"distilled_guidance_layer"),
    ("Qwen-Image", r"transformer_blocks[._]\d+[._](img|txt)_(mod|mlp)"),
    ("Stable Diffusion 3", r"joint_blocks[._]\d"),
    ("HunyuanVideo", r"double_blocks\.\d+\.img_attn_(qkv|proj)\."),
    ("Wan", r"(^|[._])blocks[._]\d+[._](cross_attn|self_attn)[._]"),
    ("Lumina or Z-Image", r"(^|[._])layers[._]\d+[._]attention[._]"),
)
_UNET = re.compile(r"(down_blocks|input_blocks|mid_block|middle_block|up_blocks|output_blocks)[._]")
_FLUX = re.compile(r"(double_blocks|single_blocks|single_transformer_blocks|transformer_blocks)[._]\d+[._]")


def model_family(weights: Weights) -> str | None:
    """Description of a file of another model, None if unknown."""
    for text, patterns in _MODELS:
        if all(any(re.search(pattern, name) for name in weights) for pattern in patterns):
            return text
    if any(n.startswith(("vision_model.", "visual.")) for n in weights) and not any(
        "text_model." in name for name in weights
    ):
        return "a CLIP image encoder"
    if any(_UNET.search(name) and "attn2" in name for name in weights):
        return _by_cross_attention(weights)
    latent = next((t.shape for n, t in weights.items() if re.search(r"decoder\.conv_in\.weight$", n)), ())
    if len(latent) == 4 and latent[1] != 16:
        names = {4: "Stable Diffusion 1.5 or XL", 32: "FLUX.2"}
        return f"the autoencoder of {names.get(latent[1], f'a model with {latent[1]} latent channels')}"
    layers = {int(m[1]) for n in weights if (m := re.search(r"text_model\.encoder\.layers\.(\d+)\.", n))}
    if len(layers) > 12:
        return "a larger CLIP text encoder (of Stable Diffusion XL or 3)"
    if any(
        n.endswith("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight") for n in weights
    ):
        return "a umT5 text encoder"
    return None


def _by_cross_attention(weights: Weights) -> str:
    for name, tensor in weights.items():
        if _CROSS_ATTENTION.search(name) and len(tensor.shape) > 1:
            return _BY_TEXT_WIDTH.get(tensor.shape[1], "Stable Diffusion")
    return "Stable Diffusion"


def is_lora(tensors: Iterable[str]) -> bool:
    """Whether a file contains changes of weights, not weights."""
    changes = ("down", "up", "hada", "lokr", "magnitude", "add")
    words = (found[2] for name in tensors if (found := lora_names.split(name)))
    return any(word.startswith(changes) for word in words) or lora_names.other_kind(tensors) is not None


def lora_model(tensors: Weights) -> str | None:
    """The model that an adapter was made for, None if unknown."""
    for model, pattern in _LORAS:
        if any(re.search(pattern, name) for name in tensors):
            return model
    if any(_UNET.search(name) for name in tensors):
        if any(name.startswith("lora_te2_") for name in tensors):
            return "Stable Diffusion XL"
        return _by_cross_attention(tensors)
    if any(_FLUX.search(name) for name in tensors):
        return "FLUX.1"
    return None


def lora_family(tensors: Weights) -> str | None:
    """Description of a file that is not a LoRA for this model."""
    if is_lora(tensors):
        model = lora_model(tensors)
        return f"a LoRA for {model}" if model and model != "FLUX.1" else None
    family = model_family(tensors)
    if family:
        return family
    flux = any(_FLUX.search(name) for name in tensors)
    return "weights of a whole FLUX model" if flux else None
