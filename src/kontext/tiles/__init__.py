"""The networks on processors that multiply in tiles (Intel AMX): kernels in C, and the transformer and the
decoder on them.

PyTorch uses a fraction of such a processor, and a step of a small model spends half its time between
products.
"""

from __future__ import annotations

import torch
from torch import nn

from kontext.model.autoencoder import Decoder
from kontext.model.transformer import Transformer
from kontext.tiles.decoder import TiledDecoder
from kontext.tiles.library import Kernels, kernels
from kontext.tiles.transformer import TiledTransformer

LARGEST = 2**28  # parameters of a transformer: the tiles are a second copy of them
LARGEST_DECODER = 2**23  # of wider ones PyTorch makes as much

__all__ = ["decode_on_tiles", "put_on_tiles"]


def put_on_tiles(transformer: Transformer, exact: bool = True) -> bool:
    """Have the transformer evaluated in tiles from now on; its weights must not change afterwards.

    exact: products as float32's to some 1e-5 of their size; else as bfloat16's. False, and nothing is done,
    where the kernels cannot run, the weights are not float32 or too many.
    """
    compiled, config = _kernels_for(transformer, LARGEST), transformer.config
    if compiled is None or config.head_width % 32 or config.width % 32:
        return False
    transformer.instead = TiledTransformer(transformer, compiled, parts=3 if exact else 1)
    return True


def decode_on_tiles(decoder: Decoder) -> bool:
    """The same for a decoder, with bfloat16's products and everything else in float32."""
    compiled = _kernels_for(decoder, LARGEST_DECODER)
    convolutions = [layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d)]
    if compiled is None or any(layer.in_channels % 16 for layer in convolutions):
        return False
    decoder.instead = TiledDecoder(decoder, compiled)
    return True


def _kernels_for(network: nn.Module, largest: int) -> Kernels | None:
    parameters = list(network.parameters())
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in parameters):
        return None
    return kernels() if sum(p.numel() for p in parameters) <= largest else None
