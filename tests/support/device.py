"""A simulated accelerator, which refuses what a real one refuses.

Tensors report `cuda:0` or `mps` and compute on the CPU.

    with simulated("cuda") as device:
        editor = Editor.load("tiny-random", device="cuda")

`simulated` acts on the whole process, threads started inside included. It counts what is placed on the
device, and raises AssertionError for a tensor that one stream writes and another uses without waiting. It
does not show a real device's rounding and speed, or the memory that an operation allocates inside. For
worker processes, `load_editor` is an editor factory (see `kontext.server.workers.worker`), and
SIMULATED_DEVICES in the environment says which devices they have.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

CPU = torch.device("cpu")
READS = {"__bool__", "__float__", "__int__", "__index__", "item", "tolist", "equal", "nonzero", "is_nonzero"}
"""Calls that wait for the device and copy a value to the host."""
TO_NUMPY = {"numpy", "__array__"}
FREE = {"__repr__", "__format__", "copy_", "__getitem__", "__setitem__", "is_set_to", "__set__"}
"""Calls that may mix devices, or need no check."""
GRAPH = {"requires_grad_", "backward", "grad", "is_leaf", "retain_grad"}
"""Calls and attributes that mean the tensor itself as a node of the graph of gradients, not its values."""
NORMS = {"group_norm", "layer_norm", "rms_norm", "native_group_norm", "native_layer_norm"}
"""CUDA and MPS have no norms whose weights are of another type than the input; the CPU has."""


class DeviceTensor(Tensor):
    """Values in host memory that belong to the simulated device."""

    home = CPU
    stream: Stream | None = None
    """The stream that makes it; None: the device's own."""
    made_at = 0
    recorded = False

    def record_stream(self, stream: Stream) -> None:
        self.recorded = True

    @property
    def device(self) -> torch.device:
        return self.home

    @property
    def is_cuda(self) -> bool:
        return self.home.type == "cuda"

    @property
    def is_mps(self) -> bool:
        return self.home.type == "mps"

    @property
    def is_cpu(self) -> bool:
        return False

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


class Generator(torch.Generator):
    """Random numbers of the CPU or of the simulated device."""

    home = CPU

    def __new__(cls, device: object = CPU):
        made = super().__new__(cls)
        made.home = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.home


class Stream:
    """An additional CUDA stream: it runs at once, but is checked as if it did not."""

    def __init__(self, device: object = None):
        self.done = 0

    def wait_event(self, event: Event) -> None:
        if event.stream is not None:
            _thread.waited = {**getattr(_thread, "waited", {}), event.stream: event.at}


class Event:
    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.at = 0

    def record(self, stream: Stream | None = None) -> None:
        self.stream, self.at = stream, 0 if stream is None else stream.done

    def synchronize(self) -> None:
        """The host waits: from then on every thread and stream may use earlier results."""
        if self.stream is not None:
            _finished[self.stream] = max(_finished.get(self.stream, 0), self.at)


_thread = threading.local()
_finished: weakref.WeakKeyDictionary[Stream, int] = weakref.WeakKeyDictionary()
"""What the host has waited for, of each stream."""


@contextmanager
def _on_stream(stream: Stream) -> Iterator[None]:
    _thread.stream = stream
    try:
        yield
    finally:
        _thread.stream = None


