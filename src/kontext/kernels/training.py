"""A transformer's evaluation with gradients, on the kernels between its products.

The products run in PyTorch, in the type of the autocast or in float32; what is between them runs on the
kernels, forward and backward.

Targets that share a context picture share its keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.kernels.training_attention import FusedAttention, HeadLayout
from kontext.kernels.training_passes import BiasedGelu, GatedResidual, Layout, ModulatedNorm, Passes
from kontext.model.blocks import (
    ContextKVRecorder,
    DoubleStreamBlock,
    KeysValues,
    Modulated,
    QKNorm,
    SelfAttention,
    SingleStreamBlock,
)
from kontext.model.transformer import Prepared, StepModulation, Transformer


class TrainingTransformer:
    """Evaluates a transformer of `context_attention = "prefix"` from its current weights, with gradients."""

    def __init__(self, transformer: Transformer, passes: Mapping[torch.dtype, Passes]):
        """passes: for every type that products may have."""
        self.transformer, self.passes = transformer, passes

    def evaluate_with_region(
        self,
        target: Tensor,
        prepared: Prepared,
        mod: StepModulation,
        recorder: ContextKVRecorder | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As `Transformer.evaluate_with_region`, without a recorder."""
        if recorder is not None or prepared.context is not None:
            raise ValueError('the kernels for training need context_attention = "prefix"')
        network, count = self.transformer, len(target)
        doubles, singles = network.double_blocks, network.single_blocks
        layout = Layout(count, prepared.rotary.shape[-3], prepared.text.shape[1])
        heads = self._heads(layout, prepared.rotary)
        prefix = prepared.prefix or (None,) * (len(doubles) + len(singles))
        picture, text = _matrix(network.img_in(target)), _matrix(prepared.text)
        for block, mods, context_kv in zip(doubles, mod.double, prefix):
            picture, text = _double(heads, block, picture, text, *mods, context_kv)
        x, region = torch.cat((text, picture)), None
        for i, (single, (block_mod,), context_kv) in enumerate(
            zip(singles, mod.single, prefix[len(doubles) :])
        ):
            if i == network.config.region_after:
                text, picture = x.split(layout.sizes)
                region, conditioned = network.region_head(picture.unflatten(0, (count, -1)))
                x = torch.cat((text, _matrix(conditioned)))
            if single is singles[-1]:
                heads = self._heads(layout, prepared.rotary, start=layout.first)
            x, _ = _single(heads, single, x, block_mod, context_kv)
        return network.final_layer(x.unflatten(0, (count, -1)), mod.final), region

    def prefill(self, tokens: Tensor, mod: StepModulation, rotary: Tensor) -> list[KeysValues]:
        """Keys and values of context pictures, block by block."""
        network, blocks = self.transformer, []
        layout = Layout(*tokens.shape[:2])
        heads = self._heads(layout, rotary, shares_kv=True)
        x = _matrix(network.img_in(tokens))
        for block, (picture_mod, _) in zip(network.double_blocks, mod.double):
            x, context_kv = _double_context(heads, block, x, picture_mod)
            blocks.append(context_kv)
        for single, (block_mod,) in zip(network.single_blocks, mod.single):
            if single is network.single_blocks[-1]:
                heads = self._heads(layout, rotary, start=layout.rows, shares_kv=True)
            x, shared = _single(heads, single, x, block_mod, None)
            assert shared is not None
            blocks.append(shared)
        return blocks

    def _heads(self, layout: Layout, rotary: Tensor, start: int = 0, shares_kv: bool = False) -> HeadLayout:
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else torch.float32
        return HeadLayout(self.passes[dtype], layout, self.transformer.config.heads, rotary, start, shares_kv)


