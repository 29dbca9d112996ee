"""Detects whether torch.compile works.

It needs a C++ compiler on a CPU, and Triton and a C compiler on a GPU; without them training runs uncompiled.
"""

from __future__ import annotations

import functools
import logging
import secrets

import torch

log = logging.getLogger(__name__)


@functools.cache
def can_compile(device: torch.device) -> bool:
    """Whether a sum can be compiled on this device; if not, log one warning with the reason."""
    number = secrets.randbelow(2**30)  # part of the source, so that no cache of an earlier process answers
    try:
        torch.compile(lambda x: x + number, dynamic=False)(torch.ones(16, device=device))
    except Exception as error:  # of any part of the compiler's tool chain
        reason = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("training runs without compilation, which is slower: %s", reason[0])
        return False
    return True
