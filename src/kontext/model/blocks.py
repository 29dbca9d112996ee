"""The two blocks of the transformer.

Double-stream: text and picture with separate weights and joint attention. Single-stream: one sequence,
attention and MLP in parallel. Parameter names are those of the published files.

In "prefix" attention a context picture passes through the same blocks alone (`context`), which gives the keys
and values that text and target attend to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.model.attention_guidance import AttentionGuidance
from kontext.model.linear import linear_rows
from kontext.model.rope import apply_rotary

GELU_SLOPE, GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


class KeysValues(NamedTuple):
    """Rotated keys and values of one block, each (batch, heads, n, head_width)."""

    keys: Tensor
    values: Tensor


class ContextKVRecorder:
    """Records each block's keys and values of the context: the rows from `start` on."""

    def __init__(self, start: int):
        self.start = start
        self.blocks: list[KeysValues] = []

    def add(self, keys: Tensor, values: Tensor) -> None:
        self.blocks.append(KeysValues(keys[:, :, self.start :].clone(), values[:, :, self.start :].clone()))


class Modulated(NamedTuple):
    """Shift, scale and gate of one branch, each (batch, 1, width)."""

    shift: Tensor
    factor: Tensor
    """1 + scale."""
    gate: Tensor

    def modulated_norm(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self.factor, F.layer_norm(x, x.shape[-1:], eps=1e-6))


def gelu(x: Tensor) -> Tensor:
    """GELU, approximated with tanh."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.gelu(x, approximate="tanh")
    # x * sigmoid(2u) equals x * (1 + tanh(u)) / 2 and takes half the time on a CPU.
    inner = torch.square(x).mul_(2 * GELU_CUBIC * GELU_SLOPE).add_(2 * GELU_SLOPE).mul_(x)
    return inner.sigmoid_().mul_(x)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention of (batch, heads, n, head_width), joined to (batch, n, heads * head_width)."""
    if keys.shape[0] != queries.shape[0]:  # one context shared by a batch of variants
        keys = keys.expand(queries.shape[0], -1, -1, -1)
        values = values.expand(queries.shape[0], -1, -1, -1)
    if torch.is_grad_enabled() and queries.device.type == "cpu":  # slow backward pass of the fused kernel
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        attended = scores.float().softmax(-1).to(values.dtype) @ values
    else:
        attended = F.scaled_dot_product_attention(queries, keys, values)
    return attended.transpose(1, 2).flatten(2)


class GELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=1e-6) * self.scale


class QKNorm(nn.Module):
    """Root-mean-square norms of queries and keys in one operation, to save overhead in small models."""

    def __init__(self, head_width: int):
        super().__init__()
        self.query_norm = RMSNorm(head_width)
        self.key_norm = RMSNorm(head_width)

    def forward(self, qk: Tensor) -> Tensor:
        """(batch, n, 2, heads, head_width): queries, then keys."""
        scales = torch.stack((self.query_norm.scale, self.key_norm.scale))[:, None]
        return F.rms_norm(qk, qk.shape[-1:], eps=1e-6) * scales