def _single(
    heads: HeadLayout, block: SingleStreamBlock, x: Tensor, mod: Modulated, prefix: KeysValues | None
) -> tuple[Tensor, KeysValues | None]:
    """The rows of x that are queries, updated, and keys and values if they are shared."""
    layout, weight, bias = heads.layout, block.linear1.weight, block.linear1.bias
    kv = slice(block.width, 3 * block.width)
    shift, factor, gate = _flat(mod)
    x, normed = ModulatedNorm.apply(heads.passes, layout, x, shift, factor)
    scales = _scales(block.norm, block.norm)
    if heads.start == layout.rows:
        shared = FusedAttention.apply(
            heads, F.linear(normed, weight[kv]), bias[kv], None, None, scales, None, None
        )
        return x, KeysValues(*shared)
    first: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
    queries = layout
    if heads.start:
        queries = Layout(layout.items, layout.rows - layout.first)
        first_normed, normed = normed.split(layout.sizes)
        first, x = (F.linear(first_normed, weight[kv]), bias[kv]), x[layout.sizes[0] :]
    joined, *shared = FusedAttention.apply(
        heads, F.linear(normed, weight), bias, *first, scales, *(prefix or (None, None))
    )
    y = F.linear(joined, block.linear2.weight)
    x = GatedResidual.apply(heads.passes, queries, x, y, block.linear2.bias, gate)
    return x, KeysValues(*shared) if shared else None


def _double(
    heads: HeadLayout,
    block: DoubleStreamBlock,
    picture: Tensor,
    text: Tensor,
    picture_mod: tuple[Modulated, ...],
    text_mod: tuple[Modulated, ...],
    prefix: KeysValues | None,
) -> tuple[Tensor, Tensor]:
    items, rows, first = heads.layout
    of_text, of_picture = Layout(items, first), Layout(items, rows - first)
    text, text_h, text_bias = _project(heads.passes, of_text, block.txt_attn, text, text_mod[0])
    picture, h, bias = _project(heads.passes, of_picture, block.img_attn, picture, picture_mod[0])
    scales = _scales(block.txt_attn.norm, block.img_attn.norm)
    text_out, out = FusedAttention.apply(heads, h, bias, text_h, text_bias, scales, *(prefix or (None, None)))
    return (
        _finish(heads.passes, of_picture, picture, out, picture_mod, block.img_attn, block.img_mlp),
        _finish(heads.passes, of_text, text, text_out, text_mod, block.txt_attn, block.txt_mlp),
    )


def _double_context(
    heads: HeadLayout, block: DoubleStreamBlock, x: Tensor, mod: tuple[Modulated, ...]
) -> tuple[Tensor, KeysValues]:
    x, h, bias = _project(heads.passes, heads.layout, block.img_attn, x, mod[0])
    scales = _scales(block.img_attn.norm, block.img_attn.norm)
    out, *shared = FusedAttention.apply(heads, h, bias, None, None, scales, None, None)
    x = _finish(heads.passes, heads.layout, x, out, mod, block.img_attn, block.img_mlp)
    return x, KeysValues(*shared)


def _project(
    passes: Passes, layout: Layout, attention: SelfAttention, x: Tensor, mod: Modulated
) -> tuple[Tensor, Tensor, Tensor]:
    """x; its queries, keys and values without bias; the bias."""
    shift, factor, _ = _flat(mod)
    x, normed = ModulatedNorm.apply(passes, layout, x, shift, factor)
    bias = attention.qkv.bias
    return x, F.linear(normed, attention.qkv.weight), x.new_zeros(3 * x.shape[1]) if bias is None else bias


def _finish(
    passes: Passes,
    layout: Layout,
    x: Tensor,
    attended: Tensor,
    mods: tuple[Modulated, ...],
    attention: SelfAttention,
    mlp: nn.Sequential,
) -> Tensor:
    first, _, last = mlp
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    _, _, gate = _flat(mods[0])
    x = GatedResidual.apply(
        passes, layout, x, F.linear(attended, attention.proj.weight), attention.proj.bias, gate
    )
    shift, factor, gate = _flat(mods[1])
    x, normed = ModulatedNorm.apply(passes, layout, x, shift, factor)
    hidden = BiasedGelu.apply(passes, layout, F.linear(normed, first.weight), first.bias)
    return GatedResidual.apply(passes, layout, x, F.linear(hidden, last.weight), last.bias, gate)


def _flat(mod: Modulated) -> tuple[Tensor, ...]:
    """Shift, factor and gate, (batch or 1, width), float32."""
    return tuple(part.flatten(0, 1).float().contiguous() for part in mod)


def _matrix(x: Tensor) -> Tensor:
    """(batch, n, width) -> (batch * n, width), float32."""
    return x.flatten(0, 1).float().contiguous()


def _scales(first: QKNorm, other: QKNorm) -> Tensor:
    return torch.stack(
        [first.query_norm.scale, other.query_norm.scale, first.key_norm.scale, other.key_norm.scale]
    ).unflatten(0, (2, 2))
