"""The transformer on processors that multiply in tiles (Intel AMX): kernels in C, and the network on them.

PyTorch's float32 products use a fraction of such a processor, and a step of a small model spends half its
time between them.
"""

from __future__ import annotations

import torch

from kontext.model.transformer import Transformer
from kontext.tiles.library import kernels
from kontext.tiles.transformer import TiledTransformer

LARGEST = 2**28  # parameters: the tiles are a second copy of them

__all__ = ["put_on_tiles"]


def put_on_tiles(transformer: Transformer, exact: bool = True) -> bool:
    """Have the transformer evaluated in tiles from now on; its weights must not change afterwards.

    exact: products as float32's to some 1e-5 of their size; else as bfloat16's. False, and nothing is done,
    where the kernels cannot run, the weights are not float32 or too many.
    """
    compiled = kernels()
    parameters = list(transformer.parameters())
    if compiled is None or any(p.dtype != torch.float32 or p.device.type != "cpu" for p in parameters):
        return False
    config = transformer.config
    if sum(p.numel() for p in parameters) > LARGEST or config.head_width % 32 or config.width % 32:
        return False
    transformer.instead = TiledTransformer(transformer, compiled, parts=3 if exact else 1)
    return True
