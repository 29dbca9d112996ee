"""The contexts of an edit, each computed once: latents, codec reconstruction, keys and values.

In "prefix" attention none of this depends on prompt, seed or step, so it is computed when a picture arrives
and serves every edit of it. Entries are keyed by the pixels on the canvas and the fingerprint of the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kontext.engine.cache import ByteCache
from kontext.engine.device import finite
from kontext.engine.domain import is_photograph
from kontext.engine.regions import window_of
from kontext.kernels import use_decoder_kernels, use_transformer_kernels
from kontext.model.blocks import KeysValues
from kontext.model.convolutions import Norms
from kontext.model.tokens import pack, picture_ids
from kontext.model.transformer import Prefix
from kontext.model.window import Window
from kontext.pictures import Picture

if TYPE_CHECKING:
    from kontext.checkpoint import Model

Origin = tuple[int, int, int]
"""Position of a picture's first token: picture index, row, column."""

WIDE = 384  # of a transformer: from here on its products outweigh all else


@dataclass(frozen=True)
class Canvas:
    """A picture at the model's resolution: RGB, sides are multiples of a token's."""

    image: Image.Image

    @cached_property
    def digest(self) -> str:
        header = f"{self.image.size}:".encode()
        return hashlib.sha256(header + self.image.tobytes()).hexdigest()

    def grid(self, token_pixels: int) -> tuple[int, int]:
        """(rows, columns) of tokens with sides of `token_pixels`."""
        return self.image.height // token_pixels, self.image.width // token_pixels


class ContextStore:
    """A cache of contexts of at most `limit_bytes`; the least recently used are evicted first."""

    def __init__(self, model: Model, limit_bytes: int = 512 * 2**20):
        self.model = model
        self._cache = ByteCache(limit_bytes)

    @property
    def bytes(self) -> int:
        return self._cache.bytes

    def latents(self, canvas: Canvas) -> Tensor:
        """(1, channels, height/cell, width/cell) in float32."""
        return self._cache.get(
            ("latents", self.model.fingerprint, canvas.digest), lambda: self._encode(canvas), _tensor_bytes
        )

    def reconstruct(self, canvas: Canvas) -> np.ndarray:
        """decode(encode(picture)), the reconstruction by the codec: uint8 (height, width, 3)."""
        return self._view(canvas)[0]

    def paint(self, latents: Tensor, sources: Sequence[Canvas]) -> tuple[np.ndarray, Window | None]:
        """Decode edits of `sources` from latents (b, channels, h, w) to uint8 pictures (b, height, width, 3).

        Where latents differ from the sources' only inside a window, only the window is decoded; the rest is
        the reconstruction of the source.
        """
        window = window_of(
            latents,
            torch.cat([self.latents(source) for source in sources]),
            self.model.preset.autoencoder.cell,
        )
        if window is None:
            return decode(self.model, latents), None
        views = [self._view(source) for source in sources]
        pictures = np.stack([view for view, _ in views])
        if window.area:
            # Variants of one picture are decoded together; other pictures have norms of their own.
            alone = len({source.digest for source in sources}) == 1
            together = [latents] if alone else latents.split(1)
            decoded = [
                self.model.autoencoder.decode_window(part, norms, window)
                for part, (_, norms) in zip(together, views)
            ]
            pictures[:, window.top : window.bottom, window.left : window.right] = _bytes(torch.cat(decoded))
        return pictures, window

    def _view(self, canvas: Canvas) -> tuple[np.ndarray, Norms]:
        def make() -> tuple[np.ndarray, Norms]:
            pixels, norms = self.model.autoencoder.decode_with_norm_stats(self.latents(canvas))
            return _bytes(pixels)[0], norms

        key = ("codec", self.model.fingerprint, canvas.digest)
        return self._cache.get(key, make, lambda view: view[0].nbytes)

    def prefix(self, canvas: Canvas, origin: Origin, loras: Hashable = ()) -> Prefix:
        """Keys and values of the picture in every block, with its first token at `origin`.

        loras: the key of the LoRAs that the transformer computes with.
        """
        return self._cache.get(
            ("prefix", origin, loras, self.model.fingerprint, canvas.digest),
            lambda: self._prefill(canvas, origin),
            lambda prefix: prefix.bytes,
        )

    def tokens(self, canvas: Canvas, origin: Origin) -> tuple[Tensor, Tensor]:
        """Tokens (1, n, in_channels) and positions (n, 3) of the picture, the first at `origin`."""
        index, row, column = origin
        rows, columns = canvas.grid(self.model.preset.token_pixels)
        ids = picture_ids(index, rows, columns, device_of(self.model), row, column)
        return pack(self.latents(canvas)).to(parameter_type(self.model.transformer)), ids

    def is_photograph(self, picture: Picture, canvas: Canvas) -> bool:
        """Whether a picture, here placed on a canvas, looks like a photograph."""
        return self._cache.get(
            ("photograph", canvas.digest), lambda: is_photograph(picture.opaque_rgb), lambda _: 256
        )

    def _encode(self, canvas: Canvas) -> Tensor:
        pixels = torch.from_numpy(np.array(canvas.image)).to(device_of(self.model))
        pixels = pixels.permute(2, 0, 1)[None].to(parameter_type(self.model.autoencoder)) / 127.5 - 1
        return finite(self.model.autoencoder.encode(pixels).float(), f"encoder of {self.model.name}")

    def _prefill(self, canvas: Canvas, origin: Origin) -> Prefix:
        return self.model.transformer.prefill(*self.tokens(canvas, origin))


