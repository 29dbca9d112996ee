"""Options that trade exactness for speed in the sampling loop; all are off by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WARM_UP = 3
"""Evaluations at the start of a schedule that a step cache never skips; composition is decided there."""
MAX_SKIPPED = 4
"""Evaluations in a row that a step cache may skip."""


@dataclass(frozen=True)
class Approximations:
    """The approximations of one edit; the defaults are exact."""

    context_refresh: int = 1
    """In "full" attention, how many evaluations share one computation of the contexts."""
    step_cache: float = 0.0
    """The velocity is extrapolated while its predicted relative error is below this; 0: never."""


class StepCache:
    """Extrapolates the velocity where that is predicted to be accurate, instead of computing it.

    From the last two computed velocities the velocity is extrapolated linearly in time. How far off that was
    is known whenever a velocity is computed all the same; the error of the next extrapolations is predicted
    from it, as it grows with the product of the times since the two. A velocity is computed when the
    predicted error reaches the threshold, in the warm-up and at the end of the schedule, and after
    `MAX_SKIPPED` extrapolations. Other step caches (EasyCache, arXiv 2507.02860) keep the last velocity or
    its offset to the state. Every picture of a batch is decided on its own, so that its result does not
    depend on the batch.
    """

    def __init__(self, threshold: float, evaluations: int) -> None:
        """threshold: relative error of a velocity; evaluations: of the whole schedule."""
        self.threshold, self.evaluations = threshold, evaluations
        self.index = -1
        self.reset()

    def reset(self) -> None:
        """Forget all velocities, because the tokens of the state change. The schedule continues."""
        self.computed: tuple[_Computed, _Computed] | None = None
        """The last two computed evaluations, the older one first."""
        self.curvature: Tensor | None = None
        """Relative error of an extrapolation per square of time, (b,)."""
        self.skipped: Tensor | None = None
        """Extrapolations since the last computed evaluation, (b,)."""

    def __call__(self, z: Tensor, t: float, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The velocity at z (b, n, channels): extrapolated, or from `compute(z)` if any picture needs it."""
        self.index += 1
        time = torch.full((len(z),), t, device=z.device)
        if self.computed is None or self.skipped is None:
            first = _Computed(compute(z), time)
            self.computed, self.skipped = (first, first), torch.zeros_like(time)
            return first.velocity
        older, newer = self.computed
        distance = (time - newer.time) * (time - older.time)
        extrapolated = newer.velocity
        if older is not newer:
            slope = (newer.velocity - older.velocity) / _each(newer.time - older.time)
            extrapolated = newer.velocity + _each(time - newer.time) * slope
        skip = torch.zeros_like(time, dtype=torch.bool)
        if self.curvature is not None and WARM_UP <= self.index < self.evaluations - 1:
            accurate = self.curvature * distance < self.threshold
            skip = accurate & (self.skipped < MAX_SKIPPED)
        self.skipped = torch.where(skip, self.skipped + 1, 0.0)
        if bool(skip.all()):
            return extrapolated
        v = torch.where(_each(skip), extrapolated, compute(z))
        if older is not newer:
            curvature = _size(v - extrapolated) / _size(v) / distance
            previous = curvature if self.curvature is None else self.curvature
            self.curvature = torch.where(skip, previous, curvature)
        self.computed = older.replaced(newer, ~skip), newer.replaced(_Computed(v, time), ~skip)
        return v


@dataclass(frozen=True)
class _Computed:
    """Computed velocities (b, n, channels) of the pictures of a batch, and their times (b,)."""

    velocity: Tensor
    time: Tensor

    def replaced(self, other: _Computed, where: Tensor) -> _Computed:
        """The same, with the pictures `where`, (b,) bool, taken from another."""
        return _Computed(
            torch.where(_each(where), other.velocity, self.velocity),
            torch.where(where, other.time, self.time),
        )


def _each(x: Tensor) -> Tensor:
    """Numbers (b,) of pictures, to combine with their tokens (b, n, channels)."""
    return x[:, None, None]


def _size(x: Tensor) -> Tensor:
    """Mean magnitude (b,) of each picture's numbers."""
    return x.float().abs().mean((1, 2))