class Device(TorchFunctionMode):
    """Intercepts every call of PyTorch's API, also those that have no tensor of the device yet.

    reads: how often a value was copied to the host. capability: the compute capability of CUDA. free_bytes:
    raise as the device does once a single tensor needs more; None: never. total_bytes: memory of the device;
    raise once all tensors together need more.
    placed_bytes, peak_bytes: of all tensors on it, now and at most.
    """

    def __init__(self, name: str, count: int = 1):
        super().__init__()
        self.type, self.count = torch.device(name).type, count
        self.reads = 0
        self.capability = (9, 0)
        self.free_bytes: int | None = None
        self.total_bytes: int | None = None
        self.placed_bytes = self.peak_bytes = 0
        self._holders: dict[int, tuple[int, int]] = {}
        self._lock = threading.RLock()

    def _out_of_memory(self) -> Exception:
        if self.type == "cuda":
            return torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total"
            )
        return RuntimeError("MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 20 GB")

    def _hold(self, tensor: Tensor) -> None:
        """Count the memory of a tensor until the last one that shares it is gone."""
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not place:
            return
        with self._lock:
            holders, known = self._holders.get(place, (0, size))
            if not holders:
                if self.total_bytes is not None and self.placed_bytes + size > self.total_bytes:
                    raise self._out_of_memory()
                self.placed_bytes += size
                self.peak_bytes = max(self.peak_bytes, self.placed_bytes)
            self._holders[place] = holders + 1, known
        weakref.finalize(tensor, self._let_go, place)

    def _let_go(self, place: int) -> None:
        with self._lock:
            holders, size = self._holders.pop(place)
            if holders > 1:
                self._holders[place] = holders - 1, size
            else:
                self.placed_bytes -= size

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})

    def resolved(self, given: object) -> torch.device | None:
        """The device that a call names: None for none, the CPU or this one, with its index."""
        if isinstance(given, int) and not isinstance(given, bool):
            given = f"{self.type}:{given}"
        if not isinstance(given, str | torch.device):
            return None
        device = torch.device(given)
        if device.type == CPU.type:
            return CPU
        if device.type == "meta":  # shapes without memory
            return None
        if device.type != self.type:
            raise AssertionError(f"Torch not compiled with {device.type.upper()} enabled")
        if (device.index or 0) >= self.count:
            raise RuntimeError(
                "CUDA error: invalid device ordinal\nCUDA kernel errors might be asynchronously"
            )
        return torch.device(self.type, device.index or 0) if self.type == "cuda" else torch.device(self.type)

    def free_and_total(self, _: object = None) -> tuple[int, int]:
        total = 2**40 if self.total_bytes is None else self.total_bytes
        return total - self.placed_bytes, total

    def placed(self, tensor: Tensor, device: torch.device) -> Tensor:
        if self.free_bytes is not None and tensor.nelement() * tensor.element_size() > self.free_bytes:
            raise self._out_of_memory()
        if self.type == "mps" and tensor.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
                "Please use float32 instead."
            )
        out = tensor.as_subclass(DeviceTensor)
        out.home = device
        out.stream = getattr(_thread, "stream", None)
        if out.stream is not None:
            out.stream.done += 1
            out.made_at = out.stream.done
        self._hold(out)
        return out


_current: list[Device] = []


def _call(func, args, kwargs):
    if func in (torch.device, torch._C._nn._parse_to):  # they only read names
        return func(*args, **kwargs)
    with torch._C.DisableTorchFunctionSubclass():
        return _checked(_current[-1], func, args, kwargs)


