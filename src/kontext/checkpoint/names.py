"""Tensor names of FLUX models: one table for both directions, and the parts of a file.

Our modules are named as in the BFL files. A row pairs the stem of a BFL name (all but its last word) with the
stem or stems of `diffusers`; `{n}` and `{m}` are numbers, `{up}` counts the decoder's levels, from the other
end in `diffusers`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kontext.checkpoint.tensors import LazyTensor, Weights, cut, joined, reshaped

PARTS = ("transformer", "autoencoder", "t5", "clip")


@dataclass(frozen=True)
class Row:
    bfl: str
    diffusers: tuple[str, ...]
    """More than one: joined along the first axis they are the BFL tensor (q, k, v, MLP's first half)."""
    change: str = ""
    """"swap": the halves are exchanged (shift, scale | scale, shift). "pointwise": 1x1 convolution | linear.
    "scale": the last word is `scale` | `weight`."""


def _double(bfl: str, diffusers: str, change: str = "") -> Row:
    return Row("double_blocks.{n}." + bfl, ("transformer_blocks.{n}." + diffusers,), change)


def _single(bfl: str, *diffusers: str, change: str = "") -> Row:
    stems = tuple("single_transformer_blocks.{n}." + stem for stem in diffusers)
    return Row("single_blocks.{n}." + bfl, stems, change)


def _qkv(stream: str, *names: str) -> Row:
    stems = tuple("transformer_blocks.{n}.attn." + name for name in names)
    return Row("double_blocks.{n}." + stream + "_attn.qkv", stems)


TRANSFORMER: tuple[Row, ...] = (
    Row("img_in", ("x_embedder",)),
    Row("txt_in", ("context_embedder",)),
    *(
        Row(f"{ours}_in.{layer}_layer", (f"time_text_embed.{theirs}_embedder.linear_{number}",))
        for ours, theirs in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance"))
        for layer, number in (("in", 1), ("out", 2))
    ),
    _double("img_mod.lin", "norm1.linear"),
    _double("txt_mod.lin", "norm1_context.linear"),
    _qkv("img", "to_q", "to_k", "to_v"),
    _qkv("txt", "add_q_proj", "add_k_proj", "add_v_proj"),
    _double("img_attn.norm.query_norm", "attn.norm_q", "scale"),
    _double("img_attn.norm.key_norm", "attn.norm_k", "scale"),
    _double("txt_attn.norm.query_norm", "attn.norm_added_q", "scale"),
    _double("txt_attn.norm.key_norm", "attn.norm_added_k", "scale"),
    _double("img_attn.proj", "attn.to_out.0"),
    _double("txt_attn.proj", "attn.to_add_out"),
    _double("img_mlp.0", "ff.net.0.proj"),
    _double("img_mlp.2", "ff.net.2"),
    _double("txt_mlp.0", "ff_context.net.0.proj"),
    _double("txt_mlp.2", "ff_context.net.2"),
    _single("modulation.lin", "norm.linear"),
    _single("linear1", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    _single("linear2", "proj_out"),
    _single("norm.query_norm", "attn.norm_q", change="scale"),
    _single("norm.key_norm", "attn.norm_k", change="scale"),
    Row("final_layer.linear", ("proj_out",)),
    Row("final_layer.adaLN_modulation.1", ("norm_out.linear",), "swap"),
)

_RESNET = (
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("nin_shortcut", "conv_shortcut"),
)
_ATTENTION = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"))

AUTOENCODER: tuple[Row, ...] = (
    Row("encoder.down.{n}.downsample.conv", ("encoder.down_blocks.{n}.downsamplers.0.conv",)),
    Row("decoder.up.{up}.upsample.conv", ("decoder.up_blocks.{up}.upsamplers.0.conv",)),
    *(
        Row(f"{bfl}.block.{{m}}.{a}", (f"{diffusers}.resnets.{{m}}.{b}",))
        for bfl, diffusers in (
            ("encoder.down.{n}", "encoder.down_blocks.{n}"),
            ("decoder.up.{up}", "decoder.up_blocks.{up}"),
        )
        for a, b in _RESNET
    ),
    *(
        row
        for side in ("encoder", "decoder")
        for row in (
            Row(f"{side}.conv_in", (f"{side}.conv_in",)),
            Row(f"{side}.norm_out", (f"{side}.conv_norm_out",)),
            Row(f"{side}.conv_out", (f"{side}.conv_out",)),
            Row(f"{side}.mid.attn_1.norm", (f"{side}.mid_block.attentions.0.group_norm",)),
            *(
                Row(f"{side}.mid.attn_1.{a}", (f"{side}.mid_block.attentions.0.{b}",), "pointwise")
                for a, b in _ATTENTION
            ),
            *(
                Row(f"{side}.mid.block_{i + 1}.{a}", (f"{side}.mid_block.resnets.{i}.{b}",))
                for i in (0, 1)
                for a, b in _RESNET
            ),
        )
    ),
)

TABLES: dict[str, tuple[Row, ...]] = {"transformer": TRANSFORMER, "autoencoder": AUTOENCODER}


def _pattern(stem: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(stem)))


_BFL = {part: [(_pattern(row.bfl), row) for row in rows] for part, rows in TABLES.items()}
_DIFFUSERS = {
    part: [(_pattern(stem), row, place) for row in rows for place, stem in enumerate(row.diffusers)]
    for part, rows in TABLES.items()
}


def diffusers_stems(part: str, stem: str, levels: int = 4) -> tuple[Row, tuple[str, ...]] | None:
    """Row and `diffusers` stems for a BFL stem such as `double_blocks.3.img_attn.qkv`, or None."""
    for pattern, row in _BFL[part]:
        if match := pattern.fullmatch(stem):
            numbers = _flipped(match.groupdict(), levels)
            return row, tuple(name.format(**numbers) for name in row.diffusers)
    return None


def bfl_stem(part: str, stem: str, levels: int = 4) -> tuple[Row, int, str] | None:
    """Row, place among its `diffusers` stems, and BFL stem for a `diffusers` stem, or None."""
    for pattern, row, place in _DIFFUSERS[part]:
        if match := pattern.fullmatch(stem):
            return row, place, row.bfl.format(**_flipped(match.groupdict(), levels))
    return None


def to_diffusers(part: str, weights: Weights) -> Weights:
    """Rename tensors to `diffusers` names. Unknown names are kept."""
    levels, renamed = _levels(weights), {}
    for name, tensor in weights.items():
        stem, _, word = name.rpartition(".")
        found = diffusers_stems(part, stem, levels)
        if found is None:
            renamed[name] = tensor
            continue
        row, stems = found
        if row.change == "scale":
            word = "weight"
        if len(stems) > 1:
            width = tensor.shape[0] // 3 if len(stems) == 3 else weights[f"{stem}.weight"].shape[1]
            pieces = cut(tensor, [width, width, width, tensor.shape[0] - 3 * width][: len(stems)])
        else:
            pieces = [_changed(tensor, row.change, word, to_bfl=False)]
        renamed.update({f"{stem}.{word}": piece for stem, piece in zip(stems, pieces)})
    return renamed


def to_bfl(part: str, weights: Weights) -> Weights:
    """Rename tensors to BFL names, which are those of our modules; the inverse of `to_diffusers`.

    Unknown names, and those with missing companions (q, k, v), are kept.
    """
    levels = _levels(weights)
    renamed: Weights = {}
    groups: dict[str, dict[int, str]] = {}
    for name, tensor in weights.items():
        stem, _, word = name.rpartition(".")
        found = bfl_stem(part, stem, levels)
        if found is None:
            renamed[name] = tensor
            continue
        row, place, ours = found
        if len(row.diffusers) > 1:
            group = groups.setdefault(f"{ours}.{word}", {})
            group[place] = name
            if len(group) == len(row.diffusers):
                pieces = [weights[group[i]] for i in range(len(group))]
                renamed[f"{ours}.{word}"] = joined(pieces)
                for piece in group.values():
                    renamed.pop(piece, None)
            else:
                renamed[name] = tensor
        else:
            ours_word = "scale" if row.change == "scale" else word
            renamed[f"{ours}.{ours_word}"] = _changed(tensor, row.change, word, to_bfl=True)
    return renamed


def _changed(tensor: LazyTensor, change: str, word: str, to_bfl: bool) -> LazyTensor:
    if change == "swap":
        first, second = cut(tensor, [tensor.shape[0] // 2] * 2)
        return joined([second, first])
    if change == "pointwise" and word == "weight":
        return reshaped(tensor, (*tensor.shape[:2], 1, 1) if to_bfl else tensor.shape[:2])
    return tensor


def _levels(names: Weights) -> int:
    found = (re.match(r"decoder\.up(?:_blocks)?\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def _flipped(numbers: dict[str, str], levels: int) -> dict[str, str]:
    return {key: str(levels - 1 - int(n)) if key == "up" else n for key, n in numbers.items()}


PREFIXES: dict[str, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.", "diffusion_model.", "transformer.", ""),
    "autoencoder": ("vae.", "first_stage_model.", ""),
    "t5": ("text_encoders.t5xxl.transformer.", "text_encoder_2.", ""),
    "clip": ("text_encoders.clip_l.transformer.", "text_encoder.", ""),
}
"""Prefixes of community files for each part, in files with all parts or one."""

SIGNATURES: dict[str, dict[str, tuple[str, ...]]] = {
    "transformer": {
        "bfl": ("double_blocks.0.", "img_in."),
        "diffusers": ("transformer_blocks.0.", "x_embedder."),
    },
    "autoencoder": {"bfl": ("decoder.up.0.",), "diffusers": ("decoder.up_blocks.0.",)},
    "t5": {"bfl": ("encoder.block.0.",)},
    "clip": {"bfl": ("text_model.encoder.", "encoder.layers.0.")},
}
"""Prefixes that identify a part and its layout. Text encoders have the same names in every layout."""

IGNORED: dict[str, str] = {
    "t5": r"decoder\..*|lm_head\..*|dec\..*|output\.weight",
    "clip": r"(.*\.)?position_ids|vision_model\..*|(visual|text)_projection.*|logit_scale",
}
"""Names in complete T5 and CLIP files that FLUX does not use."""


LLAMA_T5: tuple[tuple[str, str], ...] = (
    (r"token_embd\.", "shared."),
    (r"enc\.output_norm\.", "encoder.final_layer_norm."),
    (r"enc\.blk\.(\d+)\.attn_rel_b\.", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"enc\.blk\.(\d+)\.attn_norm\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"enc\.blk\.(\d+)\.attn_([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (r"enc\.blk\.(\d+)\.ffn_norm\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"enc\.blk\.(\d+)\.ffn_gate\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"enc\.blk\.(\d+)\.ffn_up\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"enc\.blk\.(\d+)\.ffn_down\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)
"""Starts of names of a T5 in llama.cpp's files, as patterns, and ours."""


def find_parts(weights: Weights) -> tuple[dict[str, tuple[str, Weights]], list[str]]:
    """The parts in a file: {part: (layout, weights without prefix)}, and the names that belong to none."""
    found: dict[str, tuple[str, Weights]] = {}
    rest = dict(weights)
    for prefixed in (True, False):  # a part without a prefix gets the names that no prefix matched
        for part in PARTS:
            for prefix in PREFIXES[part]:
                if bool(prefix) != prefixed or part in found:
                    continue
                for layout, starts in SIGNATURES[part].items():
                    if any(name.startswith(tuple(prefix + start for start in starts)) for name in rest):
                        own = [name for name in rest if name.startswith(prefix)]
                        found[part] = layout, {n.removeprefix(prefix): rest.pop(n) for n in own}
                        break
    parts = {part: (layout, _canonical(part, tensors)) for part, (layout, tensors) in found.items()}
    return parts, list(rest)


def _canonical(part: str, weights: Weights) -> Weights:
    """Remove names that FLUX does not use, and resolve aliases of text encoders."""
    ignored = re.compile(IGNORED.get(part, r"(?!)"))
    weights = {name: tensor for name, tensor in weights.items() if not ignored.fullmatch(name)}
    if part == "t5" and (alias := weights.pop("encoder.embed_tokens.weight", None)):
        weights.setdefault("shared.weight", alias)
    if part == "clip" and not any(name.startswith("text_model.") for name in weights):
        weights = {f"text_model.{name}": tensor for name, tensor in weights.items()}
    return weights


def from_llama(weights: Weights) -> Weights:
    """Rename the tensors of a T5 of llama.cpp to their published names; other files stay unchanged."""
    if not any(name.startswith("enc.blk.") for name in weights):
        return weights
    return {_from_llama(name): tensor for name, tensor in weights.items()}


def _from_llama(name: str) -> str:
    for pattern, published in LLAMA_T5:
        name, found = re.subn(f"^{pattern}", published, name)
        if found:
            break
    return name
