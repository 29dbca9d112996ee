"""Which precision of products is the faster one on the device that trains."""

from __future__ import annotations

import functools
import time

import torch

SIDE = 512
"""Rows and columns of the products that are timed."""
GAIN = 1.2
"""How much faster bfloat16 has to be: converting to it and back is not free."""


@functools.cache
def bfloat16_is_faster(device: str) -> bool:
    """Whether matrix products in bfloat16 pay on this device.

    True for GPUs. On a processor it is measured: some have matrix units or dot products for bfloat16, others
    list the instructions and are slower with them than in float32.
    """
    if torch.device(device).type != "cpu":
        return True
    return GAIN * _product_seconds(torch.bfloat16) < _product_seconds(torch.float32)


def _product_seconds(dtype: torch.dtype) -> float:
    a = torch.ones(SIDE, SIDE, dtype=dtype)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return min(times)
