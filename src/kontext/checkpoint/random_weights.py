"""Random weights of the size of FLUX.1 Kontext [dev], for timings without its files."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kontext.checkpoint.layouts import empty_module
from kontext.checkpoint.tensors import LazyTensor, Weights
from kontext.errors import NotFound
from kontext.model.presets import PRESETS, Preset
from kontext.model.stored import PLAIN, StoredMatrix

DEV_RANDOM = "dev-random"
TEXT_LAYERS = 1
"""Layers of both text encoders: they run once for a prompt and are not what is timed."""
PERIOD = 2**20 + 7
"""Numbers that are drawn; longer tensors repeat them."""


def is_dev_random(name: str) -> bool:
    return name.partition(":")[0] == DEV_RANDOM


def dev_preset(name: str) -> Preset:
    """The preset of "dev-random", or of "dev-random:N" with N transformer blocks, a third of them double.

    Raises NotFound for another number than 2 to 57.
    """
    preset, layers = PRESETS["dev"], name.partition(":")[2]
    most = preset.transformer.depth_double + preset.transformer.depth_single
    if layers and not (layers.isascii() and layers.isdigit() and 2 <= int(layers) <= most):
        raise NotFound(f"{DEV_RANDOM}:N needs 2 to {most} blocks, got {layers!r}")
    double = round(int(layers) / 3) if layers else preset.transformer.depth_double
    single = int(layers) - double if layers else preset.transformer.depth_single
    return replace(
        preset,
        transformer=replace(preset.transformer, depth_double=double, depth_single=single),
        t5=replace(preset.t5, layers=TEXT_LAYERS),
        clip=replace(preset.clip, layers=TEXT_LAYERS),
    )


def random_weights(part: str, preset: Preset) -> Weights:
    """bfloat16 weights of a part, drawn when they are read; the same for the same name."""
    weights: Weights = {}
    for name, tensor in empty_module(part, getattr(preset, part)).state_dict().items():
        shape = tuple(tensor.shape)
        read = partial(_draw, name, shape)
        stored = StoredMatrix(shape, PLAIN, (read,), 2 * math.prod(shape), name)
        weights[name] = LazyTensor(shape, torch.bfloat16, read, "", (stored,) if len(shape) == 2 else ())
    return weights


def _draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """Normal numbers that keep the size of what they multiply; biases are 0, scales of norms 1."""
    if len(shape) < 2:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(sum(name.encode()))
    drawn = torch.randn(PERIOD, generator=generator) / math.sqrt(math.prod(shape[1:]))
    count = math.prod(shape)
    return drawn.bfloat16().repeat(-(-count // PERIOD))[:count].view(shape)
