"""Memory plans: the placement of a model's weights that keeps an edit within a memory limit.

A plan is made before anything is allocated, from the sizes of the weights alone. It is the first of a list,
fastest first, that fits. What costs an edit least is moved off the device first: the text encoders, needed
once per prompt; the modulations, a quarter of FLUX, needed once per edit; then the autoencoder works in
strips. Next, quantized weights stay quantized, and finally blocks are streamed at every step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from kontext.checkpoint.fingerprints import is_small
from kontext.checkpoint.placement import Placement, fp8_weights
from kontext.checkpoint.tensors import Weights
from kontext.engine import memory_sizes
from kontext.engine.device import free_memory
from kontext.engine.memory_sizes import ModelSizes, UnitSize, Workload, sizes_of, usual_workload
from kontext.errors import BadRequest, OutOfMemory
from kontext.memory import available
from kontext.model.fp8 import ALIGNMENT
from kontext.model.presets import Preset
from kontext.precision import bfloat16_is_faster

log = logging.getLogger(__name__)

RESERVED = {"cuda": 800_000_000, "mps": 300_000_000, "cpu": 400_000_000}
"""Bytes for the driver, libraries and the interpreter, by device type: typical values, not measured."""
SHARE_OF_CACHES, MOST_CACHED = 0.02, 512 * 2**20
"""Share and maximum bytes of a limit for latents, prefixes and prompts cached between edits."""
SMALL_BYTES = 4_000_000_000
"""On the CPU, models up to this size are loaded into memory; larger ones are read from their files in use."""
NEXT_SHARE = 0.93
"""Maximum memory of the next smaller plan, as a share of the plan that failed."""
ACTIVATIONS = "activations"


@dataclass(frozen=True)
class PlanRow:
    """One line of a plan."""

    what: str
    where: str
    bytes: int
    """Size on the device."""


@dataclass(frozen=True)
class MemoryPlan:
    """Placement of everything that an edit needs. The rows add up to `bytes`, at most `limit`."""

    device: torch.device
    limit: int
    dtypes: Mapping[str, torch.dtype]
    """Type of computation, by part."""
    preset: Preset = field(repr=False)
    sizes: ModelSizes = field(repr=False)
    workload: Workload
    expanded: bool
    """Whether matrices are converted to the type of computation when loaded. False: when used."""
    text_streamed: bool
    modulations_streamed: bool
    strip_elements: int | None
    """Maximum elements of a layer of the autoencoder at a time; None: no limit."""
    streamed_blocks: tuple[str, ...]
    fp8: bool = False
    """Whether the linear layers of the transformer's blocks multiply in 8-bit floats."""

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.rows)

    @property
    def cache_bytes(self) -> int:
        return min(MOST_CACHED, int(SHARE_OF_CACHES * self.limit))

    @property
    def in_files(self) -> bool:
        """Whether the CPU reads the weights from their files in use."""
        return self.device.type == "cpu" and not self.expanded

    @cached_property
    def rows(self) -> tuple[PlanRow, ...]:
        return tuple(self._rows())

    def placement(self) -> Placement:
        streamed = set(self.streamed_blocks)
        if self.modulations_streamed:
            streamed |= set(_modulation_modules(self.preset))
        if self.text_streamed:
            streamed |= {"t5", "clip"}
        if self.in_files:
            streamed |= {"transformer"}
        pinned = (
            available() // 3 if self.device.type == "cuda" else 0
        )  # of the host's, for each of two networks
        return Placement(self.device, self.dtypes, self.expanded, frozenset(streamed), pinned, self.fp8)

    def max_batch(self, workload: Workload, at_most: int) -> int:
        """Maximum batch size for this workload, 1 to `at_most`."""
        room = self.limit - self.bytes + self.working(self.workload)
        batch = 1
        while batch < at_most and self.working(replace(workload, batch=batch + 1)) <= room:
            batch += 1
        return batch

    def smaller(self) -> MemoryPlan | None:
        """The next smaller plan, for when memory runs out anyway; None if there is none."""
        plans = _ladder(
            self.preset, self.sizes, self.limit, self.device, self.dtypes, self.workload, self.fp8
        )
        return next((plan for plan in plans if plan.bytes < NEXT_SHARE * self.bytes), None)

    def __str__(self) -> str:
        """One line for logs and warnings."""
        said = []
        if self.in_files:
            said.append("weights read from their files")
        elif self.sizes.packed:
            said.append("weights dequantized" if self.expanded else "weights quantized")
        if self.fp8:
            said.append("products in 8-bit floats")
        if self.streamed_blocks and not self.in_files:
            said.append(f"{len(self.streamed_blocks)} of {len(self.sizes.blocks)} blocks streamed")
        if self.text_streamed and not self.in_files:
            said.append("text encoders streamed")
        if self.strip_elements is not None:
            said.append("autoencoder in strips")
        said.append(f"{self.bytes / 1e9:.1f} of {self.limit / 1e9:.1f} GB")
        return ", ".join(said)

    def _rows(self) -> Iterator[PlanRow]:
        sizes, kind = self.sizes, self.device.type
        here, form = f"on {kind}", "as stored"
        if self.expanded and sizes.packed:
            form = f"in {str(self.dtypes['transformer']).removeprefix('torch.')}"
        resident = [unit for unit in sizes.blocks if unit.name not in self.streamed_blocks]

        def away(how: str) -> str:
            return "read from the file in use" if self.in_files else f"streamed to {kind} {how}"

        yield PlanRow("driver and libraries", here, RESERVED.get(kind, 0))
        yield PlanRow("cached latents and prompts", here, self.cache_bytes)
        yield PlanRow(
            "autoencoder" + (", in strips" if self.strip_elements else ""), here, sizes.autoencoder.dense
        )
        yield PlanRow("embeddings and last layer", here, sizes.rest.dense)
        if resident:
            count = f"{len(resident)} of {len(sizes.blocks)} blocks"
            if self.fp8:
                yield PlanRow(count, f"{here}, in 8-bit floats", sum(unit.fp8 for unit in resident))
            else:
                yield PlanRow(count, f"{here}, {form}", self._size(*resident))
        if self.streamed_blocks:
            count = f"{len(self.streamed_blocks)} of {len(sizes.blocks)} blocks"
            yield PlanRow(count, away("at every step"), 0)
        if self.modulations_streamed:
            yield PlanRow("modulations", away("once per edit"), 0)
        else:
            yield PlanRow("modulations", f"{here}, {form}", self._size(*sizes.modulations))
        if self.text_streamed:
            yield PlanRow("text encoders", away("for each new prompt"), sizes.t5_rest.dense)
        else:
            text = self._size(*sizes.t5_blocks, sizes.clip) + sizes.t5_rest.dense + sizes.t5_table.dense
            yield PlanRow("text encoders", f"{here}, {form}", text)
        yield PlanRow(ACTIVATIONS, here, self.working(self.workload))

    def _size(self, *units: UnitSize) -> int:
        return sum(unit.dense if self.expanded else unit.stored for unit in units)

    def working(self, workload: Workload) -> int:
        """Maximum bytes that a stage of an edit takes in addition to the resident weights."""
        sizes, preset = self.sizes, self.preset
        itemsize = {
            part: self.dtypes.get(part, torch.float32).itemsize
            for part in ("transformer", "t5", "autoencoder")
        }
        travels = self.device.type != "cpu"
        expansion = 0 if self.expanded else sizes.largest_expansion

        block = memory_sizes.block_bytes(preset, workload, itemsize["transformer"], self.fp8)
        visiting = [unit for unit in sizes.blocks if unit.name in self.streamed_blocks]
        block += _two_largest(visiting) * travels
        once = _two_largest(sizes.modulations) * (travels and self.modulations_streamed)
        modulated = memory_sizes.modulation_bytes(preset, workload, itemsize["transformer"])
        quantizing = self.fp8 * memory_sizes.quantizing_bytes(sizes.largest_fp8, self.device.type)
        if visiting:
            block += quantizing
        sampling = modulated + expansion + max(block, once)

        text = memory_sizes.text_bytes(preset, workload, itemsize["t5"]) + expansion
        text += _two_largest(sizes.t5_blocks) * (travels and self.text_streamed)
        text += (sizes.clip.stored + sizes.t5_table.dense // 8) * (travels and self.text_streamed)
        loading = quantizing + self.fp8 * max((unit.stored for unit in sizes.blocks), default=0)
        return max(sampling, text, loading, self._codec_bytes(workload, itemsize["autoencoder"]))

    def _codec_bytes(self, workload: Workload, itemsize: int) -> int:
        config = self.preset.autoencoder
        if self.strip_elements is None:
            return memory_sizes.codec_bytes(config, workload, itemsize)
        strips = memory_sizes.strip_bytes(config, workload, itemsize, self.strip_elements)
        if self.device.type == "cpu":  # where the layers that strips are cut from are on the device too
            strips += memory_sizes.layer_bytes(config, workload, itemsize)
        return strips


def make_plan(
    parts: Mapping[str, Weights],
    preset: Preset,
    limit: int,
    device: torch.device,
    dtypes: Mapping[str, torch.dtype],
    workload: Workload | None = None,
    fp8: bool = False,
) -> MemoryPlan:
    """The fastest plan for a model within `limit` bytes.

    dtypes: types of computation, by part. workload: the largest edit to plan for; default: the model's usual
    one. fp8: whether the transformer's blocks multiply in 8-bit floats. Raises BadRequest for fp8 if none of
    its layers fit, OutOfMemory if no plan fits, with the memory that would be needed.
    """
    if fp8:
        _check_fp8_layers(parts, preset)
    sizes, workload = sizes_of(parts, dtypes), workload or usual_workload(preset)
    plans = list(_ladder(preset, sizes, limit, device, dtypes, workload, fp8))
    fitting = next((plan for plan in plans if plan.bytes <= limit), None)
    if fitting is not None:
        return fitting
    least = math.ceil(min(plan.bytes for plan in plans) / 1e8) / 10
    width, height = workload.canvas
    raise OutOfMemory(
        f"{limit / 1e9:.3g} GB of memory is too little: an edit at {width}x{height} needs {least:g} GB on "
        f"{device}; give more, a smaller canvas, or a quantized model"
    )


def _check_fp8_layers(parts: Mapping[str, Weights], preset: Preset) -> None:
    if not fp8_weights(parts["transformer"]):
        raise BadRequest(
            f"fp8 needs linear layers whose sides are divisible by {ALIGNMENT}, and the blocks of "
            f"{preset.name} have none; load it without fp8"
        )


def _ladder(
    preset: Preset,
    sizes: ModelSizes,
    limit: int,
    device: torch.device,
    dtypes: Mapping[str, torch.dtype],
    workload: Workload,
    fp8: bool,
) -> Iterator[MemoryPlan]:
    """All plans, fastest first."""
    names = [unit.name for unit in sizes.blocks]
    strip_elements = max(
        1, workload.pixels // preset.autoencoder.patch**2 * preset.autoencoder.base_width // 16
    )

    def plan(
        expanded: bool, text: bool = False, modulations: bool = False, strips: bool = False, blocks: int = 0
    ) -> MemoryPlan:
        return MemoryPlan(
            device=device,
            limit=limit,
            dtypes=dtypes,
            preset=preset,
            sizes=sizes,
            workload=workload,
            expanded=expanded,
            text_streamed=text,
            modulations_streamed=modulations,
            strip_elements=strip_elements if strips else None,
            streamed_blocks=_spread(names, blocks),
            fp8=fp8,
        )

    if device.type == "cpu":
        if sizes.dense <= SMALL_BYTES:
            yield plan(True)
        yield plan(False, True, True, False, len(names))
        yield plan(False, True, True, True, len(names))
        return
    for expanded in (True, False) if sizes.packed else (False,):
        yield plan(expanded)
        yield plan(expanded, text=True)
        yield plan(expanded, text=True, modulations=True)
        yield plan(expanded, text=True, modulations=True, strips=True)
    for blocks in range(1, len(names) + 1):
        yield plan(False, True, True, True, blocks)


def _spread(names: list[str], count: int) -> tuple[str, ...]:
    """`count` of the names, evenly spread, so that copies overlap the computation of other blocks."""
    return tuple(names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count))


