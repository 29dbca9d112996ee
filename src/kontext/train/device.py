"""The training device: a GPU works ahead of the host, which therefore waits for nothing."""

from __future__ import annotations

import torch
from torch import Tensor

CPU = torch.device("cpu")


def prepare(device: torch.device) -> None:
    """Set up this process for training on a device."""
    if device.type == "cuda":
        # The only run on an H100 that came to its end had it off; one before, with it, aborted.
        torch.backends.cuda.enable_cudnn_sdp(False)
        if torch.cuda.is_available():  # several threads wait for cores that the workers keep busy
            torch.set_num_threads(1)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """The value on a device, without waiting for the work that a GPU still has to do."""
    if device.type == "cuda" and value.device == CPU and torch.cuda.is_available():
        value = value.pin_memory()  # from other memory, more than 64 KiB are copied after that work
    return value.to(device, non_blocking=True)
