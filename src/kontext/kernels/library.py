"""The compiled kernels (`kernels.c`), if a C compiler was available at installation."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kontext.errors import BadConfig
from kontext.kernels.structures import (
    ATTENTION,
    INT,
    LAYOUTS,
    LONG,
    POINTER,
    PRODUCT,
    Attention,
    Job,
    Product,
)
from kontext.model.blocks import KeysValues, Modulated

SETTING = "KONTEXT_KERNELS"
"""Environment variable: `auto` (the default), one of `BACKENDS`, or `off`."""
BACKENDS = ("amx", "avx512", "avx2", "neon")
"""Best first."""
AUTOMATIC = BACKENDS[:3]
"""Used if the CPU supports them: the backends that are faster than PyTorch."""
DOT_PRODUCTS = "avx512bf16"
"""Multiplies bfloat16 numbers only, and only in training."""
TRAINING_BACKENDS = (DOT_PRODUCTS, "avx512", "avx2", "neon")
"""Those that compute gradients."""

logger = logging.getLogger(__name__)


class PackedLinear:
    """A linear layer with its weights packed for the kernels.

    parts: 3 for float32 products, 1 for bfloat16 ones if that is faster (AMX). With bfloat16 weights, float32
    products need 2.
    """

    def __init__(self, kernels: Kernels, layer: torch.nn.Linear, parts: int):
        weights = layer.weight.detach().contiguous()
        if parts == 3 and torch.equal(weights, weights.bfloat16().float()):
            parts = 2
        self.parts = parts
        self.columns, self.inner = weights.shape
        self.bias = None if layer.bias is None else layer.bias.detach().contiguous()
        self.panels = kernels.pack(weights, parts)

    def job(
        self,
        x: Tensor,
        out: Tensor | None = None,
        *,
        heads: Tensor | None = None,
        modulation: Modulated | None = None,
        gate: Tensor | None = None,
        gelu: bool = False,
        columns: slice | None = None,
    ) -> Product:
        """The job that computes x W^T + bias of x (b, n, inner).

        The first columns go to `heads` (b, k, n, head_width), the others to `out` (b, n, rest). Rows are
        contiguous.

        `modulation` is applied to the layer norm of x first. With `gelu`, the columns for `out` pass through
        GELU; with `gate` (b, 1, rest) they are multiplied by it and added to `out`. `columns`, whose ends are
        multiples of 32, limits the columns computed.
        """
        start, stop = (0, self.columns) if columns is None else (columns.start, columns.stop)
        job = Product(
            kind=PRODUCT,
            parts=self.parts,
            x=x.data_ptr(),
            x_row=x.stride(1),
            x_item=_step(x),
            weights=self.panels.data_ptr() + start * (self.panels.numel() // _up(self.columns)),
            bias=None if self.bias is None else self.bias[start:].data_ptr(),
            gelu=gelu,
            items=x.shape[0],
            rows=x.shape[1],
            columns=stop - start,
            inner=self.inner,
        )
        if heads is not None:
            job.heads, job.heads_step, job.heads_item = heads.data_ptr(), heads.stride(1), _step(heads)
            job.head_width, job.head_columns = heads.shape[3], heads.shape[1] * heads.shape[3]
        if out is not None:
            job.out, job.out_row, job.out_item = out.data_ptr(), out.stride(1), _step(out)
        if modulation is not None:
            job.shift, job.shift_item = modulation.shift.data_ptr(), _step(modulation.shift)
            job.factor, job.factor_item = modulation.factor.data_ptr(), _step(modulation.factor)
        if gate is not None:
            job.gate, job.gate_item = gate.data_ptr(), _step(gate)
        return job


def attention(
    qkv: Tensor,
    scales: tuple[Tensor, Tensor],
    change: int,
    rotary: Tensor,
    prefix: KeysValues | None,
    out: Tensor,
    query_rows: slice,
    parts: int,
) -> Attention:
    """The job of softmax attention; fills rows `query_rows` of out (b, n, heads * head_width).

    qkv (b, 3 * heads, n, head_width): output of a linear layer. `prefix`: more keys and values.

    `scales`, each (2, head_width): scales of the norms of queries and keys, for rows before `change` and from
    there on; rotary (n, head_width / 2, 2).
    """
    width = scales[0].shape[1]
    job = Attention(
        kind=ATTENTION,
        parts=parts,
        qkv=qkv.data_ptr(),
        qkv_step=qkv.stride(1),
        qkv_item=_step(qkv),
        query_scale=scales[0].data_ptr(),
        key_scale=scales[1].data_ptr(),
        change=change,
        rotary=rotary.data_ptr(),
        out=out.data_ptr(),
        out_row=out.stride(1),
        out_item=_step(out),
        items=qkv.shape[0],
        heads=qkv.shape[1] // 3,
        width=width,
        rows=qkv.shape[2],
        start=query_rows.start,
        stop=query_rows.stop,
    )
    if prefix is not None:
        keys, values = prefix.keys, prefix.values
        job.keys, job.values, job.prefix = keys.data_ptr(), values.data_ptr(), keys.shape[2]
        job.prefix_row, job.prefix_head = keys.stride(2), keys.stride(1)
        job.keys_item, job.values_item = _step(keys), _step(values)
    return job


class Kernels:
    """The kernels for one instruction set.

    Raises KeyError if the library was compiled without it.
    """

    def __init__(self, library: ctypes.CDLL, parallel: int | None, name: str):
        for function in (library.kontext_supported, library.kontext_inner_step, library.kontext_weight_bytes):
            function.argtypes = [POINTER]
        library.kontext_panel_bytes.restype = LONG
        library.kontext_panel_bytes.argtypes = [POINTER, LONG, LONG, INT]
        library.kontext_pack.argtypes = [POINTER, POINTER, LONG, LONG, INT, POINTER]
        library.kontext_run.argtypes = [POINTER, POINTER, LONG, INT, POINTER]
        self.library, self.parallel, self.name = library, parallel, name
        self._backend = _backends(library)[name]

    @property
    def supported(self) -> bool:
        """Whether this CPU supports the instruction set."""
        return bool(self.library.kontext_supported(self._backend))

    @property
    def inner_step(self) -> int:
        """The thirds of a convolution's weights are padded to a multiple of this."""
        return self.library.kontext_inner_step(self._backend)

    @property
    def weight_bytes(self) -> int:
        """Bytes per packed weight, with one part."""
        return self.library.kontext_weight_bytes(self._backend)

    def pack(self, weights: Tensor, parts: int) -> Tensor:
        """Pack weights (columns, inner), float32 and contiguous, as the right factor of a product."""
        panels = torch.empty(
            self.library.kontext_panel_bytes(self._backend, *weights.shape, parts), dtype=torch.uint8
        )
        if self.library.kontext_pack(
            self._backend, weights.data_ptr(), *weights.shape, parts, panels.data_ptr()
        ):
            raise MemoryError("no memory to pack the weights of a layer")
        return panels

    def run(self, jobs: Sequence[Job]) -> None:
        """Run jobs in order, with as many threads as PyTorch uses. Raises MemoryError."""
        addresses = (POINTER * len(jobs))(*(ctypes.addressof(job) for job in jobs))
        if self.library.kontext_run(
            self._backend, addresses, len(jobs), torch.get_num_threads(), self.parallel
        ):
            raise MemoryError("no memory for the numbers of one layer")


