"""Names of the tensors in LoRA files, and the modules and tensors that they change.

Dialects: `diffusers` and PEFT (any adapter name), kohya, BFL, ComfyUI, x-flux, OneTrainer, LyCORIS. Modules
go through the table of `names`, as those of weights do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kontext.checkpoint import names
from kontext.checkpoint.tensors import Weights

_ADAPTER = r"(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?"
_WORDS = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (rf"\.lora_A{_ADAPTER}(?:\.weight)?$", "down"),
        (rf"\.lora_B{_ADAPTER}(?:\.weight)?$", "up"),
        (rf"\.lora_B{_ADAPTER}\.bias$", "bias"),
        (r"(?:\.lora_down|\.lora_linear_layer\.down|[._]lora\.down|\.down)\.weight$", "down"),
        (r"(?:\.lora_up|\.lora_linear_layer\.up|[._]lora\.up|\.up)\.weight$", "up"),
        (r"\.lora_mid\.weight$", "mid"),
        (r"\.alpha$", "alpha"),
        (r"\.dora_scale$", "magnitude"),
        (rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?$", "magnitude"),
        *((rf"\.hada_{name}{_ADAPTER}$", f"hada_{name}") for name in ("w1_a", "w1_b", "w2_a", "w2_b")),
        *((rf"\.hada_{name}{_ADAPTER}$", "mid") for name in ("t1", "t2")),
        *(
            (rf"\.lokr_{name}{_ADAPTER}$", f"lokr_{name}")
            for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")
        ),
        (rf"\.lokr_t2{_ADAPTER}$", "mid"),
        (r"(?:\.scale|\.weight)?\.(?:diff|w_norm)$", "add weight"),
        (r"(?:\.bias)?\.(?:diff_b|b_norm)$", "add bias"),
        (r"(?:\.weight|\.scale|\.set_weight)$", "set weight"),
        (r"\.bias$", "set bias"),
    )
)
"""Endings of the names of a module's tensors; the first match counts."""

_PREFIXES = (
    "base_model.model.",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    *filter(None, names.PREFIXES["transformer"]),
)
ENCODERS = {
    "text_encoders.clip_l.transformer.": "clip",
    "text_encoders.clip_l.": "clip",
    "text_encoders.t5xxl.transformer.": "t5",
    "text_encoders.t5xxl.": "t5",
    "text_encoder_2.": "t5",
    "text_encoder.": "clip",
    "lora_te1_": "clip",
    "lora_te2_": "t5",
    "lora_te3_": "t5",
    "lora_te_": "clip",
    "clip_l.": "clip",
    "t5xxl.": "t5",
}
"""Prefixes of text encoders. In files for FLUX, T5 is `lora_te3` (kohya) or `lora_te2`."""

_SPELLINGS = (
    (re.compile(r"(double_blocks\.\d+)\.processor\.(qkv|proj)_lora1$"), r"\1.img_attn.\2"),
    (re.compile(r"(double_blocks\.\d+)\.processor\.(qkv|proj)_lora2$"), r"\1.txt_attn.\2"),
    (re.compile(r"(single_blocks\.\d+)\.processor\.qkv$"), r"\1.linear1"),
    (re.compile(r"(single_blocks\.\d+)\.processor\.proj$"), r"\1.linear2"),
    (re.compile(r"\.processor\.(to_|add_)"), r".\1"),
    (re.compile(r"\.self_attn\.to_([qkv])$"), r".self_attn.\1_proj"),
    (re.compile(r"\.self_attn\.to_out$"), r".self_attn.out_proj"),
)
"""Names of modules in x-flux and older `diffusers`."""

_OTHER_KINDS = {
    "IA3": r"(^|[._])ia3_|\.on_input$",
    "BOFT": r"(^|[._])boft_",
    "OFT": r"(^|[._])oft_",
    "VeRA": r"(^|[._])vera_",
    "GLoRA": r"\.[ab][12]\.weight$",
    "an embedding LoRA": r"lora_embedding_[AB]",
}


@dataclass(frozen=True)
class Target:
    """The target of a module's change."""

    part: str
    stem: str
    """Our name of the module."""
    first_row: int = 0
    rows: int | None = None
    """Number of rows, if it is a piece (q, k, v, the MLP) of a joined matrix; None: all."""
    swap: bool = False
    """Whether the halves of its rows are swapped."""


def split(name: str) -> tuple[str, str, str] | None:
    """Module, adapter ("" if unnamed) and last word of a tensor's name; None for other tensors."""
    if name.startswith("bundle_emb."):
        return None
    for pattern, word in _WORDS:
        if (match := pattern.search(name)) and match.start():
            return name[: match.start()], match.groupdict().get("adapter") or "", word
    return None


def other_kind(tensors: Iterable[str]) -> tuple[str, str] | None:
    """The kind of an adapter that cannot be merged, and a name that shows it."""
    for name in tensors:
        for kind, pattern in _OTHER_KINDS.items():
            if re.search(pattern, name):
                return kind, name
    return None


def bare(module: str) -> tuple[str | None, str]:
    """The part in a module's name, if any, and the name without its prefix."""
    part = None
    module = module.removeprefix("base_model.model.").removesuffix(".base_layer")
    for prefix, encoder in ENCODERS.items():
        if module.startswith(prefix):
            part, module = encoder, module.removeprefix(prefix)
            break
    former = ""
    while former != module:
        former = module
        for prefix in _PREFIXES:
            if module != prefix.rstrip("._"):
                module = module.removeprefix(prefix)
    return part, module


def flattened(part: str, weights: Weights) -> dict[str, str]:
    """Stems of our and of `diffusers` names, by their kohya spelling."""
    stems = {name.rpartition(".")[0] for name in weights}
    if part == "transformer":
        for stem in list(stems):
            known = names.diffusers_stems(part, stem)
            stems.update(known[1] if known else ())
    flattened = {stem.replace(".", "_"): stem for stem in stems}
    if part == "clip":  # transformers 5 leaves `text_model` out
        flattened |= {name.removeprefix("text_model_"): stem for name, stem in flattened.items()}
    return flattened


def place(
    module: str, parts: Mapping[str, Weights], flattened: Mapping[str, Mapping[str, str]]
) -> Target | None:
    """The target of a module's change; None if no network has such a module."""
    said, name = bare(module)
    for pattern, ours in _SPELLINGS:
        name = pattern.sub(ours, name)
    for part in (said,) if said else ("transformer", "clip", "t5"):
        if part not in parts:
            continue
        stem = flattened[part].get(name.replace(".", "_"), name)
        if _is_ours(stem, parts[part]):
            rows = 3 * parts[part][f"{stem}.weight"].shape[1] if module.endswith(".processor.qkv") else None
            return Target(part, stem, rows=rows)
        known = names.bfl_stem(part, stem) if part == "transformer" else None
        if known is not None and _is_ours(known[2], parts[part]):
            row, piece, ours = known
            first, rows = 0, None
            if len(row.diffusers) > 1:
                total_rows, width = parts[part][f"{ours}.weight"].shape
                first, rows = piece * width, width if piece < 3 else total_rows - 3 * width
            return Target(part, ours, first, rows, row.change == "swap")
    return None


def _is_ours(stem: str, weights: Weights) -> bool:
    return f"{stem}.weight" in weights or f"{stem}.scale" in weights
