"""Means with honest intervals: cluster bootstrap by scene, paired differences between two runs.

Items that share a scene (two languages, several turns) are not independent, so whole scenes are resampled.
If every value is the same (all right, all wrong) resampling gives no interval; the exact binomial bound for
that many scenes is given instead, so that 20 of 20 never reads as "100 % without doubt".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

DRAWS = 2000
LEVEL = 0.95


class EstimateJson(TypedDict):
    """An `Estimate` in JSON: None for nan."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval over ``n`` values; all nan when there was no value."""

    mean: float
    low: float
    high: float
    n: int

    def as_json(self) -> EstimateJson:
        mean, low, high = (None if np.isnan(v) else round(v, 6) for v in (self.mean, self.low, self.high))
        return {"mean": mean, "low": low, "high": high, "n": self.n}

    def scaled(self, factor: float) -> tuple[float, float, float]:
        """Mean, low and high times a factor."""
        return factor * self.mean, factor * self.low, factor * self.high

    @classmethod
    def from_json(cls, data: EstimateJson) -> Estimate:
        values = (data["mean"], data["low"], data["high"])
        mean, low, high = (float("nan") if value is None else float(value) for value in values)
        return cls(mean, low, high, int(data["n"]))


def estimate(
    values: Sequence[float],
    clusters: Sequence[object] | None = None,
    strata: Sequence[object] | None = None,
    *,
    share: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Mean and 95 % percentile interval by cluster bootstrap; nan values are left out.

    ``clusters`` names each value's scene (None: every value its own). With ``strata`` (categories) the mean
    is that of the strata's means and scenes are drawn within each. ``share``: the values lie in 0..1, which
    allows the binomial bound where all are 0 or all are 1.
    """
    known = np.array([i for i, v in enumerate(values) if not np.isnan(v)], int)
    if known.size == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    numbers = np.asarray(values, float)[known]
    if clusters is None:
        names = known
    else:
        names = np.unique([str(clusters[i]) for i in known], return_inverse=True)[1]
    groups = np.zeros(known.size, int)
    if strata is not None:
        groups = np.unique([str(strata[i]) for i in known], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    means, drawn = [], []
    for group in range(groups.max() + 1):
        here = groups == group
        _, index = np.unique(names[here], return_inverse=True)
        sums, counts = np.bincount(index, numbers[here]), np.bincount(index)
        again = rng.integers(counts.size, size=(draws, counts.size))
        means.append(sums.sum() / counts.sum())
        drawn.append(sums[again].sum(1) / counts[again].sum(1))
    mean = float(np.mean(means))
    low, high = np.quantile(np.mean(drawn, 0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if share and low == high and mean in (0.0, 1.0):
        scenes = np.unique(names).size
        bound = ((1 - LEVEL) / 2) ** (1 / scenes)
        low, high = (bound, 1.0) if mean == 1 else (0.0, 1 - bound)
    return Estimate(mean, float(low), float(high), int(known.size))


def paired(
    first: dict[str, float],
    second: dict[str, float],
    clusters: dict[str, str],
    strata: dict[str, str] | None = None,
) -> Estimate:
    """Second minus first over the items that both have (0 inside the interval: no proven difference)."""
    both = [k for k in first if k in second and not np.isnan(first[k] - second[k])]
    differences = [second[k] - first[k] for k in both]
    groups = None if strata is None else [strata[k] for k in both]
    return estimate(differences, [clusters[k] for k in both], groups, share=False)


def slope(values: Sequence[float]) -> float:
    """Theil-Sen slope of a series over its index: the median of all pairwise slopes (nan values left out)."""
    points = [(i, v) for i, v in enumerate(values) if np.isfinite(v)]
    slopes = [(b - a) / (j - i) for k, (i, a) in enumerate(points) for j, b in points[k + 1 :]]
    return float(np.median(slopes)) if slopes else float("nan")
