"""The straight path z_t = (1 - t) x + t e from data x to noise e, its velocity, and training times."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """z_t for t (b,) in [0, 1]; data and noise (b, ...)."""
    t = t.reshape(-1, *(1,) * (data.ndim - 1))
    return torch.lerp(data, noise, t)


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """dz/dt along the path, constant in t: the network's target."""
    return noise - data


def training_times(
    count: int,
    generator: torch.Generator,
    *,
    shift: float = 1.0,
    uniform_share: float = 0.0,
    stratified: bool = True,
) -> Tensor:
    """Times (count,) in (0, 1): logit-normal (mean 0, deviation 1), then shifted by alpha = `shift`.

    `uniform_share` (0 to 1) of them is drawn uniformly. Stratified: one draw from each of `count` equal
    slices of the distribution, in random order, for even coverage in every batch.
    """
    u = torch.rand(count, generator=generator)
    if stratified:
        u = (torch.randperm(count, generator=generator) + u) / count
    normal = torch.special.ndtri(u.clamp(1e-5, 1 - 1e-5))
    t = torch.sigmoid(normal)
    t = shift * t / (1 + (shift - 1) * t)
    uniform = torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < uniform_share, uniform, t)
