"""Sizes for memory plans: groups of a model's weights, and the activations of an edit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from kontext.engine.sizes import Size, scaled_canvases
from kontext.model.fp8 import multiplies_in_fp8
from kontext.model.presets import AutoencoderConfig, Preset
from kontext.model.stored import CHUNK_NUMBERS, DEVICE_CHUNK_NUMBERS, PLAIN

if TYPE_CHECKING:
    from kontext.checkpoint.tensors import LazyTensor, Weights

TRANSFORMER_UNITS = 25
"""Elements of activations in a block, per token and width. Counted on a simulated device: 24."""
ENCODE_UNITS, DECODE_UNITS, DECODE_UNITS_16 = 6, 7, 11
"""Elements of activations in the autoencoder, per pixel and base width: encoding, decoding, and decoding in
16 bits with norms in 32. Counted: 5.2, 6.0, 10.0.
"""
FP8_UNITS = 4
"""Additional elements in a block whose products are in 8-bit floats, for scaled inputs. Counted: 3.5."""
COARSE_UNITS, STRIP_UNITS = 4.5, 9
"""The same in strips, per element of the coarsest level's output and of a strip. Counted: 3.6, 8."""

SCALE_BYTES = 4
"""Of the scale of a row of 8-bit floats."""

_MODULATION = re.compile(r"((?:double|single)_blocks\.\d+)\.(img_mod|txt_mod|modulation)\.")
_BLOCK = re.compile(r"((?:double|single)_blocks\.\d+)\.")
_T5_BLOCK = re.compile(r"(encoder\.block\.\d+)\.")


@dataclass(frozen=True)
class UnitSize:
    """A group of weights that is placed together: bytes in its file and in the type of computation."""

    stored: int
    dense: int
    fp8: int = 0
    """Bytes with the weights in 8-bit floats that can be multiplied so, of the transformer."""
    name: str = ""
    """The module, by its dotted path from the part on."""

    def __add__(self, other: UnitSize) -> UnitSize:
        return UnitSize(self.stored + other.stored, self.dense + other.dense, self.fp8 + other.fp8)


@dataclass(frozen=True)
class ModelSizes:
    """Groups of a model's weights."""

    blocks: tuple[UnitSize, ...]
    """Of the transformer, without their modulations."""
    modulations: tuple[UnitSize, ...]
    """Of each block."""
    rest: UnitSize
    """Of the transformer: the embeddings and the last layer."""
    t5_blocks: tuple[UnitSize, ...]
    t5_rest: UnitSize
    t5_table: UnitSize
    """Its embedding, of which a prompt needs a few rows."""
    clip: UnitSize
    autoencoder: UnitSize
    largest_expansion: int
    """Bytes of the largest matrix that is converted to the type of computation."""
    packed: bool
    """Whether the transformer has matrices that are converted to the type of computation."""
    largest_fp8: int
    """Numbers of the largest matrix that can be multiplied in 8-bit floats; 0 if there is none."""

    @property
    def dense(self) -> int:
        """Bytes of the whole model in the type of computation."""
        blocks = (*self.blocks, *self.modulations, *self.t5_blocks)
        rest = (self.rest, self.t5_rest, self.t5_table, self.clip, self.autoencoder)
        return sum(unit.dense for unit in (*blocks, *rest))


def sizes_of(parts: Mapping[str, Weights], dtypes: Mapping[str, torch.dtype]) -> ModelSizes:
    """Group a model's weights by the names, shapes and types of its tensors.

    dtypes: types of computation, by part.
    """
    groups: dict[str, dict[str, UnitSize]] = {}
    largest_fp8 = 0
    for part, weights in parts.items():
        for name, tensor in weights.items():
            kind, module = _group(part, name)
            units = groups.setdefault(kind, {})
            size = unit_size(tensor, dtypes.get(part))
            if part == "transformer" and multiplies_in_fp8(name, tensor.shape):
                size = replace(size, fp8=tensor.count + SCALE_BYTES * tensor.shape[0])
                largest_fp8 = max(largest_fp8, tensor.count)
            units[module] = units.get(module, UnitSize(0, 0)) + size

    def every(kind: str) -> tuple[UnitSize, ...]:
        return tuple(replace(unit, name=module) for module, unit in groups.get(kind, {}).items())

    def total(kind: str) -> UnitSize:
        return sum(every(kind), UnitSize(0, 0))

    expansions = {
        part: [unit_size(t, dtypes.get(part)).dense for t in own.values() if _expands(t, dtypes.get(part))]
        for part, own in parts.items()
    }
    return ModelSizes(
        blocks=every("block"),
        modulations=every("modulation"),
        rest=total("rest"),
        t5_blocks=every("t5 block"),
        t5_rest=total("t5 rest"),
        t5_table=total("t5 table"),
        clip=total("clip"),
        autoencoder=total("autoencoder"),
        largest_expansion=max((size for own in expansions.values() for size in own), default=0),
        packed=bool(expansions.get("transformer")),
        largest_fp8=largest_fp8,
    )


