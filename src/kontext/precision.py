"""Chooses the faster precision of matrix products on a device."""

from __future__ import annotations

import functools
import time

import torch

SIDE = 512
"""Rows and columns of the products that are timed."""
GAIN = 1.2
"""Minimum speed-up by bfloat16: converting to it and back takes time."""


@functools.cache
def bfloat16_is_faster(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster on this device.

    True for GPUs. On a CPU it is measured: some have fast matrix units or dot products for bfloat16, others
    support the instructions but are slower than with float32.
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
