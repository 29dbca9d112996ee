"""The compiled kernels (`kernels.c`), where they can run: on a processor with AMX, if a C compiler was there
at installation.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kontext.model.blocks import KeysValues, Modulated

POINTER, LONG, INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int


PRODUCT, ATTENTION, CONVOLUTION = 0, 1, 2
_JOB = [("kind", INT), ("shares", INT), ("taken", INT), ("done", INT), ("failed", INT), ("parts", INT)]


class Product(ctypes.Structure):
    """`product_t`."""

    _fields_ = [
        *_JOB,
        ("x", POINTER),
        ("x_row", LONG),
        ("x_item", LONG),
        ("shift", POINTER),
        ("factor", POINTER),
        ("shift_item", LONG),
        ("factor_item", LONG),
        ("weights", POINTER),
        ("bias", POINTER),
        ("heads", POINTER),
        ("heads_step", LONG),
        ("heads_item", LONG),
        ("head_width", LONG),
        ("head_columns", LONG),
        ("out", POINTER),
        ("out_row", LONG),
        ("out_item", LONG),
        ("gelu", LONG),
        ("gate", POINTER),
        ("gate_item", LONG),
        ("items", LONG),
        ("rows", LONG),
        ("columns", LONG),
        ("inner", LONG),
    ]


class Attention(ctypes.Structure):
    """`attention_t`."""

    _fields_ = [
        *_JOB,
        ("qkv", POINTER),
        ("qkv_step", LONG),
        ("qkv_item", LONG),
        ("query_scale", POINTER),
        ("key_scale", POINTER),
        ("change", LONG),
        ("rotary", POINTER),
        ("keys", POINTER),
        ("values", POINTER),
        ("seen_row", LONG),
        ("seen_head", LONG),
        ("keys_item", LONG),
        ("values_item", LONG),
        ("out", POINTER),
        ("out_row", LONG),
        ("out_item", LONG),
        ("items", LONG),
        ("heads", LONG),
        ("width", LONG),
        ("rows", LONG),
        ("seen", LONG),
        ("start", LONG),
        ("stop", LONG),
    ]


class Convolution(ctypes.Structure):
    """`convolution_t`."""

    _fields_ = [
        *_JOB,
        ("x", POINTER),
        ("height", LONG),
        ("width", LONG),
        ("channels", LONG),
        ("enlarge", LONG),
        ("norm_weight", POINTER),
        ("norm_bias", POINTER),
        ("groups", LONG),
        ("sums", POINTER),
        ("counted", LONG),
        ("mean", POINTER),
        ("variance", POINTER),
        ("weights", POINTER),
        ("bias", POINTER),
        ("residual", POINTER),
        ("out", POINTER),
        ("out_sums", POINTER),
        ("columns", LONG),
    ]


Job = Product | Attention | Convolution
"""Addresses of tensors, which must live as long."""


class TiledLinear:
    """Weights and bias of a linear layer, the weights in tiles.

    parts: 3 for float32's product, 1 for bfloat16's. Weights that are bfloat16 already need 2 for float32's.
    """

    def __init__(self, kernels: Kernels, layer: torch.nn.Linear, parts: int):
        weights = layer.weight.detach().contiguous()
        if parts == 3 and torch.equal(weights, weights.bfloat16().float()):
            parts = 2
        self.parts = parts
        self.columns, self.inner = weights.shape
        self.bias = None if layer.bias is None else layer.bias.detach().contiguous()
        self.tiles = kernels.tiles_of(weights, parts)

    def job(
        self,
        x: Tensor,
        out: Tensor | None = None,
        *,
        heads: Tensor | None = None,
        before: Modulated | None = None,
        gate: Tensor | None = None,
        gelu: bool = False,
        columns: slice | None = None,
    ) -> Product:
        """x W^T + bias of x (b, n, inner): its first columns into `heads` (b, k, n, head_width), the others
        into `out` (b, n, rest). Rows are contiguous.

        `before` modulates the layer norm of x first. What goes into `out` passes through GELU with `gelu`;
        with `gate` (b, 1, rest) it is multiplied by it and added to what is there. `columns`, multiples of
        32, are the only ones computed.
        """
        start, stop = (0, self.columns) if columns is None else (columns.start, columns.stop)
        job = Product(
            kind=PRODUCT,
            parts=self.parts,
            x=x.data_ptr(),
            x_row=x.stride(1),
            x_item=_step(x),
            weights=self.tiles.data_ptr() + start * (self.tiles.numel() // _up(self.columns)),
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
        if before is not None:
            job.shift, job.shift_item = before.shift.data_ptr(), _step(before.shift)
            job.factor, job.factor_item = before.factor.data_ptr(), _step(before.factor)
        if gate is not None:
            job.gate, job.gate_item = gate.data_ptr(), _step(gate)
        return job


def attention(
    qkv: Tensor,
    scales: tuple[Tensor, Tensor],
    change: int,
    rotary: Tensor,
    seen: KeysValues | None,
    out: Tensor,
    asked: slice,
    parts: int,
) -> Attention:
    """Softmax attention of qkv (b, 3 heads, n, head_width), queries, keys and values as they leave a
    linear layer, and of the keys and values `seen` besides; rows `asked` of out (b, n, heads head_width)
    are filled.

    `scales`, each (2, head_width), are those of the norms of queries and keys for the rows before
    `change` and from there on; rotary (n, head_width / 2, 2).
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
        start=asked.start,
        stop=asked.stop,
    )
    if seen is not None:
        keys, values = seen.keys, seen.values
        job.keys, job.values, job.seen = keys.data_ptr(), values.data_ptr(), keys.shape[2]
        job.seen_row, job.seen_head = keys.stride(2), keys.stride(1)
        job.keys_item, job.values_item = _step(keys), _step(values)
    return job


