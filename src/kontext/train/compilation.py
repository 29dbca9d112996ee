"""Detects whether torch.compile works; without it training runs uncompiled."""

from __future__ import annotations

import functools
import logging

import torch

from kontext.model.compilation import compile_failure

log = logging.getLogger(__name__)


@functools.cache
def can_compile(device: torch.device) -> bool:
    """Whether a sum can be compiled on this device; if not, log one warning with the reason."""
    failure = compile_failure(device)
    if failure is not None:
        log.warning("training runs without compilation, which is slower: %s", failure)
    return failure is None