def _modulation_modules(preset: Preset) -> Iterator[str]:
    for i in range(preset.transformer.depth_double):
        yield f"transformer.double_blocks.{i}.img_mod"
        yield f"transformer.double_blocks.{i}.txt_mod"
    for i in range(preset.transformer.depth_single):
        yield f"transformer.single_blocks.{i}.modulation"


def _two_largest(units: Iterator[UnitSize] | tuple[UnitSize, ...] | list[UnitSize]) -> int:
    """Bytes of the two groups that are on the device at a time: the one in use and the next one."""
    return sum(sorted(unit.stored for unit in units)[-2:])


def choose_placement(
    parts: Mapping[str, Weights],
    preset: Preset,
    limit: int | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    canvas: int | None = None,
    fp8: bool = False,
) -> tuple[Placement, MemoryPlan | None]:
    """The placement of a model and its plan; no plan for a small model without a limit.

    limit: bytes; None: the free memory of the device. canvas: side of the canvas to plan for; None: the
    model's own. fp8: whether the transformer's blocks multiply in 8-bit floats. Raises BadRequest for a
    canvas that the model has not and for fp8 if none of its layers fit, OutOfMemory if no plan fits.
    """
    dtypes = computing_types(parts, device, dtype)
    if limit is None and is_small(parts):
        if fp8:
            _check_fp8_layers(parts, preset)
        return Placement(device, dtypes, fp8=fp8), None
    workload = usual_workload(preset, canvas)
    plan = make_plan(parts, preset, limit or free_memory(device), device, dtypes, workload, fp8)
    log.info("%s", plan)
    return plan.placement(), plan


def computing_types(
    parts: Mapping[str, Weights], device: torch.device, dtype: torch.dtype | None = None
) -> dict[str, torch.dtype]:
    """The type of computation of each part: `dtype`, or the best one for the device.

    Models under a billion parameters compute in float32, larger ones in bfloat16 if that is faster on the
    device, except an autoencoder that is stored in float32. T5 never computes in float16, which overflows.
    """
    if dtype is not None:
        return dict(Placement.of(device, dtype).dtypes)
    if is_small(parts):
        return dict.fromkeys(parts, torch.float32)
    best = torch.bfloat16 if bfloat16_is_faster(str(device)) else torch.float32
    types = dict.fromkeys(parts, best)
    codec = parts.get("autoencoder", {}).values()
    if any(tensor.dtype == torch.float32 for tensor in codec):
        types["autoencoder"] = torch.float32
    return types
