"""The transformer's evaluation on the tile kernels: the network of `kontext.model`, number for number, with
what surrounds each product done inside of it.

A step of the shipped model is some 500 small operations in PyTorch and 26 here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.model.blocks import (
    DoubleStreamBlock,
    Keep,
    KeysValues,
    Modulated,
    QKNorm,
    SelfAttention,
    SingleStreamBlock,
)
from kontext.model.rope import apply_rotary
from kontext.model.transformer import Prepared, StepModulation, Transformer
from kontext.tiles.library import Kernels, TiledLinear

Tiled = Callable[[nn.Linear], TiledLinear]


class TiledTransformer:
    """Evaluates a transformer of float32; `parts`: 3 for products as exact as float32's, 1 for bfloat16's."""

    def __init__(self, transformer: Transformer, kernels: Kernels, parts: int):
        config = transformer.config
        self.width, self.heads, self.hidden = config.width, config.heads, int(config.width * config.mlp_ratio)
        self.kernels, self.parts = kernels, parts

        def tiled(layer: nn.Linear) -> TiledLinear:
            return TiledLinear(kernels, layer, parts)

        self.img_in, self.last = tiled(transformer.img_in), tiled(transformer.final_layer.linear)
        self.double = [_Double.of(block, tiled) for block in transformer.double_blocks]
        self.single = [_Single.of(block, tiled) for block in transformer.single_blocks]

    def evaluate(
        self, target: Tensor, prepared: Prepared, mod: StepModulation, keep: Keep | None = None
    ) -> Tensor:
        """As `Transformer.evaluate`."""
        start, rotary = prepared.text.shape[1], prepared.rotary
        asked = slice(start, start + target.shape[1])
        x = target.new_empty(target.shape[0], rotary.shape[0], self.width)
        x[:, :start] = prepared.text
        self.img_in(target, x[:, asked])
        if prepared.context is not None:
            x[:, asked.stop :] = prepared.context
        room = self._room(x)
        prefix = prepared.prefix or (None,) * (len(self.double) + len(self.single))
        for double, pair, seen in zip(self.double, mod.double, prefix):
            self._double(double, x, room, pair, start, rotary, seen)
            if keep is not None:
                keep.blocks.append(self._lent(room, double, rotary, keep.start))
        for single, (one,), seen in zip(self.single, mod.single, prefix[len(self.double) :]):
            wanted = asked if single is self.single[-1] else slice(0, x.shape[1])
            self._single(single, x, room, one, rotary, seen, wanted)
            if keep is not None:
                keep.blocks.append(self._lent(room, single, rotary, keep.start))
        out = torch.empty_like(target)
        self.last(x[:, asked], out, before=mod.final)
        return out

    def prefill(self, tokens: Tensor, mod: StepModulation, rotary: Tensor) -> list[KeysValues]:
        """Keys and values of one context picture, block by block."""
        x = tokens.new_empty(*tokens.shape[:2], self.width)
        self.img_in(tokens, x)
        room, blocks = self._room(x), []
        for double, pair in zip(self.double, mod.double):
            self._double(double, x, room, pair, 0, rotary, None)
            blocks.append(self._lent(room, double, rotary))
        for single, (one,) in zip(self.single, mod.single):
            wanted = slice(0, 0 if single is self.single[-1] else x.shape[1])
            self._single(single, x, room, one, rotary, None, wanted)
            blocks.append(self._lent(room, single, rotary))
        return blocks

    def _room(self, x: Tensor) -> _Room:
        b, n, w = x.shape
        return _Room(
            x.new_empty(b, 3 * self.heads, n, w // self.heads), x.new_empty(b, n, w + self.hidden), w
        )

    def _double(
        self,
        block: _Double,
        x: Tensor,
        room: _Room,
        mods: tuple[tuple[Modulated, ...], tuple[Modulated, ...]],
        change: int,
        rotary: Tensor,
        seen: KeysValues | None,
    ) -> None:
        """x: text up to row `change`, then pictures; each with its own weights."""
        streams = [(block.picture, slice(change, None), mods[0])]
        if change:
            streams.append((block.text, slice(0, change), mods[1]))
        for stream, rows, mod in streams:
            stream.qkv(x[:, rows], heads=room.qkv[:, :, rows], before=mod[0])
        every = slice(0, x.shape[1])
        self.kernels.attention(room.qkv, block.scales, change, rotary, seen, room.attended, every, self.parts)
        for stream, rows, mod in streams:
            stream.proj(room.attended[:, rows], x[:, rows], gate=mod[0].gate)
            stream.mlp_in(x[:, rows], room.mlp[:, rows], before=mod[1], gelu=True)
            stream.mlp_out(room.mlp[:, rows], x[:, rows], gate=mod[1].gate)

    def _single(
        self,
        block: _Single,
        x: Tensor,
        room: _Room,
        mod: Modulated,
        rotary: Tensor,
        seen: KeysValues | None,
        wanted: slice,
    ) -> None:
        """Updates the `wanted` rows of x; the others lend their keys and values."""
        lent = slice(self.width, 3 * self.width)
        for rows in (slice(0, wanted.start), slice(wanted.stop, x.shape[1])):
            if rows.start < rows.stop:
                block.linear1(x[:, rows], heads=room.qkv[:, self.heads :, rows], before=mod, columns=lent)
        if wanted.start == wanted.stop:
            return
        block.linear1(x[:, wanted], room.mlp[:, wanted], heads=room.qkv[:, :, wanted], before=mod, gelu=True)
        self.kernels.attention(room.qkv, block.scales, 0, rotary, seen, room.attended, wanted, self.parts)
        block.linear2(room.both[:, wanted], x[:, wanted], gate=mod.gate)

    def _lent(self, room: _Room, block: _Double | _Single, rotary: Tensor, start: int = 0) -> KeysValues:
        """A block's keys, normed and turned, and values, as others see them: of rows from `start` on."""
        keys, values = room.qkv[:, self.heads :, start:].unflatten(1, (2, self.heads)).unbind(1)
        keys = F.rms_norm(keys, keys.shape[-1:], eps=1e-6) * block.scales[1][1]
        (turned,) = apply_rotary(keys.transpose(1, 2).unsqueeze(2), rotary[start:]).transpose(1, 3).unbind(2)
        return KeysValues(turned.contiguous(), values.clone())


