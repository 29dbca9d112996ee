"""Linear layers that multiply in 8-bit floats: e4m3, with 4 bits of exponent and 3 of mantissa.

A weight is quantized with a scale for each row, that is, for each output; files that hold such numbers are
used as they are. Activations are quantized at each use, with a scale for each token. Products are summed in
float32 and rounded to bfloat16.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kontext.errors import DeviceUnavailable
from kontext.model.linear import StoredLinear
from kontext.model.storage_formats import eight_bit_rows
from kontext.model.stored import CHUNK_NUMBERS, DEVICE_CHUNK_NUMBERS, Raw, StoredMatrix, check_finite

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of e4m3."""
SMALLEST_SCALE = 1e-12
"""A row of zeros has this scale; 0 would give NaN."""
ALIGNMENT = 16
"""Both sides of a weight must be divisible by this."""
LEAST_CAPABILITY, ROW_SCALE_CAPABILITY = (8, 9), (9, 0)
"""CUDA compute capabilities that have products of 8-bit floats, and products with a scale for each row."""

_IN_BLOCK = re.compile(
    r"double_blocks\.\d+\.(img|txt)_(attn\.(qkv|proj)|mlp\.[02])\.weight"
    r"|single_blocks\.\d+\.linear[12]\.weight"
)


def multiplies_in_fp8(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of the transformer is a weight that can be multiplied in 8-bit floats.

    These are the linear layers of the blocks, except modulations and those of a shape that does not fit.
    """
    fits = len(shape) == 2 and not any(size % ALIGNMENT for size in shape)
    return fits and _IN_BLOCK.fullmatch(name) is not None


@dataclass(frozen=True)
class Fp8Rows:
    """A matrix of 8-bit floats with a scale for each row."""

    numbers: Tensor
    """(rows, columns), e4m3."""
    scales: Tensor
    """(rows, 1), float32 above 0."""

    @classmethod
    def of(cls, x: Tensor) -> Fp8Rows:
        """Quantize x (rows, columns), so that the largest number of each row becomes the largest of e4m3."""
        largest = torch.linalg.vector_norm(x, math.inf, dim=-1, keepdim=True)
        scales = (largest.float() / LARGEST).clamp_min(SMALLEST_SCALE)
        scaled = torch.div(x, scales, out=torch.empty_like(x))  # in the type of x, to take half the memory
        return cls(scaled.to(E4M3), scales)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix in another type."""
        return (self.numbers.float() * self.scales).to(dtype)

    def rows(self, start: int, stop: int) -> Fp8Rows:
        return Fp8Rows(self.numbers[start:stop], self.scales[start:stop])


class Fp8Linear(StoredLinear):
    """y = x W^T + b, with x and W in 8-bit floats.

    A streamed weight is quantized each time it is on the device, so that the result does not depend on which
    weights are streamed. `weight` is what the layer multiplies by: the quantized numbers.
    """

    def __init__(
        self,
        parts: Sequence[StoredMatrix],
        bias: Tensor | None,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ):
        super().__init__(parts, bias, dtype, device)
        self.row_scales = has_row_scales(str(self.device))
        self._resident: Fp8Rows | None = None

    def make_resident(self) -> None:
        """Quantize the weight and keep it on the device. Raises BadCheckpoint for NaN and infinity."""
        self._resident = self._quantized(0, self.out_features)

    @property
    def resident(self) -> bool:
        """Whether the quantized weight stays on the device."""
        return self._resident is not None

    @property
    def weight(self) -> Tensor:
        """The quantized matrix (rows, columns), in the type of the computation."""
        return self.weight_rows(slice(None))

    def weight_rows(self, rows: slice) -> Tensor:
        """Some rows of `weight`."""
        start, stop, _ = rows.indices(self.out_features)
        return self._quantized(start, stop).dense(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_rows(x, slice(None))

    def output_rows(self, x: Tensor, rows: slice) -> Tensor:
        """Some of the outputs, (..., len(rows)), in the type of x."""
        start, stop, _ = rows.indices(self.out_features)
        first, last = start // ALIGNMENT * ALIGNMENT, -(-stop // ALIGNMENT) * ALIGNMENT
        weight, flat = self._quantized(first, last), x.reshape(-1, self.in_features).contiguous()
        bias = None if self.bias is None else self.bias[first:last]
        y = product(Fp8Rows.of(flat), weight, bias, self.row_scales)
        return y.to(x.dtype).view(*x.shape[:-1], last - first)[..., start - first : stop - first]

    def _quantized(self, start: int, stop: int) -> Fp8Rows:
        """Some rows of the weight, on the device."""
        if self._resident is not None:
            return self._resident.rows(start, stop)
        parts, raws = self._cut(slice(start, stop))
        each = [
            _quantized(part, part.raw() if raws is None else raws[i], not self._checked)
            for i, part in enumerate(parts)
        ]
        self._checked |= (start, stop) == (0, self.out_features)
        if len(each) == 1:
            return each[0]
        # `cat` has no kernel for 8-bit floats on some devices: join their bits.
        bits = torch.cat([part.numbers.view(torch.uint8) for part in each])
        return Fp8Rows(bits.view(E4M3), torch.cat([part.scales for part in each]))


def _quantized(part: StoredMatrix, raw: Raw, check: bool) -> Fp8Rows:
    """A stored matrix, on the device of its raw tensors: its own numbers if they are e4m3 with a scale."""
    own = eight_bit_rows(part, raw)
    if own is not None:
        matrix = Fp8Rows(*own)
    else:
        matrix = _requantized(part, raw)
    if check:
        check_finite(part.name, *raw, matrix.scales)
    return matrix


def _requantized(part: StoredMatrix, raw: Raw) -> Fp8Rows:
    rows, columns = part.shape
    device = raw[0].device
    matrix = Fp8Rows(
        torch.empty(rows, columns, dtype=E4M3, device=device), torch.empty(rows, 1, device=device)
    )
    step = max(1, CHUNK_NUMBERS.get(device.type, DEVICE_CHUNK_NUMBERS) // columns)
    for start in range(0, rows, step):
        cut = tuple(each[start : start + step] if each.ndim else each for each in raw)
        chunk = Fp8Rows.of(part.format.expand(*cut).float())
        matrix.numbers[start : start + step].copy_(chunk.numbers)
        matrix.scales[start : start + step].copy_(chunk.scales)
    return matrix


def product(x: Fp8Rows, weight: Fp8Rows, bias: Tensor | None, row_scales: bool) -> Tensor:
    """x W^T + b in bfloat16, (rows of x, rows of the weight).

    row_scales: whether the device multiplies with a scale for each row; otherwise the same factors are
    applied to the output.
    """
    if not len(x.numbers):
        return torch.empty(0, len(weight.numbers), dtype=torch.bfloat16, device=x.numbers.device)
    if row_scales:
        return torch._scaled_mm(
            x.numbers,
            weight.numbers.t(),
            scale_a=x.scales,
            scale_b=weight.scales.t(),
            bias=None if bias is None else bias.bfloat16(),
            out_dtype=torch.bfloat16,
        )
    unit = torch.ones((), device=x.numbers.device)
    y = torch._scaled_mm(x.numbers, weight.numbers.t(), scale_a=unit, scale_b=unit, out_dtype=torch.bfloat16)
    y = y.mul_(x.scales).mul_(weight.scales.t())
    return y if bias is None else y.add_(bias)


@functools.cache
def has_row_scales(device: str) -> bool:
    """Whether a device multiplies 8-bit floats with a scale for each row. It is tried: some builds do not."""
    place = torch.device(device)
    if place.type == "cuda" and torch.cuda.get_device_capability(place) < ROW_SCALE_CAPABILITY:
        return False
    return _multiplies(place, row_scales=True)


def _multiplies(device: torch.device, row_scales: bool) -> bool:
    matrix = Fp8Rows.of(torch.ones(ALIGNMENT, ALIGNMENT, device=device))
    try:
        return bool((product(matrix, matrix, None, row_scales) == ALIGNMENT).all())
    except (RuntimeError, AttributeError):  # NotImplementedError is a RuntimeError
        return False


def check_fp8(device: torch.device) -> None:
    """Raise DeviceUnavailable if a device does not multiply 8-bit floats."""
    needed = "fp8 needs an NVIDIA GPU with compute capability 8.9 or newer (Ada, Hopper, Blackwell), or a CPU"
    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < LEAST_CAPABILITY:
            has = ".".join(map(str, capability))
            raise DeviceUnavailable(f"{needed}; {device} has {has}: load the model without fp8")
    elif device.type != "cpu":
        name = "cuda (ROCm)" if device.type == "cuda" else device.type
        raise DeviceUnavailable(f"{needed}; got {name}: load the model without fp8")
    if not (has_row_scales(str(device)) or _multiplies(device, row_scales=False)):
        raise DeviceUnavailable(
            f"PyTorch {torch.__version__} does not multiply 8-bit floats on {device}; load the model without "
            "fp8, or install a newer PyTorch"
        )
