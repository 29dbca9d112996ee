"""The networks on kernels in C, for processors with AMX, AVX-512 or AVX2: the transformer and the decoder.

PyTorch uses a fraction of such a processor, and a step of a small model spends half its time between
products. `KONTEXT_KERNELS` in the environment chooses the kernels, or none (`library.kernels`).
"""

from __future__ import annotations

import torch
from torch import nn

from kontext.kernels.decoder import KernelDecoder
from kontext.kernels.library import Kernels, kernels
from kontext.kernels.transformer import KernelTransformer
from kontext.model.autoencoder import Decoder
from kontext.model.transformer import Transformer

LARGEST_BYTES = 2**29  # of a transformer's packed weights, which are a second copy of them
LARGEST_DECODER = 2**23  # parameters: of wider ones PyTorch makes as much

__all__ = ["use_decoder_kernels", "use_transformer_kernels"]


def use_transformer_kernels(transformer: Transformer, exact: bool = True) -> bool:
    """Have the transformer evaluated by the kernels from now on; its weights must not change afterwards.

    exact: products as float32's to some 1e-5 of their size; else as bfloat16's, where that is faster (AMX).
    False, and nothing is done, where the kernels cannot run, the weights are not float32 or too many.
    """
    compiled, config = _kernels_for(transformer), transformer.config
    if compiled is None or config.head_width % 32 or config.width % 32:
        return False
    if _parameters(transformer) * compiled.weight_bytes > LARGEST_BYTES:
        return False
    transformer.backend = KernelTransformer(transformer, compiled, parts=3 if exact else 1)
    return True


def use_decoder_kernels(decoder: Decoder) -> bool:
    """The same for a decoder, with the fastest products and everything else in float32."""
    compiled = _kernels_for(decoder)
    convolutions = [layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d)]
    if compiled is None or any(layer.in_channels % 16 for layer in convolutions):
        return False
    if _parameters(decoder) > LARGEST_DECODER:
        return False
    decoder.backend = KernelDecoder(decoder, compiled)
    return True


def _kernels_for(network: nn.Module) -> Kernels | None:
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in network.parameters()):
        return None
    return kernels()


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