@dataclass(frozen=True)
class _Room:
    """Where the blocks of one evaluation work, one after the other."""

    qkv: Tensor
    """(b, 3 heads, n, head_width)."""
    both: Tensor
    """(b, n, width + hidden): what attention gives, then the MLP's hidden numbers."""
    width: int

    @property
    def attended(self) -> Tensor:
        return self.both[..., : self.width]

    @property
    def mlp(self) -> Tensor:
        return self.both[..., self.width :]


@dataclass(frozen=True)
class _Stream:
    qkv: TiledLinear
    proj: TiledLinear
    mlp_in: TiledLinear
    mlp_out: TiledLinear


@dataclass(frozen=True)
class _Double:
    picture: _Stream
    text: _Stream
    scales: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, block: DoubleStreamBlock, tiled: Tiled) -> _Double:
        def stream(attention: SelfAttention, mlp: nn.Sequential) -> _Stream:
            return _Stream(tiled(attention.qkv), tiled(attention.proj), tiled(mlp[0]), tiled(mlp[2]))

        scales = _scales(block.txt_attn.norm, block.img_attn.norm)
        return cls(stream(block.img_attn, block.img_mlp), stream(block.txt_attn, block.txt_mlp), scales)


@dataclass(frozen=True)
class _Single:
    linear1: TiledLinear
    linear2: TiledLinear
    scales: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, block: SingleStreamBlock, tiled: Tiled) -> _Single:
        return cls(tiled(block.linear1), tiled(block.linear2), _scales(block.norm, block.norm))


def _scales(before: QKNorm, after: QKNorm) -> tuple[Tensor, Tensor]:
    return (
        torch.stack((before.query_norm.scale, after.query_norm.scale)).detach(),
        torch.stack((before.key_norm.scale, after.key_norm.scale)).detach(),
    )
