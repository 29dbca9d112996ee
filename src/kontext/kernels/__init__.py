"""Transformer and decoder as C kernels, for CPUs with AMX, AVX-512, AVX2 or NEON.

PyTorch uses a fraction of such a CPU, and a step of a small model spends half its time between matrix
products. The environment variable `KONTEXT_KERNELS` selects the kernels, or none (`library.kernels`).
"""

from __future__ import annotations

import torch
from torch import nn

from kontext.kernels.decoder import KernelDecoder
from kontext.kernels.library import Kernels, kernels, training_kernels
from kontext.kernels.training import TrainingTransformer
from kontext.kernels.training_passes import Passes
from kontext.kernels.transformer import KernelTransformer
from kontext.model.convolutions import Decoder
from kontext.model.linear import StoredWeight
from kontext.model.transformer import Transformer

MAX_BYTES = 2**29  # limit of a transformer's packed weights, which are a second copy
MAX_DECODER_PARAMETERS = 2**23  # parameters: with more, PyTorch is as fast

__all__ = [
    "repack_transformer",
    "use_decoder_kernels",
    "use_training_kernels",
    "use_transformer_kernels",
]


def use_transformer_kernels(transformer: Transformer, exact: bool = True) -> bool:
    """Use the kernels for a transformer from now on; its weights must not change afterward.

    exact: products equal those of float32 to about 1e-5 of their size; otherwise those of bfloat16, if that
    is faster (AMX). Returns False and does nothing if the kernels cannot run, or the weights are not float32
    or too large.
    """
    compiled, config = _kernels_for(transformer), transformer.config
    if compiled is None or config.head_width % 32 or config.width % 32:
        return False
    if _parameters(transformer) * compiled.weight_bytes > MAX_BYTES:
        return False
    transformer.backend = KernelTransformer(transformer, compiled, parts=3 if exact else 1)
    return True


def repack_transformer(transformer: Transformer) -> KernelTransformer:
    """Kernels for the current weights of a transformer that runs on kernels, such as those with a LoRA."""
    backend = transformer.backend
    assert isinstance(backend, KernelTransformer)
    return KernelTransformer(transformer, backend.kernels, backend.parts)


def use_training_kernels(transformer: Transformer) -> bool:
    """Have the transformer evaluated with gradients on the kernels from now on, from its current weights.

    Products have the type of the autocast, bfloat16, or float32. False, and nothing is done, where the
    kernels cannot run, or for another attention than "prefix".
    """
    config = transformer.config
    by_type = {dtype: training_kernels(dtype == torch.bfloat16) for dtype in (torch.bfloat16, torch.float32)}
    passes = {dtype: Passes(kernels, dtype) for dtype, kernels in by_type.items() if kernels is not None}
    widths = (config.width, config.head_width, int(config.width * config.mlp_ratio))
    if len(passes) < 2 or config.context_attention != "prefix" or any(width % 32 for width in widths):
        return False
    if not _is_float32_on_cpu(transformer):
        return False
    transformer.backend = TrainingTransformer(transformer, passes)
    return True


def use_decoder_kernels(decoder: Decoder) -> bool:
    """Use the kernels for a decoder, with the fastest products and everything else in float32."""
    compiled = _kernels_for(decoder)
    convolutions = [layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d)]
    if compiled is None or any(layer.in_channels % 16 for layer in convolutions):
        return False
    if _parameters(decoder) > MAX_DECODER_PARAMETERS:
        return False
    decoder.backend = KernelDecoder(decoder, compiled)
    return True


def _kernels_for(network: nn.Module) -> Kernels | None:
    return kernels() if _is_float32_on_cpu(network) else None


def _is_float32_on_cpu(network: nn.Module) -> bool:
    """Whether all weights are plain float32 on the CPU; the kernels read or copy them."""
    if any(isinstance(layer, StoredWeight) for layer in network.modules()):
        return False
    return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in network.parameters())


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
