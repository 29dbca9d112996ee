"""Detects whether torch.compile works, and which batches are worth it; others run uncompiled."""

from __future__ import annotations

import functools
import logging

import torch

from kontext.model.compilation import compile_failure

log = logging.getLogger(__name__)

COMPILED_TEXT = 24
"""Longest text, in tokens, that is worth compiling the blocks for."""


@functools.cache
def can_compile(device: torch.device) -> bool:
    """Whether a sum can be compiled on this device; if not, log one warning with the reason."""
    failure = compile_failure(device)
    if failure is not None:
        log.warning("training runs without compilation, which is slower: %s", failure)
    return failure is None


def is_rare(contexts: int, text: int) -> bool:
    """Whether batches with these numbers of context pictures and of text tokens are too rare to compile for.

    Each length and number of pictures is compiled anew, which takes seconds to minutes.
    """
    return contexts != 1 or text > COMPILED_TEXT
