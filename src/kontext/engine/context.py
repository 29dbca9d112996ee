"""The contexts of an edit, computed once each: latents, the codec's own view, and keys and values for the
transformer.

In "prefix" attention nothing of this depends on the prompt, the seed or the step, so it is made when a
picture arrives and serves every edit of it. Everything is keyed by the pixels on the canvas (which content
and size plan decide) and by the fingerprint of the weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kontext.engine.cache import ByteCache
from kontext.model.blocks import KeysValues
from kontext.model.tokens import pack, picture_ids
from kontext.model.transformer import Prefix
from kontext.tiles import put_on_tiles

WIDE = 384  # of a transformer: from here on its products outweigh all else
PATCH = 16  # pixels along the side of one token


@dataclass(frozen=True)
class Canvas:
    """A picture as it lies before the model: RGB, sides multiples of 16."""

    image: Image.Image

    @cached_property
    def digest(self) -> str:
        header = f"{self.image.size}:".encode()
        return hashlib.sha256(header + self.image.tobytes()).hexdigest()

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tokens."""
        return self.image.height // PATCH, self.image.width // PATCH

    @property
    def flat_share(self) -> float:
        """Share of pixels within 2 of 255 of their right and lower neighbour: large in drawings, small in
        photographs, whose surfaces are never even.
        """
        pixels = np.asarray(self.image, np.int16)
        right = np.abs(np.diff(pixels, axis=1)).max(-1)[:-1]
        below = np.abs(np.diff(pixels, axis=0)).max(-1)[:, :-1]
        return float((np.maximum(right, below) <= 2).mean())


class ContextStore:
    """Makes and keeps what contexts need; at most `limit_bytes` of it, the least recently used leaving
    first.
    """

    def __init__(self, model, limit_bytes: int = 512 * 2**20):
        self.model = model
        self._cache = ByteCache(limit_bytes)

    @property
    def bytes(self) -> int:
        return self._cache.bytes

    def latents(self, canvas: Canvas) -> Tensor:
        """(1, 16, height/8, width/8) in float32."""
        return self._cache.get(
            ("latents", self.model.fingerprint, canvas.digest), lambda: self._encode(canvas), _tensor_bytes
        )

    def codec_view(self, canvas: Canvas) -> np.ndarray:
        """decode(encode(picture)): what is left of it by the codec alone. uint8 (height, width, 3)."""
        return self._cache.get(
            ("codec", self.model.fingerprint, canvas.digest),
            lambda: decode(self.model, self.latents(canvas))[0],
            lambda view: view.nbytes,
        )

    def prefix(self, canvas: Canvas, index: int) -> Prefix:
        """Keys and values of the picture as context number `index` (1 for the first), in every block."""
        return self._cache.get(
            ("prefix", index, self.model.fingerprint, canvas.digest),
            lambda: self._prefill(canvas, index),
            lambda prefix: prefix.bytes,
        )

    def tokens(self, canvas: Canvas, index: int) -> tuple[Tensor, Tensor]:
        """Tokens (1, n, 64) and positions (n, 3) of the picture as context number `index`."""
        ids = picture_ids(index, *canvas.grid, device=device_of(self.model))
        return pack(self.latents(canvas)).to(parameter_type(self.model.transformer)), ids

    def round_trip_psnr(self, canvas: Canvas) -> float:
        """How well the codec alone keeps the picture, in dB."""
        error = np.asarray(canvas.image, np.float32) - self.codec_view(canvas)
        return 10 * math.log10(255**2 / max(float(np.square(error).mean()), 1e-6))

    def _encode(self, canvas: Canvas) -> Tensor:
        pixels = torch.from_numpy(np.array(canvas.image)).to(device_of(self.model))
        pixels = pixels.permute(2, 0, 1)[None].to(parameter_type(self.model.autoencoder)) / 127.5 - 1
        return self.model.autoencoder.encode(pixels).float()

    def _prefill(self, canvas: Canvas, index: int) -> Prefix:
        return self.model.transformer.prefill(*self.tokens(canvas, index))


def decode(model, latents: Tensor) -> np.ndarray:
    """latents (b, 16, h, w) -> uint8 pictures (b, 8h, 8w, 3)."""
    pixels = model.autoencoder.decode(latents.to(parameter_type(model.autoencoder))).float()
    pixels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def quicken(model) -> None:
    """Use what the processor has to multiply in tiles (AMX); elsewhere nothing is done.

    The decoder in bfloat16 takes half the time, half a level of 255 from float32 where a round trip costs
    some ten. The transformer runs on `kontext.tiles`: a narrow one with float32's products, a wide one with
    bfloat16's. Without the kernels, or where a second copy of the weights is too much, a wide one is put into
    bfloat16.
    """
    if device_of(model).type != "cpu" or not torch.cpu._is_amx_tile_supported():
        return
    if parameter_type(model.autoencoder.decoder) == torch.float32:
        model.autoencoder.decoder.to(torch.bfloat16)
    wide = model.transformer.config.width >= WIDE
    tiled = put_on_tiles(model.transformer, exact=not wide)
    if wide and not tiled and parameter_type(model.transformer) == torch.float32:
        model.transformer.to(torch.bfloat16)


def stack(prefixes: Sequence[Prefix]) -> Prefix:
    """Prefixes of several pictures of equal size as one for a batch; one alone serves a batch of any size."""
    if all(prefix is prefixes[0] for prefix in prefixes):
        return prefixes[0]
    return Prefix(
        tuple(
            KeysValues(torch.cat([kv.keys for kv in same]), torch.cat([kv.values for kv in same]))
            for same in zip(*(prefix.blocks for prefix in prefixes))
        )
    )


def device_of(model) -> torch.device:
    return next(model.transformer.parameters()).device


def parameter_type(module: torch.nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.nelement() * tensor.element_size()