def kernels_setting() -> str:
    """The value of `KONTEXT_KERNELS`. Raises BadConfig for an unknown one."""
    setting = os.environ.get(SETTING, "").strip().lower() or "auto"
    if setting not in ("auto", "off", *BACKENDS):
        raise BadConfig(f"{SETTING} must be auto, off or one of {', '.join(BACKENDS)}, got {setting!r}")
    return setting


def kernels() -> Kernels | None:
    """The kernels selected by `KONTEXT_KERNELS`, by default the fastest; None if they cannot run.

    Raises BadConfig for an unknown setting.
    """
    setting = kernels_setting()
    if setting == "off":
        return None
    if setting != "auto":
        return _with_warning(setting)
    return next((found for name in AUTOMATIC if (found := kernels_for(name)) is not None), None)


def training_kernels(bfloat16: bool) -> Kernels | None:
    """The same for training with products in bfloat16 or float32."""
    setting = kernels_setting()
    if setting == "off":
        return None
    names = TRAINING_BACKENDS[:3] if setting in ("auto", "amx") else (setting,)
    # Cores with matrix units issue the bfloat16 dot product a quarter as often as float32's multiply-add.
    slow = not bfloat16 or torch.cpu._is_amx_tile_supported()
    found = (kernels_for(name) for name in names if not (slow and name == DOT_PRODUCTS))
    return next((kernels for kernels in found if kernels is not None), None)


@functools.cache
def kernels_for(name: str) -> Kernels | None:
    """The kernels of one of `BACKENDS`, or None if they cannot run."""
    library, parallel = _library(), _openmp()
    if library is None or parallel is None or name not in _backends(library):
        return None
    found = Kernels(library, parallel, name)
    if not found.supported:
        return None
    if name == "amx" and not (torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()):
        return None
    return found


@functools.cache
def _with_warning(name: str) -> Kernels | None:
    found = kernels_for(name)
    if found is None:
        logger.warning("%s=%s cannot run here: PyTorch is used", SETTING, name)
    return found


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled library, if it is of this version."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_kernels" + suffix)
        if path.exists():
            library = ctypes.CDLL(str(path))
            return library if same_version(library) else None
    return None


def same_version(library: ctypes.CDLL) -> bool:
    """Whether a library was compiled from this version of the kernels."""
    size = getattr(library, "kontext_job_bytes", lambda kind: 0)
    return all(size(kind) == ctypes.sizeof(job) for kind, job in LAYOUTS.items())


def _backends(library: ctypes.CDLL) -> dict[str, int]:
    """Addresses of the backends that were compiled, by name."""
    library.kontext_backend.restype = POINTER
    library.kontext_name.restype, library.kontext_name.argtypes = ctypes.c_char_p, [POINTER]
    found, index = {}, 0
    while address := library.kontext_backend(index):
        found[library.kontext_name(address).decode()] = address
        index += 1
    return found


@functools.cache
def _openmp() -> int | None:
    """Address of GOMP_parallel in the OpenMP library of PyTorch."""
    try:
        maps = Path("/proc/self/maps").read_bytes()
    except OSError:
        return None
    for path in openmp_paths(maps):
        try:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, POINTER).value
        except (OSError, AttributeError):
            logger.debug("%s has no GOMP_parallel", path)
    return None


def openmp_paths(maps: bytes) -> list[str]:
    """OpenMP libraries in the memory map of a process (proc_pid_maps(5)); file names may contain spaces."""
    named = (fields[5] for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6)
    paths = dict.fromkeys(os.fsdecode(path) for path in named)
    return [path for path in paths if Path(path).name.startswith(("libgomp", "libiomp5", "libomp"))]


def _step(tensor: Tensor) -> int:
    """Stride between the items of a batch; 0 if all share one."""
    return tensor.stride(0) if tensor.shape[0] > 1 else 0


def _up(value: int) -> int:
    return (value + 31) // 32 * 32