class Kernels:
    def __init__(self, library: ctypes.CDLL, parallel: int):
        self.library, self.parallel = library, parallel
        library.tiles_bytes.restype = LONG
        library.tiles_bytes.argtypes = [LONG, LONG, INT]
        library.tiles_of.argtypes = [POINTER, LONG, LONG, INT, POINTER]
        library.run.argtypes = [POINTER, LONG, INT, POINTER]

    @property
    def current(self) -> bool:
        """Whether they were compiled from this version."""
        kinds = {PRODUCT: Product, ATTENTION: Attention, CONVOLUTION: Convolution}
        size = getattr(self.library, "job_bytes", lambda kind: 0)
        return all(size(kind) == ctypes.sizeof(job) for kind, job in kinds.items())

    def tiles_of(self, weights: Tensor, parts: int) -> Tensor:
        """Weights (columns, inner), float32 and contiguous, as the right factor of a product."""
        size = self.library.tiles_bytes(*weights.shape, parts)
        tiles = torch.empty(size, dtype=torch.uint8)
        if self.library.tiles_of(weights.data_ptr(), *weights.shape, parts, tiles.data_ptr()):
            raise MemoryError("no memory to lay out the weights of a layer")
        return tiles

    def run(self, jobs: Sequence[Job]) -> None:
        """Do them, one after the other, in as many threads as PyTorch has. Raises MemoryError."""
        addresses = (POINTER * len(jobs))(*(ctypes.addressof(job) for job in jobs))
        if self.library.run(addresses, len(jobs), torch.get_num_threads(), self.parallel):
            raise MemoryError("no memory for the numbers of one layer")


@functools.cache
def kernels() -> Kernels | None:
    """The kernels, or None where they cannot run."""
    parallel = _openmp()
    if parallel is None or not torch.cpu._is_amx_tile_supported() or not torch.cpu._init_amx():
        return None
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_kernels" + suffix)
        if path.exists():
            found = Kernels(ctypes.CDLL(str(path)), parallel)
            return found if found.current else None
    return None


def _openmp() -> int | None:
    """Address of GOMP_parallel in the library that torch's own threads come from."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    for line in maps.splitlines():
        path = line.split()[-1]
        if "libgomp" in path or "libiomp5" in path or "libomp" in path:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, POINTER).value
    return None


def _step(tensor: Tensor) -> int:
    """Numbers from one item of a batch to the next; 0 where all share one."""
    return tensor.stride(0) if tensor.shape[0] > 1 else 0


def _up(value: int) -> int:
    return (value + 31) // 32 * 32
