"""Solvers that follow the flow from noise to data.

A velocity field is any callable (z, t) -> dz/dt; times are floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
        middle = _middle(t, following)
        v = field(z + (middle - t) * field(z, t).to(z.dtype), middle).to(z.dtype)
        z = z + (following - t) * v
        if on_step is not None:
            on_step(i, z, z - following * v)
    return z


def adams_bashforth(
    field: VelocityField, z: Tensor, times: Sequence[float], on_step: OnStep | None = None
) -> Tensor:
    """Second order with one evaluation a step: the velocity is extrapolated from the last two, linearly in t.

    The two-step method of Adams and Bashforth for steps of any length. The first step is Euler's, and so is
    the last, which is the longest of shifted schedules.
    """
    before = z
    for i, (t, following) in enumerate(zip(times, times[1:])):
        v = field(z, t).to(z.dtype)
        estimate, mean = z - t * v, v
        if i and following > 0:  # the velocity in the middle of the step
            mean = v + (following - t) / 2 / (t - times[i - 1]) * (v - before)
        z, before = z + (following - t) * mean, v
        if on_step is not None:
            on_step(i, z, estimate)
    return z


@dataclass(frozen=True)
class Sampler:
    """A solver, and where it evaluates the field."""

    solve: Callable[[VelocityField, Tensor, Sequence[float], OnStep | None], Tensor]
    step_times: Callable[[float, float], tuple[float, ...]]
    """The times of a step from one time to the next at which the field is evaluated."""


SAMPLERS: Mapping[str, Sampler] = {
    "euler": Sampler(euler, lambda t, following: (t,)),
    "midpoint": Sampler(midpoint, lambda t, following: (t, _middle(t, following))),
    "ab2": Sampler(adams_bashforth, lambda t, following: (t,)),
}


def guided(with_prompt: Tensor, without_prompt: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: extrapolates from the velocity without prompt to that with it."""
    return without_prompt + guidance * (with_prompt - without_prompt)


def _middle(t: float, following: float) -> float:
    return t + (following - t) / 2
