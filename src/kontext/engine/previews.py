"""Small pictures of where the sampling is heading: a linear map from latents to colors, no decoder needed.

The map is fitted once per model, by least squares, on a chart of colors, ramps and edges.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kontext.engine.context import parameter_type

CHART_SIDE = 256
STRENGTH = 1e-3  # of the ridge that keeps unused latent channels at rest


def fit_projection(autoencoder: torch.nn.Module) -> Tensor:
    """(channels + 1, 3): colors in [-1, 1] of the block of pixels of a latent from it and a constant."""
    pixels = _chart().to(next(autoencoder.parameters()).device, parameter_type(autoencoder))
    latents = autoencoder.encode(pixels).cpu().double()  # MPS has no float64
    cell = CHART_SIDE // latents.shape[-1]
    colors = torch.nn.functional.avg_pool2d(pixels.cpu().double(), cell)
    x = torch.cat((latents, torch.ones_like(latents[:, :1])), dim=1).flatten(2)[0].T  # (blocks, channels + 1)
    y = colors.flatten(2)[0].T
    ridge = STRENGTH * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(x.T @ x + ridge, x.T @ y).float()


def paint(latents: Tensor, projection: Tensor) -> Image.Image:
    """Latents (channels, height, width) as a picture of width x height pixels."""
    latents = latents.float().cpu()
    x = torch.cat((latents, torch.ones_like(latents[:1])))
    colors = torch.einsum("chw,ck->hwk", x, projection)
    return Image.fromarray(((colors.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy())


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
