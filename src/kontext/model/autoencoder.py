"""The convolutional autoencoder: pictures to latents with sides at least eight times smaller, and back.

Names and layout of the published autoencoder of FLUX.1: residual blocks with GroupNorm and swish, attention
only in the middle. The mean of the posterior is used, never a sample. Our own models add three options: the
convolutions may work on patches of pixels, which makes a picture of 256 x 256 pixels as cheap as one of 128 x
128, and a linear code of whole squares runs next to them. With it, colors and shapes are right from the
first step of training, and the convolutions learn only the remainder. Their code may be given as more latents
of fewer channels, which makes a token, 2 x 2 latents, as small as a square of the code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.model.convolutions import Decoder, Encoder, Norms, crop
from kontext.model.presets import AutoencoderConfig
from kontext.model.strips import decode_in_strips, encode_in_strips
from kontext.model.window import Window


class Autoencoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.linear_path:
            channels, side = config.code_channels, config.code_cell
            self.linear_in = nn.Conv2d(3, channels, side, stride=side)
            self.linear_out = nn.ConvTranspose2d(channels, 3, side, stride=side)
        # Maximum elements of a layer at a time; larger pictures are processed in strips. None: no limit.
        self.strip_elements: int | None = None

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels (b, 3, height, width) in [-1, 1] to latents (b, channels, height/cell, width/cell).

        The sides must be multiples of the cell.
        """
        mean, _ = self.posterior(pixels)
        return self.config.scale * (mean - self.config.shift)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents of `encode` to pixels in about [-1, 1], not clamped."""
        return self._decode(self.to_decoder_latents(latents))

    def decode_with_norm_stats(self, latents: Tensor) -> tuple[Tensor, Norms]:
        """`decode` of one picture, and the norm statistics that `decode_window` needs."""
        z = self.to_decoder_latents(latents)
        if elements := self._strip_elements(z, self.config.levels):
            patches, norms = decode_in_strips(self.decoder, self._for_decoder(z), elements)
        else:
            patches, norms = self.decoder.with_norm_stats(self._for_decoder(z))
        return self._to_pixels(patches, z), norms

    def decode_window(self, latents: Tensor, norms: Norms, window: Window) -> Tensor:
        """`decode` a window, with the norm statistics of a picture that is equal elsewhere."""
        z, cell = self.to_decoder_latents(latents), self.config.code_cell
        if elements := self._strip_elements(z, self.config.levels):
            samples = self._for_decoder(z).split(1)
            whole = [decode_in_strips(self.decoder, sample, elements, norms)[0] for sample in samples]
            pixels = self._to_pixels(torch.cat(whole), z)
            return pixels[:, :, window.top : window.bottom, window.left : window.right]
        height, width = cell * z.shape[2], cell * z.shape[3]
        outer = window.grown(0, height, width, self.config.patch)
        part = outer.divided(self.config.patch)
        patches = self.decoder.decode_window(self._for_decoder(z), norms, part)
        pixels = F.pixel_shuffle(patches, self.config.patch)
        if self.config.linear_path:
            cells = outer.grown(0, height, width, cell)
            part = cells.divided(cell)
            linear = self._linear_pixels(z[:, :, part.top : part.bottom, part.left : part.right])
            pixels = pixels + crop(linear, cells, outer, 1)
        return crop(pixels, outer, window, 1)

    def _to_pixels(self, patches: Tensor, z: Tensor) -> Tensor:
        pixels = F.pixel_shuffle(patches, self.config.patch)
        return pixels + self._linear_pixels(z) if self.config.linear_path else pixels

    def _linear_pixels(self, z: Tensor) -> Tensor:
        return self.linear_out(z.to(self.linear_out.weight.dtype))

    def to_decoder_latents(self, latents: Tensor) -> Tensor:
        """Latents (b, channels, h, w) without scale and shift, as the code of the convolutions."""
        return self._to_code(latents / self.config.scale + self.config.shift)

    def _to_code(self, z: Tensor) -> Tensor:
        return F.pixel_unshuffle(z, self.config.latent_shuffle)

    def _from_code(self, code: Tensor) -> Tensor:
        return F.pixel_shuffle(code, self.config.latent_shuffle)

    def _for_decoder(self, z: Tensor) -> Tensor:
        """z in the type of the decoder, which may be narrower than that of the linear path."""
        return z.to(self.decoder.conv_in.weight.dtype)

    def decode_raw(self, z: Tensor) -> Tensor:
        """Decode raw latents of `posterior`."""
        return self._decode(self._to_code(z))

    def _decode(self, z: Tensor) -> Tensor:
        if elements := self._strip_elements(z, self.config.levels):
            samples = self._for_decoder(z).split(1)
            whole = [decode_in_strips(self.decoder, sample, elements)[0] for sample in samples]
            return self._to_pixels(torch.cat(whole), z)
        return self._to_pixels(self.decoder(self._for_decoder(z)), z)

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the raw latents, before scale and shift."""
        patches = F.pixel_unshuffle(pixels, self.config.patch)
        if elements := self._strip_elements(patches, 1):
            moments = torch.cat(
                [encode_in_strips(self.encoder, sample, elements) for sample in patches.split(1)]
            )
        else:
            moments = self.encoder(patches)
        mean, log_variance = torch.chunk(moments, 2, dim=1)
        if self.config.linear_path:
            mean = mean + self.linear_in(pixels)
        return self._from_code(mean), self._from_code(log_variance)

    def _strip_elements(self, x: Tensor, scale: int) -> int | None:
        """The limit if the finest layers of a picture, `scale` times as large as x on a side, exceed it."""
        rows, columns = scale * x.shape[2], scale * x.shape[3]
        limit = self.strip_elements
        exceeds = limit is not None and self.config.base_width * rows * columns > limit
        return limit if exceeds and not torch.is_grad_enabled() else None

    @torch.no_grad()
    def set_linear_path(self, pixels: Tensor) -> None:
        """Initialize the linear path with the principal components of the cells of pictures (b, 3, h, w).

        Each component is scaled by the root of its deviation: between whitened latents (all components count
        equally) and orthonormal ones (errors of latents equal errors of pixels). The convolutions start at
        zero.
        """
        side, channels = self.config.code_cell, self.config.code_channels
        total, count = torch.zeros(3 * side**2, dtype=torch.float64), 0
        second = torch.zeros(3 * side**2, 3 * side**2, dtype=torch.float64)
        for picture in pixels:
            cells = F.unfold(picture[None], side, stride=side)[0].T.double()  # (cells, 3 * side * side)
            total, second, count = total + cells.sum(0), second + cells.T @ cells, count + len(cells)
        mean = total / count
        variances, components = torch.linalg.eigh(second / count - mean[:, None] * mean)
        basis = components[:, -channels:].flip(1)
        deviation = variances[-channels:].flip(0).clamp_min(1e-6).sqrt()
        scale = deviation.sqrt()
        scale = scale * (deviation / scale).square().mean().sqrt()  # overall unit deviation
        shape = (channels, 3, side, side)
        self.linear_in.weight.copy_((basis / scale).T.reshape(shape))
        self.linear_out.weight.copy_((basis * scale).T.reshape(shape))
        assert self.linear_in.bias is not None and self.linear_out.bias is not None
        self.linear_in.bias.copy_(-(mean @ basis) / scale)
        self.linear_out.bias.copy_(mean.reshape(3, -1).mean(1))
        for last in (self.encoder.conv_out, self.decoder.conv_out):
            for parameter in last.parameters():
                parameter.zero_()


def use_channels_last(module: nn.Module) -> None:
    """Store the weights of convolutions with channels last, which is a fifth faster on CPUs."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