def _checked(device, func, args, kwargs):
    name = getattr(func, "__name__", "")
    if func is torch._has_compatible_shallow_copy_type:  # a module moves by getting new parameters
        return not any(isinstance(tensor, DeviceTensor) for tensor in args)
    flat = tree_flatten((args, kwargs))[0]
    tensors = [tensor for tensor in flat if isinstance(tensor, Tensor)]
    places = {tensor.home for tensor in tensors if isinstance(tensor, DeviceTensor)}
    target = device.resolved(kwargs.get("device"))
    if name in ("to", "cuda", "cpu", "mps"):
        target = CPU if name == "cpu" else target
        for given in args[1:]:
            target = target or (given.device if isinstance(given, Tensor) else None)
            target = target or (None if isinstance(given, bool) else device.resolved(given))
    if places:
        if name not in ("is_set_to", "__set__", "__get__"):
            _check_streams(tensors)
        if name in TO_NUMPY:
            raise TypeError(
                f"can't convert {next(iter(places))} device type tensor to numpy. "
                "Use Tensor.cpu() to copy the tensor to host memory first."
            )
        if name in READS or target == CPU:
            device.reads += 1
        if name not in FREE and name not in ("to", "cpu"):
            _check(device, name, tensors, places)
        if name == "_scaled_mm":
            _check_fp8(device, *args, **kwargs)
        if name == "__setitem__" and isinstance(args[2], Tensor) and args[2].ndim:
            _check(device, name, [args[0], args[2]], {args[0].device, args[2].device})
    generator = kwargs.get("generator")
    if target not in (None, CPU) and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"Expected a '{target.type}' device type for generator but found 'cpu'")

    attribute = getattr(func.__self__, "__name__", "") if name in ("__get__", "__set__") else ""
    # setting `data` gives a tensor other memory
    of_the_graph = (attribute or name) in GRAPH or (attribute, name) == ("data", "__set__")
    bare: dict[int, Tensor] = {}  # in-place calls return their argument itself

    def taken(tensor):
        if isinstance(tensor, DeviceTensor) and not of_the_graph:
            plain = tensor.as_subclass(Tensor)
            bare[id(plain)] = tensor
            return plain
        named = isinstance(tensor, torch.device) or (
            isinstance(tensor, str) and tensor.split(":")[0] == device.type
        )
        return CPU if named else tensor

    given, named = tree_map(taken, args), tree_map(taken, kwargs)
    result = func(*given, **named)
    home = target or next(iter(places), None)
    moved = name in ("to", "cuda", "cpu", "mps") and isinstance(result, Tensor)
    if moved and isinstance(args[0], Tensor) and home != args[0].device and _shares(result, args[0]):
        result = result.clone()  # another device has memory of its own
    if home in (None, CPU):
        return result

    def returned(tensor):
        if not isinstance(tensor, Tensor) or (of_the_graph and isinstance(tensor, DeviceTensor)):
            return tensor
        return bare[id(tensor)] if id(tensor) in bare and name != "to" else device.placed(tensor, home)

    return tree_map(returned, result)


def _shares(tensor: Tensor, other: Tensor) -> bool:
    plain = other.as_subclass(Tensor) if isinstance(other, DeviceTensor) else other
    return tensor.nelement() > 0 and tensor.untyped_storage().data_ptr() == plain.untyped_storage().data_ptr()


def _check_streams(tensors: list[Tensor]) -> None:
    """A tensor of another stream must have been waited for, and its memory kept for this one."""
    current = getattr(_thread, "stream", None)
    for tensor in tensors:
        stream = getattr(tensor, "stream", None)
        if stream is None or stream is current:
            continue
        waited = max(getattr(_thread, "waited", {}).get(stream, 0), _finished.get(stream, 0))
        if waited < tensor.made_at:
            raise AssertionError("used before the stream that makes it was waited for")
        if not tensor.recorded:
            raise AssertionError("used on another stream without record_stream")


def _check(device: Device, name: str, tensors: list[Tensor], places: set[torch.device]) -> None:
    strays = {tensor.device for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.ndim}
    if len(places | strays) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(map(str, places | strays)))}! (in {name})"
        )
    if name == "native_group_norm" and not tensors[0].is_contiguous():
        raise RuntimeError("Expected X.is_contiguous(memory_format) to be true, but got false.")
    types = {tensor.dtype for tensor in tensors}
    if len(types) > 1 and (name in NORMS or (name == "batch_norm" and device.type == "mps")):
        first, other = tensors[0].dtype, next(iter(types - {tensors[0].dtype}))
        raise RuntimeError(f"expected scalar type {first} but found {other} (in {name})")
    if device.type == "mps" and name in ("view_as_complex", "float_power"):
        raise NotImplementedError(
            f"The operator 'aten::{name}' is not currently implemented for the MPS device"
        )


