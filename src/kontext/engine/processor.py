"""What makes a plain processor quicker: memory that is kept, and a decoder in bfloat16 where it has tiles."""

from __future__ import annotations

import ctypes

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
KEPT_BYTES, LARGE_BYTES = 256 * 2**20, 32 * 2**20


def keep_memory() -> None:
    """Let the C library keep freed memory for what comes next: fresh pages cost a small model a seventh of an
    edit.

    For the whole process; large pieces (over 32 MiB) and all beyond 256 MiB still go back to the system.
    Does nothing where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(MMAP_THRESHOLD, LARGE_BYTES)


def quicken_decoder(model) -> None:
    """Put the autoencoder's decoder into bfloat16 where the processor multiplies that in tiles (AMX).

    Twice as fast there and half a level of 255 from float32, where a round trip costs some ten; elsewhere
    bfloat16 is slower, and nothing is done. Latents, text and transformer stay as they are.
    """
    decoder = model.autoencoder.decoder
    weight = next(decoder.parameters())
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.cpu._is_amx_tile_supported():
        decoder.to(torch.bfloat16)
