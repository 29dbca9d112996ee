"""How far two ways to compute the same may lie apart: by what rounding explains, and no further."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = torch.finfo(torch.float32).eps


def difference(made: Tensor, expected: Tensor, size: float = 0.0) -> float:
    """The largest difference, relative to the largest of the expected values.

    `size`: of the numbers on the way, where those are larger than the result, as after a norm (1) or in a
    difference.
    """
    made, expected = made.detach(), expected.detach()
    return float((made - expected).abs().max()) / max(size, float(expected.abs().max()))


def rounding(terms: int) -> float:
    """The relative difference that float32 explains between sums of `terms` terms in another order.

    `terms` counts along the longest way from input to output, over all layers. Each addition rounds by at
    most eps/2 of the sum, up or down, so that n of them wander by about sqrt(n) eps/4 (a processor with wider
    vectors sums in another order). This is four times as much.
    """
    return EPS * math.sqrt(terms)


TINY_TERMS = 4 * 512
"""Of the longest sums of tiny's transformer: four blocks, products over width and hidden width, attention."""
