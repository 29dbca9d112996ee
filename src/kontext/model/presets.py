"""Sizes of all networks: `dev` (FLUX.1 Kontext), `nano`, `nano-128` and others (our own), `tiny` (for tests).

`dev` is the published configuration of FLUX.1 Kontext [dev], its autoencoder, T5 v1.1 XXL and CLIP-L.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    in_channels: int = 64
    """Numbers per token: latent channels times the 2x2 patch."""
    width: int
    heads: int
    depth_double: int
    depth_single: int
    axes: tuple[int, int, int]
    """Widths of each head that are rotated by (picture index, row, column); they add up to width / heads."""
    theta: float = 10_000.0
    position_step: float = 1.0
    """Distance of adjacent tokens in the rotary positions of rows and columns. With smaller tokens, a smaller
    step keeps the distances in pixels of the network that the training started from.
    """
    mlp_ratio: float = 4.0
    text_width: int
    """Width of the T5 states."""
    pooled_width: int
    """Width of the CLIP vector."""
    guidance_embed: bool
    qkv_bias: bool = True
    context_attention: Literal["full", "prefix"]
    """"full": all tokens attend to all. "prefix": a context picture attends only to itself, at t = 0, without
    the prompt.
    """
    prediction: Literal["velocity", "picture"] = "velocity"
    """Output of the last layer. "picture": the data at t = 0, from which the velocity follows; better if a
    token has about as many channels as the network is wide.
    """
    region_after: int | None = None
    """Number of single blocks before the region head; None: the model has no region head."""
    output_gates: bool = False
    """The last layer also gates, by channel, what the noisy tokens and the source's tokens add directly to
    the prediction; needed where a token has more channels than the network is wide.
    """
    output_mlp: int = 0
    """Hidden width of a gated MLP over each token's noisy and source channels, steered by the network and
    added to the prediction; 0: none. It can mix channels, as recoloring a surface with its shading needs.
    """

    def __post_init__(self) -> None:
        if self.region_after is not None and not 0 <= self.region_after < self.depth_single:
            raise ValueError(f"region_after must be 0 to {self.depth_single - 1}, got {self.region_after}")
        if sum(self.axes) != self.width // self.heads or self.width % self.heads:
            raise ValueError(f"axes {self.axes} must add up to width / heads = {self.width / self.heads}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    base_width: int
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Width of each level over the base; each level after the first halves the picture."""
    blocks_per_level: int = 2
    latent_channels: int = 16
    latent_shuffle: int = 1
    """The code of a square of pixels becomes `latent_shuffle` x `latent_shuffle` latents (pixel shuffle)."""
    groups: int = 32
    """Groups of every GroupNorm."""
    patch: int = 1
    """The convolutions work on squares of `patch` x `patch` pixels: pixel unshuffle before, shuffle after."""
    linear_path: bool = False
    """A linear code of whole squares next to the convolutions: network + linear, in both directions."""
    scale: float
    shift: float
    """latents = scale * (posterior mean - shift)."""

    @property
    def levels(self) -> int:
        """Factor between the sides of the convolutions' input and of their code."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def code_channels(self) -> int:
        """Channels of the convolutions' code."""
        return self.latent_channels * self.latent_shuffle**2

    @property
    def code_cell(self) -> int:
        """Side in pixels of the square that one position of the convolutions' code represents."""
        return self.patch * self.levels

    @property
    def cell(self) -> int:
        """Side in pixels of the square that one latent position represents."""
        return self.code_cell // self.latent_shuffle


@dataclass(frozen=True, kw_only=True)
class T5Config:
    vocab: int
    width: int
    heads: int
    head_width: int
    layers: int
    feed_forward: int
    buckets: int = 32
    max_distance: int = 128


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    vocab: int
    width: int
    heads: int
    layers: int
    feed_forward: int
    length: int
    """Number of positions; the prompt for CLIP is padded or truncated to it."""
    end_id: int
    """The token whose state is the pooled vector."""
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    steps: int
    guidance: float
    shift: float | None
    """alpha of the time shift t' = alpha t / (1 + (alpha - 1) t); None: e^mu from the number of target
    tokens.
    """


