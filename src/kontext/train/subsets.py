"""Batches that compute only some tokens of each target: where its edit acts, and the nearest around.

The engine computes no others after its first step, and a network that has always seen all tokens is worse at
that. Such a step also takes a third of the time of one on all tokens, most of which stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LIMITS = (1 / 16, 1 / 4, 1 / 2)
"""Shares of the tokens to which such batches are limited, equally often."""


def draw_limit(tokens: int, share: float, step: int) -> int | None:
    """The most tokens that an edit of a step's batch may change, for `share` of the steps; None: any.

    It depends on the step alone, so that all processes of a run have as much to compute.
    """
    if not share:
        return None
    chance, place = torch.rand(2, generator=torch.Generator().manual_seed(step)).tolist()
    return max(1, int(LIMITS[int(place * len(LIMITS))] * tokens)) if chance < share else None


def nearest_tokens(masks: Tensor, limit: int, generator: torch.Generator) -> Tensor | None:
    """Indices (b, n), ascending, of the tokens of each sample to compute, from masks (b, tokens) of its edit.

    n is at most `limit` and at least what the largest edit changes; those around an edit complete the others,
    and without an edit those around a random token. None if an edit changes more than the limit.
    """
    largest = int(masks.sum(1, dtype=torch.int64).max())
    if largest > limit:
        return None
    side = round(masks.shape[1] ** 0.5)
    count = max(1, largest + int(torch.rand((), generator=generator) * (limit - largest + 1)))
    noise = torch.rand(masks.shape, generator=generator)
    reached = masks > 0
    reached |= (noise == noise.amax(1, keepdim=True)) & ~reached.any(1, keepdim=True)
    grown = reached.float().reshape(-1, 1, side, side)
    nearness = grown.clone()
    for _ in range(side):
        grown = F.max_pool2d(grown, 3, stride=1, padding=1)
        nearness += grown
    order = nearness.flatten(1) + 0.9 * noise  # noise decides among equally near ones
    return order.topk(count).indices.sort().values
