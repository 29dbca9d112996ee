"""Encoding and decoding in strips, for pictures whose activations do not fit on the device.

Each layer of the whole picture is kept in host memory, and computed one strip of rows at a time, with the
neighboring rows that its convolution reads. Group norms use the mean and variance of the whole picture,
which are accumulated while the layer before is computed. The result therefore equals that of the whole
picture up to rounding, without seams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.model.convolutions import Decoder, Encoder, Level, Norms, ResnetBlock

Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Layer:
    """Output of a layer (1, channels, rows, columns) in host memory, and its moments by channel."""

    values: Tensor
    mean: Tensor
    variance: Tensor


class _Moments:
    """Mean and variance of groups of channels, accumulated over strips in float64."""

    def __init__(self, groups: int, channels: int):
        self.groups, self.channels = groups, channels
        self.count, self.mean = 0, torch.zeros(groups, dtype=torch.float64)
        self.squares = torch.zeros(groups, dtype=torch.float64)

    def add(self, strip: Tensor) -> None:
        grouped = strip[0].float().reshape(self.groups, -1)
        variance, mean = torch.var_mean(grouped, dim=1, correction=0)
        own, count = mean.cpu().double(), grouped.shape[1]
        total, apart = self.count + count, own - self.mean
        self.squares += variance.cpu().double() * count + apart**2 * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total

    def by_channel(self, device: torch.device) -> tuple[Tensor, Tensor]:
        each = self.channels // self.groups
        moments = (self.mean, self.squares / max(1, self.count))
        mean, variance = (m.float().repeat_interleave(each).to(device) for m in moments)
        return mean, variance


class Strips:
    """The finer levels of an encoder or decoder, strip by strip.

    elements: approximate maximum of a layer's input, and of its output, on the device at a time. known: mean
    and variance for the norms, instead of the picture's own.
    """

    def __init__(
        self,
        device: torch.device,
        elements: int,
        groups: int,
        known: Sequence[tuple[Tensor, Tensor]] | None = None,
    ):
        self.device, self.elements, self.groups = device, elements, groups
        self.norms: list[tuple[Tensor, Tensor]] = []
        """Mean and variance (channels,) before each norm so far."""
        self._known = None if known is None else iter(known)

    def level(self, x: _Layer, level: Level) -> _Layer:
        for block in level.block:
            x = self._block(x, block)
        if level.resample == "upsample":
            return self._upsampled(x, level.upsample.conv)
        return x if level.resample is None else self._downsampled(x, level.downsample.conv)

    def first(self, pixels: Tensor, conv: nn.Conv2d) -> _Layer:
        return self._convolved(pixels, conv)

    def last(self, x: _Layer, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
        return self._convolved(x.values, conv, self._norm(x, norm)).values

    def to_host(self, whole: Tensor) -> _Layer:
        """Move a layer that was computed whole to host memory."""
        moments = _Moments(self.groups, whole.shape[1])
        moments.add(whole)
        return _Layer(whole.cpu(), *moments.by_channel(self.device))

    def _block(self, x: _Layer, block: ResnetBlock) -> _Layer:
        shortcut = getattr(block, "nin_shortcut", None)

        def residual(top: int, bottom: int) -> Tensor:
            own = x.values[:, :, top:bottom].to(self.device)
            return own if shortcut is None else shortcut(own)

        h = self._convolved(x.values, block.conv1, self._norm(x, block.norm1))
        return self._convolved(h.values, block.conv2, self._norm(h, block.norm2), residual)

    def _norm(self, x: _Layer, norm: nn.GroupNorm) -> Prepare:
        """Norm and activation of a strip, with the moments of the whole layer or known ones."""
        mean, variance = (x.mean, x.variance) if self._known is None else next(self._known)
        self.norms.append((mean, variance))
        weight, bias = norm.weight.float(), norm.bias.float()

        def prepare(strip: Tensor) -> Tensor:
            normed = F.batch_norm(strip.float(), mean, variance, weight, bias, eps=norm.eps)
            return F.silu(normed.to(strip.dtype))

        return prepare

    def _convolved(
        self,
        x: Tensor,
        conv: nn.Conv2d,
        prepare: Prepare | None = None,
        residual: Callable[[int, int], Tensor] | None = None,
    ) -> _Layer:
        """A 3x3 convolution with zero padding."""

        def strip(top: int, bottom: int) -> Tensor:
            first = max(0, top - 1)
            part = x[:, :, first : bottom + 1].to(self.device)
            output = conv(part if prepare is None else prepare(part))
            output = output[:, :, top - first :][:, :, : bottom - top]
            return output if residual is None else output + residual(top, bottom)

        widest = max(conv.in_channels, conv.out_channels)
        return self._by_strips(strip, conv.out_channels, x.shape[2], x.shape[3], widest * x.shape[3])

    def _upsampled(self, x: _Layer, conv: nn.Conv2d) -> _Layer:
        """Nearest-neighbor upsampling, then the convolution."""
        rows, columns = x.values.shape[2:]

        def strip(top: int, bottom: int) -> Tensor:
            first = max(0, top // 2 - 1)
            part = x.values[:, :, first : -(-bottom // 2) + 1].to(self.device)
            wide = conv(F.interpolate(part, scale_factor=2.0, mode="nearest"))
            return wide[:, :, top - 2 * first :][:, :, : bottom - top]

        return self._by_strips(
            strip, conv.out_channels, 2 * rows, 2 * columns, 2 * columns * conv.in_channels
        )

    def _downsampled(self, x: _Layer, conv: nn.Conv2d) -> _Layer:
        """A convolution of stride 2 with zero padding to the right and below."""
        rows, columns = x.values.shape[2:]

        def strip(top: int, bottom: int) -> Tensor:
            part = x.values[:, :, 2 * top : 2 * bottom + 1].to(self.device)
            below = 2 * bottom + 1 - min(2 * bottom + 1, rows)
            return conv(F.pad(part, (0, 1, 0, below)))

        return self._by_strips(
            strip, conv.out_channels, rows // 2, columns // 2, 2 * columns * conv.in_channels
        )

    def _by_strips(
        self,
        strip: Callable[[int, int], Tensor],
        channels: int,
        rows: int,
        columns: int,
        elements_per_row: int,
    ) -> _Layer:
        out, moments = None, _Moments(self.groups, channels)
        step = max(1, self.elements // elements_per_row)
        for top in range(0, rows, step):
            bottom = min(rows, top + step)
            output = strip(top, bottom)
            if channels % self.groups == 0:
                moments.add(output)
            if out is None:
                out = torch.empty((1, channels, rows, columns), dtype=output.dtype)
            out[:, :, top:bottom] = output.cpu()
        assert out is not None
        return _Layer(out, *moments.by_channel(self.device))


def decode_in_strips(
    decoder: Decoder, z: Tensor, elements: int, known: Norms | None = None
) -> tuple[Tensor, Norms]:
    """`Decoder.with_norm_stats` of one z, with about `elements` of a layer at a time.

    known: norms to use instead of the picture's own, as in `Decoder.decode_window`.
    """
    strips = Strips(z.device, elements, decoder.norm_out.num_groups, known)
    x = strips.to_host(decoder.coarse(z))
    for level in reversed(decoder.up[:-1]):
        x = strips.level(x, level)
    patches = strips.last(x, decoder.norm_out, decoder.conv_out)
    return patches.to(z.device), tuple(strips.norms)


def encode_in_strips(encoder: Encoder, patches: Tensor, elements: int) -> Tensor:
    """`Encoder.forward` of one picture, with about `elements` of a layer at a time."""
    strips = Strips(patches.device, elements, encoder.norm_out.num_groups)
    x = strips.first(patches.cpu(), encoder.conv_in)
    for level in encoder.down[:-1]:
        x = strips.level(x, level)
    return encoder.coarse(x.values.to(patches.device))
