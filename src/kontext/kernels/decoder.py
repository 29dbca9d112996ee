"""The autoencoder's decoder on the kernels.

Each group norm and swish is fused into the following convolution, and the sums for the next norm into the
preceding one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.kernels.library import Kernels, PackedLinear
from kontext.kernels.structures import CONVOLUTION, Convolution, Job
from kontext.model.convolutions import AttnBlock, Decoder, Level, Norms, ResnetBlock
from kontext.model.window import Window


@dataclass(frozen=True)
class _Picture:
    values: Tensor
    """(height, width, channels)."""
    sums: Tensor | None = None
    """(shares, channels, 2) double: sums of the values and of their squares over all pixels."""


class KernelDecoder:
    """Decodes like a float32 decoder, with the fastest products: float32, or bfloat16 (AMX)."""

    def __init__(self, decoder: Decoder, kernels: Kernels):
        self.decoder, self.kernels = decoder, kernels
        self.panels: dict[nn.Module, Tensor] = {}
        self.shortcuts: dict[nn.Module, PackedLinear] = {}
        for layer in decoder.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                self.panels[layer] = kernels.pack(_thirds(layer.weight, kernels.inner_step), parts=1)
            if isinstance(layer, ResnetBlock) and hasattr(layer, "nin_shortcut"):
                shortcut = layer.nin_shortcut
                linear = nn.Linear(shortcut.in_channels, shortcut.out_channels)
                assert shortcut.bias is not None
                linear.weight = nn.Parameter(shortcut.weight[:, :, 0, 0])
                linear.bias = nn.Parameter(shortcut.bias)
                self.shortcuts[shortcut] = PackedLinear(kernels, linear, parts=1)

    def forward(self, z: Tensor) -> Tensor:
        """See `Decoder.forward`."""
        return torch.cat([_Pass(self).decode(latents) for latents in z.split(1)])

    def with_norm_stats(self, z: Tensor) -> tuple[Tensor, Norms]:
        """See `Decoder.with_norm_stats`."""
        work = _Pass(self)
        return work.decode(z), work.norms()

    def decode_window(self, z: Tensor, norms: Norms, window: Window) -> Tensor:
        """See `Decoder.decode_window`."""
        return torch.cat([_Pass(self).decode_window(latents, norms, window) for latents in z.split(1)])


class _Pass:
    """One decoding: the pending jobs, and the tensors they need."""

    def __init__(self, backend: KernelDecoder):
        self.backend, self.decoder = backend, backend.decoder
        self.jobs: list[Job] = []
        self.alive: list[Tensor] = []
        self.norm_inputs: list[tuple[nn.GroupNorm, _Picture]] = []

    def decode(self, z: Tensor) -> Tensor:
        x = self._coarse(z)
        for level in reversed(self.decoder.up[:-1]):
            x = self._level(level, x)
        return self._pixels(x)

    def decode_window(self, z: Tensor, norms: Norms, window: Window) -> Tensor:
        known = iter(norms)
        windows, levels = self.decoder.receptive_windows(window, *z.shape[2:]), self.decoder.levels
        x, available = self._coarse(z), Window(0, levels * z.shape[2], 0, levels * z.shape[3])
        for i in reversed(range(len(windows))):
            x, available = self._crop(x, available, windows[i], 1 << i), windows[i]
            x = self._level(self.decoder.up[i], x, known)
        pixels = self._pixels(x, known)
        part = window.relative_to(available)
        return pixels[:, :, part.top : part.bottom, part.left : part.right]

    def norms(self) -> Norms:
        """Mean and variance of the input of each norm of the finer levels."""
        found = []
        for layer, picture in self.norm_inputs:
            each = picture.values.shape[2] // layer.num_groups
            assert picture.sums is not None
            total = picture.sums.sum(0).unflatten(0, (layer.num_groups, each)).sum(1)
            mean, square = (total / (each * picture.values[..., 0].numel())).unbind(1)
            pair = mean, (square - mean**2).clamp(min=0)
            found.append(tuple(part.float().repeat_interleave(each) for part in pair))
        return tuple(found)

    def _coarse(self, z: Tensor) -> _Picture:
        middle = self.decoder.mid
        x = _Picture(z[0].permute(1, 2, 0).float().contiguous())
        x = self._block(middle.block_1, self._convolution(self.decoder.conv_in, x))
        self._run()
        x = self._block(middle.block_2, self._attention(middle.attn_1, x))
        x = self._level(self.decoder.up[-1], x)
        self.norm_inputs.clear()
        return x

    def _level(self, level: Level, x: _Picture, known: Iterator | None = None) -> _Picture:
        for block in level.block:
            x = self._block(block, x, known)
        return self._convolution(level.upsample.conv, x, enlarge=True) if level.resample else x

    def _block(self, block: ResnetBlock, x: _Picture, known: Iterator | None = None) -> _Picture:
        h = self._convolution(block.conv1, x, block.norm1, known)
        residual = x.values
        if hasattr(block, "nin_shortcut"):
            linear = self.backend.shortcuts[block.nin_shortcut]
            residual = self._room(*x.values.shape[:2], linear.columns)
            self.jobs.append(linear.job(x.values, residual))
        return self._convolution(block.conv2, h, block.norm2, known, residual)

    def _pixels(self, x: _Picture, known: Iterator | None = None) -> Tensor:
        pixels = self._convolution(self.decoder.conv_out, x, self.decoder.norm_out, known).values
        self._run()
        return pixels.permute(2, 0, 1)[None]

    def _attention(self, block: AttnBlock, x: _Picture) -> _Picture:
        values = block(x.values.permute(2, 0, 1)[None])[0].permute(1, 2, 0).contiguous()
        sums = torch.zeros(torch.get_num_threads(), values.shape[2], 2, dtype=torch.float64)
        double = values.flatten(0, 1).double()
        sums[0, :, 0], sums[0, :, 1] = double.sum(0), double.square().sum(0)
        return _Picture(values, sums)

    def _crop(self, x: _Picture, available: Window, target: Window, scale: int) -> _Picture:
        """The values of window `target` from those of `available`; one value covers scale x scale pixels."""
        if available == target:
            return x
        self._run()
        rows = slice((target.top - available.top) // scale, (target.bottom - available.top) // scale)
        columns = slice((target.left - available.left) // scale, (target.right - available.left) // scale)
        return _Picture(x.values[rows, columns].contiguous())

    def _convolution(
        self,
        layer: nn.Conv2d,
        x: _Picture,
        norm: nn.GroupNorm | None = None,
        known: Iterator | None = None,
        residual: Tensor | None = None,
        enlarge: bool = False,
    ) -> _Picture:
        """Convolve x, or with `norm` swish(norm(x)) with the next statistics of `known`, or those of x."""
        height, width, channels = x.values.shape
        height, width = height << enlarge, width << enlarge
        out = self._room(height, width, layer.out_channels)
        sums = torch.empty(torch.get_num_threads(), layer.out_channels, 2, dtype=torch.float64)
        assert layer.bias is not None
        bias = layer.bias.detach()
        job = Convolution(
            kind=CONVOLUTION,
            parts=1,
            x=x.values.data_ptr(),
            height=height,
            width=width,
            channels=channels,
            enlarge=enlarge,
            weights=self.backend.panels[layer].data_ptr(),
            bias=bias.data_ptr(),
            residual=None if residual is None else residual.data_ptr(),
            out=out.data_ptr(),
            out_sums=sums.data_ptr(),
            columns=layer.out_channels,
        )
        self.alive += [x.values, sums, bias]
        if norm is not None:
            job.norm_weight, job.norm_bias = norm.weight.data_ptr(), norm.bias.data_ptr()
            job.groups, job.counted = norm.num_groups, height * width
            if known is None:
                assert x.sums is not None
                self.norm_inputs.append((norm, x))
                self.alive.append(x.sums)
                job.sums = x.sums.data_ptr()
            else:
                mean, variance = next(known)
                self.alive += [mean, variance]
                job.mean, job.variance = mean.data_ptr(), variance.data_ptr()
        self.jobs.append(job)
        return _Picture(out, sums)

    def _room(self, *shape: int) -> Tensor:
        room = torch.empty(shape, dtype=torch.float32, device="cpu")
        self.alive.append(room)
        return room

    def _run(self) -> None:
        self.backend.kernels.run(self.jobs)
        self.jobs.clear()
        self.alive.clear()


def _thirds(weight: Tensor, multiple: int) -> Tensor:
    """Weights (out, in, 3, 3) as (out, 3 rows of the kernel), each row padded to a multiple."""
    rows = weight.detach().float().permute(0, 2, 3, 1).flatten(2)
    return F.pad(rows, (0, -rows.shape[2] % multiple)).flatten(1).contiguous()
