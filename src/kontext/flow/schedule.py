"""Times at which the flow is evaluated: from 1 (noise) to 0 (picture), shifted toward noise.

FLUX.1 Kontext report, appendix A.2: t' = e^mu / (e^mu + 1/t - 1); mu grows with the number of target tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def official_mu(target_tokens: int) -> float:
    """mu of FLUX.1, linear from 0.5 at 256 tokens to 1.15 at 4096. Context tokens do not count."""
    slope = (1.15 - 0.5) / (4096 - 256)
    return 0.5 + slope * (target_tokens - 256)


def time_shift(t: float, mu: float) -> float:
    """Shifted time, in [0, 1] for t in [0, 1]; 0 and 1 stay."""
    if t <= 0.0:
        return 0.0
    alpha = math.exp(mu)
    return alpha / (alpha + (1.0 / t - 1.0))


def from_strength(times: Sequence[float], strength: float) -> Sequence[float]:
    """The last ceil(strength N) steps of a schedule of N steps.

    strength: 0 (exclusive) to 1; how much of a picture is changed.
    """
    steps = len(times) - 1
    return times[int(max(steps - min(steps * strength, steps), 0)) :]


def schedule(steps: int, target_tokens: int, shift: float | None = None) -> list[float]:
    """steps + 1 times from exactly 1 to exactly 0.

    shift: e^mu, for models with a fixed one; None: the official mu for the number of target tokens. Raises
    ValueError for fewer than one step or a shift that is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if shift is not None and shift <= 0:
        raise ValueError(f"shift must be positive, got {shift}")
    mu = official_mu(target_tokens) if shift is None else math.log(shift)
    return [time_shift(1.0 - i / steps, mu) for i in range(steps + 1)]
