"""Compute devices: which ones exist, and device failures as errors with advice."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kontext.errors import BadCheckpoint, DeviceUnavailable, OutOfMemory
from kontext.memory import available

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
_FAILED = ("cuda error", "cudnn error", "cublas_status", "hip error", "mps backend", "nvidia driver")


def available_devices() -> list[str]:
    """Names of the devices of this machine, fastest first: "cuda:0", "cuda:1", ..., "mps", "cpu"."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def usable_device(name: str | torch.device | None = None) -> torch.device:
    """The device with this name, or the fastest device. Raises DeviceUnavailable if it cannot be used."""
    found = available_devices()
    if name is None:
        name = found[0].partition(":")[0]
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(
            f"device {str(name)!r} is not known; available: {', '.join(found)}"
        ) from error
    requested = str(device) if device.index is not None and device.type == "cuda" else device.type
    if requested not in {*found, *(name.partition(":")[0] for name in found)}:
        built = torch.backends.cuda.is_built() or device.type != "cuda"
        why = "" if built else " (this PyTorch is a build without CUDA; see pytorch.org for one with it)"
        raise DeviceUnavailable(f"device '{name}' is not available{why}; available: {', '.join(found)}")
    with explained_errors(device):
        torch.empty(1, device=device)
    return device


def planned_device(name: str) -> torch.device:
    """A device of a known type, in this machine or not. Raises DeviceUnavailable."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cuda", "mps", "cpu"):
        raise DeviceUnavailable(f"device {name!r} is unknown; give cuda, mps or cpu")
    return device


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return available()


def release_memory(device: torch.device) -> None:
    """Give freed memory back, so that what comes next is not refused for it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def explained_errors(device: torch.device | str) -> Iterator[None]:
    """Convert errors of PyTorch, numpy and Pillow into OutOfMemory and DeviceUnavailable."""
    try:
        yield
    except (RuntimeError, MemoryError, AssertionError) as error:
        text = str(error).lower()
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
            words in text for words in _NO_MEMORY
        ):
            raise OutOfMemory(
                f"out of memory on {device}; try a smaller picture or size, fewer variants or references, "
                "a quantized or smaller model, or end other programs that use this memory"
            ) from error
        if any(words in text for words in _FAILED):
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DeviceUnavailable(
                f"device {device} failed ({first}); start again, check the driver if it happens again, "
                "or use another device, such as cpu"
            ) from error
        raise


@contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """Inference in the types of the weights, with converted errors.

    Independent of the caller's PyTorch settings.
    """
    with (
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
        explained_errors(device),
    ):
        yield


def finite(values: Tensor, source: str) -> Tensor:
    """Return `values`. Raises BadCheckpoint if one is NaN or infinite; `source` names what computed them."""
    if not bool(values.isfinite().all()):
        raise BadCheckpoint(
            f"the {source} gave values that are not finite (NaN or infinity): its weights are damaged or "
            f"overflow in {str(values.dtype).removeprefix('torch.')}; get the file again, or load it with "
            "dtype float32"
        )
    return values