def _group(part: str, name: str) -> tuple[str, str]:
    """Kind of the group that a tensor belongs to, and the module."""
    if part == "transformer":
        if found := _MODULATION.match(name):
            return "modulation", f"{part}.{found[1]}"
        found = _BLOCK.match(name)
        return ("block", f"{part}.{found[1]}") if found else ("rest", part)
    if part == "t5":
        if name.startswith("shared."):
            return "t5 table", part
        found = _T5_BLOCK.match(name)
        return ("t5 block", f"{part}.{found[1]}") if found else ("t5 rest", part)
    return part, part


def _expands(tensor: LazyTensor, dtype: torch.dtype | None) -> bool:
    plain = all(part.format is PLAIN for part in tensor.parts) and dtype in (None, tensor.dtype)
    return bool(tensor.parts) and not plain


def unit_size(tensor: LazyTensor, dtype: torch.dtype | None) -> UnitSize:
    """Sizes of a tensor. What is not a matrix of a file is converted when loaded."""
    kind = dtype or (tensor.dtype if tensor.dtype.itemsize > 2 else torch.bfloat16)
    dense = tensor.count * kind.itemsize
    stored = tensor.bytes if tensor.parts else dense
    return UnitSize(stored, dense, max(stored, dense))


@dataclass(frozen=True)
class Workload:
    """The largest edit that a plan is for."""

    canvas: Size
    """Of the target, pixels."""
    contexts: tuple[Size, ...]
    text_tokens: int
    steps: int
    batch: int = 1
    """Batch size of the transformer: pictures, doubled by true guidance."""

    @property
    def pixels(self) -> int:
        """Pixels of the largest canvas."""
        return max(width * height for width, height in (self.canvas, *self.contexts))

    def tokens(self, token_pixels: int) -> int:
        areas = ((w // token_pixels) * (h // token_pixels) for w, h in (self.canvas, *self.contexts))
        return self.text_tokens + sum(areas)


def usual_workload(preset: Preset, canvas_side: int | None = None) -> Workload:
    """An edit of one picture at the model's largest size, or the largest at a canvas of that side."""
    sizes = scaled_canvases(preset.sizes, canvas_side, preset.token_pixels)
    canvas = max(sizes, key=lambda size: size[0] * size[1])
    guided = preset.sampling.guidance > 1 and not preset.transformer.guidance_embed
    return Workload(canvas, (canvas,), preset.text_length, preset.sampling.steps, 2 if guided else 1)


def block_bytes(preset: Preset, workload: Workload, itemsize: int, fp8: bool = False) -> int:
    """Activations of a block of the transformer."""
    tokens = workload.batch * workload.tokens(preset.token_pixels)
    units = TRANSFORMER_UNITS + FP8_UNITS * fp8
    return units * tokens * preset.transformer.width * itemsize


def quantizing_bytes(numbers: int, device_type: str) -> int:
    """Bytes to quantize a matrix to 8-bit floats: the result, and some of the numbers in float32, twice."""
    return numbers + 2 * 4 * min(numbers, CHUNK_NUMBERS.get(device_type, DEVICE_CHUNK_NUMBERS))


def modulation_bytes(preset: Preset, workload: Workload, itemsize: int) -> int:
    """Shifts, scales and gates of all blocks and steps, and the products that contain them."""
    config = preset.transformer
    rows = 12 * config.depth_double + 3 * config.depth_single + 2
    return 3 * workload.steps * workload.batch * rows * config.width * itemsize


def text_bytes(preset: Preset, workload: Workload, itemsize: int) -> int:
    """Activations of a block of T5."""
    t5, length = preset.t5, workload.text_tokens
    return (length * (4 * t5.feed_forward + 8 * t5.width) + 3 * t5.heads * length**2) * itemsize


def codec_bytes(config: AutoencoderConfig, workload: Workload, itemsize: int) -> int:
    """Activations of the autoencoder without strips: results are decoded as a batch, a source alone."""
    source = DECODE_UNITS if itemsize > 2 else DECODE_UNITS_16
    units = max(ENCODE_UNITS, workload.batch * DECODE_UNITS, source)
    return units * config.base_width * (workload.pixels // config.patch**2) * itemsize


def strip_bytes(config: AutoencoderConfig, workload: Workload, itemsize: int, strip_elements: int) -> int:
    """Activations of the autoencoder in strips, on the device."""
    places = workload.pixels // config.patch**2
    coarse = places // max(1, config.levels // 2) ** 2 * config.base_width * config.multipliers[-1]
    return int((COARSE_UNITS * coarse + STRIP_UNITS * strip_elements) * itemsize)


def layer_bytes(config: AutoencoderConfig, workload: Workload, itemsize: int) -> int:
    """Layers of the whole picture that strips are taken from: input, hidden layer and output of a block."""
    return 4 * config.base_width * (workload.pixels // config.patch**2) * itemsize