def _check_fp8(device: Device, a, b, scale_a, scale_b, bias=None, scale_result=None, out_dtype=None) -> None:
    """Products of 8-bit floats, as PyTorch documents them for CUDA."""
    if device.type != "cuda":
        raise NotImplementedError(f"The operator 'aten::_scaled_mm' is not implemented for {device.type}")
    if device.capability < (8, 9):
        raise RuntimeError(
            "torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9"
        )
    if not (a.is_contiguous() and b.t().is_contiguous()):
        raise RuntimeError("a must be row-major and b column-major")
    if any(size % 16 for size in (a.shape[1], *b.shape)):
        raise RuntimeError("Expected the dimensions of both matrices to be divisible by 16")
    if not a.dtype == b.dtype == torch.float8_e4m3fn or scale_a.dtype != torch.float32 != scale_b.dtype:
        raise RuntimeError("Expected e4m3 and scales in float32")
    rows = (scale_a.shape, scale_b.shape) == ((a.shape[0], 1), (1, b.shape[1]))
    if not rows and not scale_a.numel() == scale_b.numel() == 1:
        raise RuntimeError("Invalid scaling configuration")
    if rows and device.capability < (9, 0):
        raise RuntimeError("Rowwise scaling is not currently supported on your device")
    if rows and out_dtype != torch.bfloat16:
        raise RuntimeError("Only bf16 high precision output types are supported for row-wise scaling")
    if bias is not None and bias.dtype != torch.bfloat16:
        raise RuntimeError("Bias must be BFloat16")


@contextmanager
def simulated(name: str, count: int = 1) -> Iterator[Device]:
    """A process in which PyTorch has `count` devices of this kind ("cuda" or "mps"), and no other."""
    device = Device(name, count)
    run = threading.Thread.run

    def run_with_device(thread: threading.Thread) -> None:
        with device:  # modes of PyTorch belong to one thread
            run(thread)

    cuda = device.type == "cuda"
    _current.append(device)
    try:
        with (
            mock.patch("torch.cuda.is_available", lambda: cuda),
            mock.patch("torch.backends.cuda.is_built", lambda: cuda),
            mock.patch("torch.cuda.device_count", lambda: count if cuda else 0),
            mock.patch("torch.cuda.Stream", Stream),
            mock.patch("torch.cuda.Event", Event),
            mock.patch("torch.cuda.stream", _on_stream),
            mock.patch("torch.Generator", Generator),
            mock.patch("torch.cuda.current_stream", lambda _=None: Stream()),
            mock.patch("torch.cuda.default_stream", lambda _=None: Stream()),
            mock.patch("torch.cuda.is_bf16_supported", lambda: True),
            mock.patch("torch.cuda.get_device_capability", lambda _=None: device.capability),
            mock.patch("torch.cuda.max_memory_allocated", lambda _=None: device.peak_bytes),
            mock.patch("torch.cuda.mem_get_info", device.free_and_total),
            mock.patch("torch.cuda.empty_cache", lambda: None),
            mock.patch("torch.mps.empty_cache", lambda: None),
            mock.patch.object(Tensor, "pin_memory", lambda tensor: tensor.clone()),
            mock.patch("torch.backends.mps.is_available", lambda: not cuda),
            mock.patch.object(threading.Thread, "run", run_with_device),
            device,
        ):
            yield device
    finally:
        _current.pop()


def load_editor(model: str, device: str | None):
    """The true editor of a worker; its model's name says where it is."""
    from kontext.server.workers.worker import load_editor

    editor = load_editor(model, device)
    editor.model.name += f" on {editor.model.transformer.img_in.weight.device}"
    return editor


if (
    "SIMULATED_DEVICES" in os.environ
):  # "cuda:2": a worker process with two of CUDA, from its start to its end
    _name, _, _count = os.environ["SIMULATED_DEVICES"].partition(":")
    _process = simulated(_name, int(_count or 1))
    _process.__enter__()
