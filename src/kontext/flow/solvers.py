"""Solvers that follow the flow from noise to data.

A velocity field is any callable (z, t) -> dz/dt; times are floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

VelocityField = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, Tensor, Tensor], None]
"""Called after step i with the state and the estimate z - t v of the data at the start of the step."""


def euler(field: VelocityField, z: Tensor, times: Sequence[float], on_step: OnStep | None = None) -> Tensor:
    """First order: one evaluation per step. The state keeps the type of z; use float32."""
    for i, (t, following) in enumerate(zip(times, times[1:])):
        v = field(z, t).to(z.dtype)
        estimate = z - t * v
        z = z + (following - t) * v
        if on_step is not None:
            on_step(i, z, estimate)
    return z


def midpoint(
    field: VelocityField, z: Tensor, times: Sequence[float], on_step: OnStep | None = None
) -> Tensor:
    """Second order: two evaluations per step, the second at its midpoint."""
    for i, (t, following) in enumerate(zip(times, times[1:])):
        half = (following - t) / 2
        middle = z + half * field(z, t).to(z.dtype)
        v = field(middle, t + half).to(z.dtype)
        z = z + (following - t) * v
        if on_step is not None:
            on_step(i, z, z - following * v)
    return z


def guided(with_prompt: Tensor, without_prompt: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: extrapolates from the velocity without prompt to that with it."""
    return without_prompt + guidance * (with_prompt - without_prompt)
