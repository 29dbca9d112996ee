"""The two text encoders: T5 v1.1 (states for every token) and CLIP text (one pooled vector).

Equal to `T5EncoderModel` and `CLIPTextModel` of `transformers`, with the same names: published files load
without renaming. As in FLUX there is no padding mask: padding is attended to like any other token.

T5: Raffel et al. (arXiv 1910.10683), gated GELU of Shazeer (2002.05202). CLIP: Radford et al. (2103.00020).
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kontext.model.module_list import ModuleList
from kontext.model.presets import ClipConfig, T5Config
from kontext.model.streaming import WeightStream

LEGACY_END_ID = 2
"""In old CLIP configurations, an id that their tokenizer never produces; the end is then the largest id."""


class T5Norm(nn.Module):
    """Root-mean-square norm without bias, computed in float32 (eps 1e-6)."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * (x * scale).to(self.weight.dtype)


class T5SelfAttention(nn.Module):
    """Attention without scaling and biases; the first block owns the position bias of all blocks."""

    def __init__(self, config: T5Config, owns_bias: bool):
        super().__init__()
        inner = config.heads * config.head_width
        self.config = config
        self.q = nn.Linear(config.width, inner, bias=False)
        self.k = nn.Linear(config.width, inner, bias=False)
        self.v = nn.Linear(config.width, inner, bias=False)
        self.o = nn.Linear(inner, config.width, bias=False)
        if owns_bias:
            self.relative_attention_bias = nn.Embedding(config.buckets, config.heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (self.config.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        x = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, scale=1.0
        )  # (batch, heads, length, head_width)
        return self.o(x.transpose(1, 2).flatten(2))

    def position_bias(self, length: int, device: torch.device) -> Tensor:
        """Added to the attention scores, (1, heads, length, length), by distance bucket."""
        position = torch.arange(length, device=device)
        buckets = distance_buckets(
            position[None, :] - position[:, None], self.config.buckets, self.config.max_distance
        )
        return self.relative_attention_bias(buckets).permute(2, 0, 1)[None]


def distance_buckets(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Bucket of each signed distance (key - query), values in [0, buckets).

    Half of the buckets are for earlier keys, half for later ones. In each half, the first buckets are exact,
    the others grow logarithmically up to `max_distance`, and greater distances share the last one
    (1910.10683, section 2.1).
    """
    half = buckets // 2
    exact = half // 2
    size = distance.abs()
    log_ratio = torch.log(size.float() / exact) / math.log(max_distance / exact)
    coarse = (exact + (log_ratio * (half - exact)).clamp(min=0).long()).clamp(max=half - 1)
    return torch.where(size < exact, size, coarse) + half * (distance > 0)


class T5FeedForward(nn.Module):
    """Gated GELU (tanh form): wo(gelu(wi_0 x) * wi_1 x)."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.wi_0 = nn.Linear(config.width, config.feed_forward, bias=False)
        self.wi_1 = nn.Linear(config.width, config.feed_forward, bias=False)
        self.wo = nn.Linear(config.feed_forward, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class T5AttentionLayer(nn.Module):
    def __init__(self, config: T5Config, owns_bias: bool):
        super().__init__()
        self.SelfAttention = T5SelfAttention(config, owns_bias)
        self.layer_norm = T5Norm(config.width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class T5FeedForwardLayer(nn.Module):
    def __init__(self, config: T5Config):
        super().__init__()
        self.DenseReluDense = T5FeedForward(config)
        self.layer_norm = T5Norm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class T5Block(nn.Module):
    def __init__(self, config: T5Config, owns_bias: bool):
        super().__init__()
        self.layer = nn.ModuleList([T5AttentionLayer(config, owns_bias), T5FeedForwardLayer(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.layer[1](self.layer[0](x, bias))


class T5Stack(nn.Module):
    def __init__(self, config: T5Config):
        super().__init__()
        self.block: ModuleList[T5Block] = ModuleList(
            T5Block(config, owns_bias=i == 0) for i in range(config.layers)
        )
        self.final_layer_norm = T5Norm(config.width)
        self.stream: WeightStream | None = None

    def forward(self, x: Tensor) -> Tensor:
        first: Any = self.block[0]
        bias = first.layer[0].SelfAttention.position_bias(x.shape[1], x.device)
        for block in self.block if self.stream is None else self.stream.in_turn([*self.block]):
            x = block(x, bias)
        return self.final_layer_norm(x)


class T5Encoder(nn.Module):
    """T5 v1.1 encoder: token ids (batch, length) -> states (batch, length, width), any length.

    Use float32 or bfloat16: float16 overflows with the published weights. Files may contain the embedding
    twice, also as `encoder.embed_tokens.weight`; only `shared.weight` exists here.
    """

    def __init__(self, config: T5Config):
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab, config.width)
        self.encoder = T5Stack(config)
        inner = config.heads * config.head_width
        _initialize(
            self,
            {
                "shared.weight": 1.0,
                "SelfAttention.q.weight": (config.width * config.head_width) ** -0.5,
                "SelfAttention.o.weight": inner**-0.5,
                "DenseReluDense.wo.weight": config.feed_forward**-0.5,
            },
            otherwise=config.width**-0.5,
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self.encoder(self.shared(ids))


class ClipSelfAttention(nn.Module):
    """Causal multi-head attention with biases."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in projections)
        with _attention_backend(q):
            x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(x.transpose(1, 2).flatten(2))  # from (batch, heads, length, width / heads)


def _attention_backend(queries: Tensor) -> AbstractContextManager:
    """Matrix products in training on a CPU, where the fused backward pass is four times as slow."""
    plain = torch.is_grad_enabled() and queries.device.type == "cpu"
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


def quick_gelu(x: Tensor) -> Tensor:
    """The activation of the published CLIP."""
    return x * torch.sigmoid(1.702 * x)


class ClipFeedForward(nn.Module):
    """fc2(activation(fc1 x))."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.feed_forward)
        self.fc2 = nn.Linear(config.feed_forward, config.width)
        self.activation: Callable[[Tensor], Tensor] = (
            quick_gelu if config.activation == "quick_gelu" else F.gelu
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class ClipBlock(nn.Module):
    """Attention, then feed-forward, each after a layer norm and added to its input."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.self_attn = ClipSelfAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.width)
        self.mlp = ClipFeedForward(config)
        self.layer_norm2 = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipText(nn.Module):
    """CLIP text encoder: token ids (batch, length <= config.length) -> state at the end (batch, width).

    The end is the first position with `config.end_id`, or with the legacy value 2, the first one with the
    largest id. Files may also contain `text_model.embeddings.position_ids` (0, 1, 2, ...), which is not a
    weight.
    """

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        self.text_model = nn.ModuleDict(
            {
                "embeddings": nn.ModuleDict(
                    {
                        "token_embedding": nn.Embedding(config.vocab, config.width),
                        "position_embedding": nn.Embedding(config.length, config.width),
                    }
                ),
                "encoder": nn.ModuleDict(
                    {"layers": nn.ModuleList(ClipBlock(config) for _ in range(config.layers))}
                ),
                "final_layer_norm": nn.LayerNorm(config.width),
            }
        )
        shallow = config.width**-0.5
        _initialize(
            self,
            {"embedding.weight": 0.02, "out_proj.weight": shallow, "fc1.weight": (2 * config.width) ** -0.5},
            otherwise=shallow * (2 * config.layers) ** -0.5,
        )

    def forward(self, ids: Tensor) -> Tensor:
        model: Any = self.text_model
        position = torch.arange(ids.shape[1], device=ids.device)
        x = model.embeddings.token_embedding(ids) + model.embeddings.position_embedding(position)
        for block in model.encoder.layers:
            x = block(x)
        legacy = self.config.end_id == LEGACY_END_ID
        end = (ids if legacy else (ids == self.config.end_id).int()).argmax(-1)
        return model.final_layer_norm(x[torch.arange(len(x), device=x.device), end])


@torch.no_grad()
def _initialize(module: nn.Module, deviations: dict[str, float], otherwise: float) -> None:
    """Initialize matrices normally, with a deviation by the end of their name; biases are 0."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(
                parameter, std=next((s for end, s in deviations.items() if name.endswith(end)), otherwise)
            )
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