class SelfAttention(nn.Module):
    """Projections of one stream; the block computes the joint attention."""

    def __init__(self, width: int, heads: int, bias: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.norm = QKNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (batch, n, width) -> normed queries and keys, values: (batch, n, 2 or 1, heads, head_width)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        return self.norm(qkv[:, :, :2]), qkv[:, :, 2:]


class Modulation(nn.Module):
    """Shift, scale and gate for one (single) or two (double) branches, from the conditioning vector."""

    def __init__(self, width: int, branches: int):
        super().__init__()
        self.lin = nn.Linear(width, 3 * branches * width)

    def forward(self, activated: Tensor) -> tuple[Modulated, ...]:
        """activated: silu of the conditioning vector, (batch, width)."""
        parts = self.lin(activated)[:, None].chunk(self.lin.out_features // self.lin.in_features, dim=-1)
        triples = (parts[i : i + 3] for i in range(0, len(parts), 3))
        return tuple(Modulated(shift, 1 + scale, gate) for shift, scale, gate in triples)


class DoubleStreamBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float, qkv_bias: bool):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.img_mod = Modulation(width, branches=2)
        self.img_attn = SelfAttention(width, heads, qkv_bias)
        self.img_mlp = nn.Sequential(nn.Linear(width, hidden), GELU(), nn.Linear(hidden, width))
        self.txt_mod = Modulation(width, branches=2)
        self.txt_attn = SelfAttention(width, heads, qkv_bias)
        self.txt_mlp = nn.Sequential(nn.Linear(width, hidden), GELU(), nn.Linear(hidden, width))

    def forward(
        self,
        picture: Tensor,
        text: Tensor,
        picture_mod: tuple[Modulated, ...],
        text_mod: tuple[Modulated, ...],
        rotary: Tensor,
        prefix: KeysValues | None = None,
        recorder: ContextKVRecorder | None = None,
        guidance: AttentionGuidance | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Update picture (b, n, width) and text (b, m, width); rotary over [text | picture]."""
        text_qk, text_v = self.txt_attn.project(text_mod[0].modulated_norm(text))
        picture_qk, picture_v = self.img_attn.project(picture_mod[0].modulated_norm(picture))
        q, k = _heads(apply_rotary(torch.cat((text_qk, picture_qk), dim=1), rotary))
        (v,) = _heads(torch.cat((text_v, picture_v), dim=1))
        if recorder is not None:
            recorder.add(k, v)
        if prefix is not None:
            k, v = _extend(k, prefix.keys), _extend(v, prefix.values)
        attended = attend(q, k, v)
        if guidance is not None:
            attended = guidance(attended, text.shape[1])
        text_out, picture_out = attended.split((text.shape[1], picture.shape[1]), dim=1)
        return (
            self._finish(picture, picture_out, picture_mod, self.img_attn, self.img_mlp),
            self._finish(text, text_out, text_mod, self.txt_attn, self.txt_mlp),
        )

    def context(
        self, picture: Tensor, picture_mod: tuple[Modulated, ...], rotary: Tensor
    ) -> tuple[Tensor, KeysValues]:
        """The picture stream of a context, attending only to itself; returns it with its keys and values."""
        qk, v = self.img_attn.project(picture_mod[0].modulated_norm(picture))
        (q, k), (v,) = _heads(apply_rotary(qk, rotary)), _heads(v)
        picture = self._finish(picture, attend(q, k, v), picture_mod, self.img_attn, self.img_mlp)
        return picture, KeysValues(k, v)

    @staticmethod
    def _finish(
        x: Tensor, attended: Tensor, mod: tuple[Modulated, ...], attention: SelfAttention, mlp: nn.Module
    ) -> Tensor:
        x = torch.addcmul(x, mod[0].gate, attention.proj(attended))
        return torch.addcmul(x, mod[1].gate, mlp(mod[1].modulated_norm(x)))


class SingleStreamBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.width, self.heads = width, heads
        self.hidden = int(width * mlp_ratio)
        self.modulation = Modulation(width, branches=1)
        self.linear1 = nn.Linear(width, 3 * width + self.hidden)
        self.linear2 = nn.Linear(width + self.hidden, width)
        self.norm = QKNorm(width // heads)

    def forward(
        self,
        x: Tensor,
        mod: tuple[Modulated, ...],
        rotary: Tensor,
        prefix: KeysValues | None = None,
        query_rows: slice | None = None,
        recorder: ContextKVRecorder | None = None,
        guide: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The updated `query_rows` (None: all) of the joined sequence x (b, n, width).

        Of the other rows only keys and values are used. `guide` modifies the output of the attention.
        """
        normed = mod[0].modulated_norm(x)
        if query_rows is None:
            q, k, v, mlp = self._project(normed, rotary)
        else:
            q, k, v, mlp = self._project(normed[:, query_rows], rotary[..., query_rows, :, :])
            others = [slice(0, query_rows.start), slice(query_rows.stop, None)]
            other_kv = self._project_kv(
                torch.cat([normed[:, rows] for rows in others], dim=1),
                torch.cat([rotary[..., rows, :, :] for rows in others], dim=-3),
            )
            k, v, x = (
                torch.cat((k, other_kv.keys), dim=2),
                torch.cat((v, other_kv.values), dim=2),
                x[:, query_rows],
            )
        if recorder is not None:
            recorder.add(k, v)
        if prefix is not None:
            k, v = _extend(k, prefix.keys), _extend(v, prefix.values)
        attended = attend(q, k, v)
        return self._finish(x, attended if guide is None else guide(attended), mlp, mod[0].gate)

    def context(
        self, x: Tensor, mod: tuple[Modulated, ...], rotary: Tensor, last: bool = False
    ) -> tuple[Tensor, KeysValues]:
        """A context picture, attending only to itself; the last block computes only keys and values."""
        if last:
            return x, self._project_kv(mod[0].modulated_norm(x), rotary)
        q, k, v, mlp = self._project(mod[0].modulated_norm(x), rotary)
        return self._finish(x, attend(q, k, v), mlp, mod[0].gate), KeysValues(k, v)

    def _project(self, x: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        qkv, mlp = self.linear1(x).split((3 * self.width, self.hidden), dim=-1)
        qkv = qkv.unflatten(-1, (3, self.heads, -1))
        (q, k), (v,) = _heads(apply_rotary(self.norm(qkv[:, :, :2]), rotary)), _heads(qkv[:, :, 2:])
        return q, k, v, mlp

    def _project_kv(self, x: Tensor, rotary: Tensor) -> KeysValues:
        rows = slice(self.width, 3 * self.width)
        kv = linear_rows(self.linear1, x, rows)
        k, v = kv.unflatten(-1, (2, 1, self.heads, -1)).unbind(2)
        (k,), (v,) = _heads(apply_rotary(self.norm.key_norm(k), rotary)), _heads(v)
        return KeysValues(k, v)

    def _finish(self, x: Tensor, attended: Tensor, mlp: Tensor, gate: Tensor) -> Tensor:
        joined = torch.cat((attended, gelu(mlp)), dim=-1)
        return torch.addcmul(x, gate, self.linear2(joined))


class MLPEmbedder(nn.Module):
    """Linear, SiLU, Linear: embeds time, guidance and pooled text into the conditioning vector."""

    def __init__(self, in_width: int, width: int):
        super().__init__()
        self.in_layer = nn.Linear(in_width, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class LastLayer(nn.Module):
    """Modulated norm and projection to the velocity."""

    def __init__(self, width: int, out_channels: int):
        super().__init__()
        self.linear = nn.Linear(width, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def modulation(self, activated: Tensor) -> Modulated:
        shift, scale = self.adaLN_modulation[1](activated)[:, None].chunk(2, dim=-1)
        return Modulated(shift, 1 + scale, scale.new_ones(()))

    def forward(self, x: Tensor, mod: Modulated) -> Tensor:
        return self.linear(mod.modulated_norm(x))


class OutputMLP(nn.Module):
    """Gated MLP from a token's noisy and source channels to its prediction, steered by the network.

    gelu(W [noisy, source] + u) * (V [noisy, source] + v), then a projection. u and v come from the last
    layer, so that what the network has understood acts on channels that it is too narrow to carry.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.tokens = nn.Linear(2 * channels, 2 * hidden)
        self.out = nn.Linear(hidden, channels)

    def forward(self, steering: Tensor, target: Tensor, source: Tensor | None) -> Tensor:
        """steering (b, n, 2 * hidden); target, source (b, n, channels). Returns (b, n, channels)."""
        source = torch.zeros_like(target) if source is None else source.to(target.dtype).expand_as(target)
        gate, value = (self.tokens(torch.cat((target, source), dim=-1)) + steering).chunk(2, dim=-1)
        return self.out(gelu(gate) * value)


def sinusoidal_embedding(value: Tensor, width: int = 256) -> Tensor:
    """Sinusoidal embedding (n, width) of value (n,).

    Cosines, then sines, of 1000 * value at `width / 2` frequencies from 1 down to 1/10000.
    """
    half = width // 2
    frequency = torch.exp(
        torch.arange(half, dtype=torch.float32, device=value.device) * (-math.log(10_000) / half)
    )
    angle = 1000 * value[:, None].float() * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def _heads(x: Tensor) -> tuple[Tensor, ...]:
    """Split (batch, n, k, heads, head_width) into k tensors (batch, heads, n, head_width)."""
    return x.transpose(1, 3).unbind(2)


def _extend(own: Tensor, prefix: Tensor) -> Tensor:
    """Own keys or values, then those of a prefix, each of which serves as many adjacent items."""
    sharing = own.shape[0] // prefix.shape[0]
    return torch.cat((own, prefix[:, None].expand(-1, sharing, -1, -1, -1).flatten(0, 1)), dim=2)
