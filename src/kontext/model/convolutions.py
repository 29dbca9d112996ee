"""The two halves of the autoencoder, level by level, with the names and layout of the published one.

Residual blocks with GroupNorm and swish, attention only in the middle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.model.module_list import ModuleList
from kontext.model.presets import AutoencoderConfig
from kontext.model.window import Window

MAX_SCORES = 2**26
"""Attention scores computed at a time, for each picture."""
Norm = Callable[[nn.GroupNorm, Tensor], Tensor]
Norms = tuple[tuple[Tensor, Tensor], ...]
"""Mean and variance (channels,) of the input of each group norm of the decoder's finer levels, in order."""


class ResnetBlock(nn.Module):
    def __init__(self, in_width: int, width: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_width, eps=1e-6)
        self.conv1 = nn.Conv2d(in_width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width, eps=1e-6)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if in_width != width:
            self.nin_shortcut = nn.Conv2d(in_width, width, 1)

    def forward(self, x: Tensor, norm: Norm = nn.GroupNorm.__call__) -> Tensor:
        h = self.conv1(_swish(norm(self.norm1, x)))
        h = self.conv2(_swish(norm(self.norm2, h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Single-head attention over all positions."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2)[:, None] for f in (self.q, self.k, self.v))  # b 1 n c
        # Without a fused kernel for this width, the scores of all positions at once take gigabytes.
        queries = q.split(max(1, MAX_SCORES // k.shape[2]), dim=2)
        attended = torch.cat([F.scaled_dot_product_attention(part, k, v) for part in queries], dim=2)
        return x + self.proj_out(attended[:, 0].transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, with the step to the next one."""

    downsample: Downsample
    upsample: Upsample

    def __init__(self, widths: list[int], groups: int, resample: tuple[str, nn.Module] | None):
        super().__init__()
        self.block: ModuleList[ResnetBlock] = ModuleList(
            ResnetBlock(a, b, groups) for a, b in zip(widths, widths[1:])
        )
        self.resample = resample[0] if resample else None
        if resample:
            self.add_module(*resample)

    def forward(self, x: Tensor, norm: Norm = nn.GroupNorm.__call__) -> Tensor:
        for block in self.block:
            x = block(x, norm)
        return getattr(self, self.resample)(x) if self.resample else x


class Middle(nn.Module):
    def __init__(self, width: int, groups: int):
        super().__init__()
        self.block_1 = ResnetBlock(width, width, groups)
        self.attn_1 = AttnBlock(width, groups)
        self.block_2 = ResnetBlock(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths = [config.base_width * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(3 * config.patch**2, config.base_width, 3, padding=1)
        self.down: ModuleList[Level] = ModuleList()
        before = config.base_width
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            self.down.append(
                Level(
                    [before] + [width] * config.blocks_per_level,
                    config.groups,
                    None if last else ("downsample", Downsample(width)),
                )
            )
            before = width
        self.mid = Middle(before, config.groups)
        self.norm_out = nn.GroupNorm(config.groups, before, eps=1e-6)
        self.conv_out = nn.Conv2d(before, 2 * config.code_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down[:-1]:
            x = level(x)
        return self.coarse(x)

    def coarse(self, x: Tensor) -> Tensor:
        """The coarsest level and what follows, including attention."""
        return self.conv_out(_swish(self.norm_out(self.mid(self.down[-1](x)))))


class DecoderBackend(Protocol):
    """Another implementation of a decoder with the same weights."""

    def forward(self, z: Tensor) -> Tensor: ...

    def with_norm_stats(self, z: Tensor) -> tuple[Tensor, Norms]: ...

    def decode_window(self, z: Tensor, norms: Norms, window: Window) -> Tensor: ...


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths = [config.base_width * m for m in config.multipliers]
        before = widths[-1]
        self.conv_in = nn.Conv2d(config.code_channels, before, 3, padding=1)
        self.mid = Middle(before, config.groups)
        levels: list[Level] = []
        for i, width in reversed(
            list(enumerate(widths))
        ):  # coarsest first; stored finest first, as published
            levels.insert(
                0,
                Level(
                    [before] + [width] * (config.blocks_per_level + 1),
                    config.groups,
                    ("upsample", Upsample(width)) if i else None,
                ),
            )
            before = width
        self.up: ModuleList[Level] = ModuleList(levels)
        self.norm_out = nn.GroupNorm(config.groups, before, eps=1e-6)
        self.conv_out = nn.Conv2d(before, 3 * config.patch**2, 3, padding=1)
        self.levels = config.levels
        # Computes with the same weights, faster on this processor (`kontext.kernels`).
        self.backend: DecoderBackend | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "backend": None}  # a backend holds this instance's weights

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the weights, as `to` does. A backend that holds the old ones is dropped."""
        if self.backend is None:
            return super()._apply(fn, recurse)
        place = self.conv_in.weight.data_ptr()
        module = super()._apply(fn, recurse)
        if self.conv_in.weight.data_ptr() != place:
            self.backend = None
        return module

    def forward(self, z: Tensor) -> Tensor:
        return self.backend.forward(z) if self.backend is not None else self._whole(z)

    def _whole(self, z: Tensor, norm: Norm = nn.GroupNorm.__call__) -> Tensor:
        """`norm` implements the group norms of the finer levels."""
        x = self.coarse(z)
        for level in reversed(self.up[:-1]):
            x = level(x, norm)
        return self.conv_out(_swish(norm(self.norm_out, x)))

    def with_norm_stats(self, z: Tensor) -> tuple[Tensor, Norms]:
        """Patches of one z, and mean and variance before each norm of the finer levels."""
        if self.backend is not None:
            return self.backend.with_norm_stats(z)
        norms: list[tuple[Tensor, Tensor]] = []

        def norm(layer: nn.GroupNorm, x: Tensor) -> Tensor:
            (_, channels, rows, columns), groups = x.shape, layer.num_groups
            # All in float32: devices have no norm of bfloat16 with weights of another type.
            weight, bias = layer.weight.float(), layer.bias.float()
            values = x.float() if x.is_cpu else x.float().contiguous()  # CUDA has no other order in memory
            normed, mean, by = torch.native_group_norm(
                values, weight, bias, 1, channels, rows * columns, groups, layer.eps
            )
            each = [part[0].repeat_interleave(channels // groups) for part in (mean, by)]
            norms.append((each[0], each[1] ** -2 - layer.eps))
            return normed.to(x.dtype)

        return self._whole(z, norm), tuple(norms)

    def decode_window(self, z: Tensor, norms: Norms, window: Window) -> Tensor:
        """The output of `forward` in a window, with the norm statistics of a similar picture.

        The coarsest level, including attention, is computed completely; the finer ones, which take most of
        the time, only in the window and the reach of their convolutions around it.
        """
        if self.backend is not None:
            return self.backend.decode_window(z, norms, window)
        known = iter(norms)

        def norm(layer: nn.GroupNorm, x: Tensor) -> Tensor:
            mean, variance = next(known)
            weight, bias = layer.weight.float(), layer.bias.float()
            return F.batch_norm(x.float(), mean, variance, weight, bias, eps=layer.eps).to(x.dtype)

        windows = self.receptive_windows(window, *z.shape[2:])
        x, available = self.coarse(z), Window(0, self.levels * z.shape[2], 0, self.levels * z.shape[3])
        for i in reversed(range(len(windows))):
            x = crop(x, available, windows[i], 1 << i)
            x, available = self.up[i](x, norm), windows[i]
        return crop(self.conv_out(_swish(norm(self.norm_out, x))), available, window, 1)

    def receptive_windows(self, window: Window, rows: int, columns: int) -> list[Window]:
        """Input window of each finer level, finest first, from the reach of its convolutions."""
        windows, reach = [], window
        for i, level in enumerate(self.up[:-1]):
            margin = (2 * len(level.block) + 1) << i
            reach = reach.grown(margin, self.levels * rows, self.levels * columns, 2 << i)
            windows.append(reach)
        return windows

    def coarse(self, z: Tensor) -> Tensor:
        """The coarsest level, including attention, and the step to the next one."""
        return self.up[-1](self.mid(self.conv_in(z)))


def _swish(normed: Tensor) -> Tensor:
    """Swish of the output of a norm, in place where no gradient needs it."""
    return F.silu(normed, inplace=not torch.is_grad_enabled())


def crop(x: Tensor, available: Window, target: Window, scale: int) -> Tensor:
    """The values of window `target` from those of `available`; one value covers scale x scale pixels."""
    rows = slice((target.top - available.top) // scale, (target.bottom - available.top) // scale)
    columns = slice((target.left - available.left) // scale, (target.right - available.left) // scale)
    return x[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