def decode(model: Model, latents: Tensor) -> np.ndarray:
    """latents (b, channels, h, w) -> uint8 pictures (b, height, width, 3)."""
    return _bytes(model.autoencoder.decode(latents.to(parameter_type(model.autoencoder))))


def _bytes(pixels: Tensor) -> np.ndarray:
    """Pixels (b, 3, height, width) in about [-1, 1] as uint8 (b, height, width, 3). Raises BadCheckpoint."""
    pixels = finite(pixels, "decoder of the autoencoder")
    pixels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def accelerate_cpu(model: Model, compiled: bool = False) -> None:
    """Use the kernels for transformer and decoder if the CPU has one of their instruction sets.

    With AMX they multiply in bfloat16, which changes pixels by a few tenths of a level of 255; a round trip
    through the autoencoder changes about ten levels. With AMX but without the kernels, or if a second copy of
    the weights does not fit, the decoder and a wide transformer are converted to bfloat16; a narrow one gains
    too little. A transformer whose blocks are to be compiled keeps PyTorch's products.
    """
    if device_of(model).type != "cpu":
        return
    transformer, decoder = model.transformer, model.autoencoder.decoder
    slow: list[torch.nn.Module] = [] if use_decoder_kernels(decoder) else [decoder]
    on_kernels = not compiled and use_transformer_kernels(transformer, exact=False)
    if not on_kernels and transformer.config.width >= WIDE:
        slow.append(transformer)
    if not torch.cpu._is_amx_tile_supported():
        return
    for network in slow:
        if parameter_type(network) == torch.float32:
            network.to(torch.bfloat16)


def stack(prefixes: Sequence[Prefix]) -> Prefix:
    """Stack prefixes of pictures of equal size into one for a batch.

    A single prefix serves a batch of any size.
    """
    if all(prefix is prefixes[0] for prefix in prefixes):
        return prefixes[0]
    return Prefix(
        tuple(
            KeysValues(torch.cat([kv.keys for kv in same]), torch.cat([kv.values for kv in same]))
            for same in zip(*(prefix.blocks for prefix in prefixes))
        )
    )


def device_of(model: Model) -> torch.device:
    return next(model.transformer.parameters()).device


def parameter_type(module: torch.nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.nelement() * tensor.element_size()
