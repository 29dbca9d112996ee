"""Small previews of the expected result: a linear map from latents to colors, without the decoder.

The map is fitted once per model, by least squares, on a chart of colors, ramps and edges. A latent covers
several pixels of a preview, as many as its channels can represent.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kontext.engine.context import parameter_type
from kontext.model.autoencoder import Autoencoder

CHART_SIDE = 256
STRENGTH = 1e-5  # of the ridge that keeps unused latent channels at rest
UNCHANGED = 1e-3
"""Largest difference of two latents that is only rounding."""


def fit_projection(autoencoder: Autoencoder) -> Tensor:
    """Linear map from a latent and a constant to the colors of its s x s preview pixels.

    Of shape (channels + 1, 3 * s * s); colors are in [-1, 1].
    """
    pixels = _chart().to(next(autoencoder.parameters()).device, parameter_type(autoencoder))
    latents = autoencoder.encode(pixels).cpu().double()  # MPS has no float64
    cell = CHART_SIDE // latents.shape[-1]
    side = math.isqrt(latents.shape[1] // 3)
    side = max(size for size in range(1, side + 1) if cell % size == 0)
    colors = torch.nn.functional.avg_pool2d(pixels.cpu().double(), cell // side)
    colors = torch.nn.functional.pixel_unshuffle(colors, side)
    x = torch.cat((latents, torch.ones_like(latents[:, :1])), dim=1).flatten(2)[0].T  # (blocks, channels + 1)
    y = colors.flatten(2)[0].T
    ridge = STRENGTH * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(x.T @ x + ridge, x.T @ y).float()


def paint(latents: Tensor, projection: Tensor) -> Image.Image:
    """Latents (channels, height, width) as a picture of s * width x s * height pixels."""
    latents = latents.float().cpu()
    x = torch.cat((latents, torch.ones_like(latents[:1])))
    colors = torch.einsum("chw,ck->khw", x, projection)
    colors = torch.nn.functional.pixel_shuffle(colors, math.isqrt(projection.shape[1] // 3)).permute(1, 2, 0)
    return Image.fromarray(((colors.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy())


def over_source(preview: Image.Image, latents: Tensor, before: Tensor, source: Image.Image) -> Image.Image:
    """Blend a preview over the source where latents (channels, height, width) have changed.

    Elsewhere the source is shown. Of the source's size, at most `CHART_SIDE`.
    """
    changed = ((latents - before).abs() > UNCHANGED).any(0).cpu().numpy()
    scale = min(1.0, CHART_SIDE / max(source.size))
    size = (max(1, round(scale * source.width)), max(1, round(scale * source.height)))
    shown = Image.fromarray(changed.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    enlarged = preview.resize(size, Image.Resampling.BICUBIC)
    return Image.composite(enlarged, source.resize(size, Image.Resampling.BILINEAR), shown)


def _chart() -> Tensor:
    """(1, 3, side, side) in [-1, 1]: flat patches of many colors over ramps."""
    random = np.random.default_rng(0)
    side = CHART_SIDE
    ramp = np.linspace(-1, 1, side)
    chart = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], -ramp[:, None] * ramp[None, :]))
    chart = np.array(chart, np.float32)
    for _ in range(220):
        x, y = random.integers(0, side, 2)
        width, height = random.integers(8, 56, 2)
        chart[:, y : y + height, x : x + width] = random.uniform(-1, 1, (3, 1, 1))
    return torch.from_numpy(chart)[None]