@dataclass(frozen=True, kw_only=True)
class Preset:
    name: str
    description: str
    transformer: TransformerConfig
    autoencoder: AutoencoderConfig
    t5: T5Config
    clip: ClipConfig
    text_length: int
    """T5 tokens, padding included."""
    text_multiple: int | None = None
    """Prompts are padded to the next multiple of this, at most to `text_length`; None: always to
    `text_length`.
    """
    sizes: tuple[tuple[int, int], ...]
    """Picture sizes (width, height) in pixels at which the model works."""
    sampling: Sampling
    smoothing: bool = False
    """Whether the engine evens out recolored surfaces and flat areas, which a small model paints unevenly."""

    @property
    def token_pixels(self) -> int:
        """Side in pixels of the square that one token represents."""
        return 2 * self.autoencoder.cell

    def padded_length(self, tokens: int) -> int:
        """Text tokens, padding included, of a prompt with `tokens` tokens."""
        if self.text_multiple is None:
            return self.text_length
        return min(self.text_length, -(-max(tokens, 1) // self.text_multiple) * self.text_multiple)


DEV_SIZES: tuple[tuple[int, int], ...] = (
    (672, 1568),
    (688, 1504),
    (720, 1456),
    (752, 1392),
    (800, 1328),
    (832, 1248),
    (880, 1184),
    (944, 1104),
    (1024, 1024),
    (1104, 944),
    (1184, 880),
    (1248, 832),
    (1328, 800),
    (1392, 752),
    (1456, 720),
    (1504, 688),
    (1568, 672),
)
"""The 17 preferred sizes of FLUX.1 Kontext, narrowest first (so that ties go to the smaller width)."""


def _square_like_sizes(side: int) -> tuple[tuple[int, int], ...]:
    return ((side, side),)


DEV = Preset(
    name="dev",
    description="FLUX.1 Kontext [dev], 12 B, photographs; bring the files",
    transformer=TransformerConfig(
        width=3072,
        heads=24,
        depth_double=19,
        depth_single=38,
        axes=(16, 56, 56),
        text_width=4096,
        pooled_width=768,
        guidance_embed=True,
        context_attention="full",
    ),
    autoencoder=AutoencoderConfig(base_width=128, scale=0.3611, shift=0.1159),
    t5=T5Config(vocab=32128, width=4096, heads=64, head_width=64, layers=24, feed_forward=10240),
    clip=ClipConfig(vocab=49408, width=768, heads=12, layers=12, feed_forward=3072, length=77, end_id=49407),
    text_length=512,
    sizes=DEV_SIZES,
    sampling=Sampling(steps=28, guidance=2.5, shift=None),
)

NANO = Preset(
    name="nano",
    description="our own 20 M model of the illustrated world, 256x256, for one GPU's training",
    transformer=TransformerConfig(
        width=384,
        heads=6,
        depth_double=1,
        depth_single=5,
        axes=(16, 24, 24),
        text_width=256,
        pooled_width=128,
        guidance_embed=False,
        context_attention="prefix",
    ),
    autoencoder=AutoencoderConfig(base_width=24, blocks_per_level=1, groups=1, scale=1.0, shift=0.0),
    t5=T5Config(vocab=2048, width=256, heads=4, head_width=64, layers=3, feed_forward=512),
    clip=ClipConfig(vocab=2048, width=128, heads=2, layers=2, feed_forward=512, length=48, end_id=1),
    text_length=48,
    sizes=_square_like_sizes(256),
    sampling=Sampling(steps=4, guidance=1.0, shift=6.0),
)

NANO_256 = Preset(
    name="nano-256",
    description="our own model of the illustrated world, 256x256, small enough to train on two CPU cores",
    transformer=TransformerConfig(
        in_channels=256,
        width=192,
        heads=3,
        depth_double=1,
        depth_single=5,
        axes=(16, 24, 24),
        text_width=128,
        pooled_width=128,
        guidance_embed=False,
        context_attention="prefix",
        prediction="picture",
        region_after=2,
        output_gates=True,
    ),
    autoencoder=AutoencoderConfig(
        base_width=32,
        multipliers=(1, 2, 3),
        blocks_per_level=1,
        latent_channels=64,
        groups=1,
        patch=4,
        linear_path=True,
        scale=1.0,
        shift=0.0,
    ),
    t5=T5Config(vocab=2048, width=128, heads=2, head_width=64, layers=2, feed_forward=384),
    clip=ClipConfig(vocab=2048, width=128, heads=2, layers=2, feed_forward=384, length=64, end_id=1),
    text_length=64,
    text_multiple=8,
    sizes=_square_like_sizes(256),
    sampling=Sampling(steps=4, guidance=1.0, shift=20.0),
    smoothing=True,
)

NANO_256_P16 = replace(
    NANO_256,
    name="nano-256-p16",
    description="nano-256 with tokens of 16 x 16 pixels instead of 32 x 32: finer, and four times the work",
    transformer=replace(NANO_256.transformer, in_channels=64, position_step=0.5),
    autoencoder=replace(NANO_256.autoencoder, latent_channels=16, latent_shuffle=2),
)

NANO_128 = Preset(
    name="nano-128",
    description="our own 5 M model of the illustrated world, 128x128, small enough to train on two CPU cores",
    transformer=TransformerConfig(
        width=192,
        heads=3,
        depth_double=1,
        depth_single=5,
        axes=(16, 24, 24),
        text_width=128,
        pooled_width=128,
        guidance_embed=False,
        context_attention="prefix",
    ),
    autoencoder=AutoencoderConfig(base_width=16, blocks_per_level=1, groups=1, scale=1.0, shift=0.0),
    t5=T5Config(vocab=2048, width=128, heads=2, head_width=64, layers=2, feed_forward=384),
    clip=ClipConfig(vocab=2048, width=128, heads=2, layers=2, feed_forward=384, length=40, end_id=1),
    text_length=40,
    sizes=_square_like_sizes(128),
    sampling=Sampling(steps=4, guidance=1.0, shift=20.0),
    smoothing=True,
)

TINY = Preset(
    name="tiny",
    description="for tests: fast, with random weights",
    transformer=TransformerConfig(
        width=96,  # more than the 64 channels of a token: noise must pass through next to everything else
        heads=3,
        depth_double=1,
        depth_single=2,
        axes=(8, 12, 12),
        text_width=32,
        pooled_width=32,
        guidance_embed=False,
        context_attention="prefix",
    ),
    autoencoder=AutoencoderConfig(
        base_width=8, multipliers=(1, 1, 2, 2), blocks_per_level=1, groups=1, scale=1.0, shift=0.0
    ),
    t5=T5Config(vocab=300, width=32, heads=2, head_width=16, layers=1, feed_forward=64),
    clip=ClipConfig(vocab=300, width=32, heads=2, layers=1, feed_forward=64, length=64, end_id=1),
    text_length=64,
    sizes=((64, 64), (48, 80), (80, 48)),
    sampling=Sampling(steps=2, guidance=1.0, shift=3.0),
)

PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (DEV, NANO, NANO_256, NANO_256_P16, NANO_128, TINY)
}
