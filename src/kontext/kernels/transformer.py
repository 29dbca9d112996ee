"""The transformer on the kernels: the network of `kontext.model` with operations fused into its products.

A step of the shipped model is about 500 small operations in PyTorch and 26 here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.kernels.library import Kernels, PackedLinear, attention
from kontext.kernels.structures import Job, Product
from kontext.model.blocks import (
    ContextKVRecorder,
    DoubleStreamBlock,
    KeysValues,
    Modulated,
    QKNorm,
    SelfAttention,
    SingleStreamBlock,
)
from kontext.model.rope import apply_rotary
from kontext.model.transformer import Prepared, StepModulation, Transformer

PackLinear = Callable[[nn.Linear], PackedLinear]


class KernelTransformer:
    """Evaluates a float32 transformer; `parts`: 3 for products as exact as float32, 1 for bfloat16."""

    def __init__(self, transformer: Transformer, kernels: Kernels, parts: int):
        config = transformer.config
        self.width, self.heads, self.hidden = config.width, config.heads, int(config.width * config.mlp_ratio)
        self.kernels, self.parts = kernels, parts
        self.outputs = transformer.final_layer.linear.out_features
        self.region_head = transformer.region_head if config.region_after is not None else None
        self.before_region = config.depth_double + (config.region_after or 0)  # blocks
        self._plan: _Plan | None = None
        self._lock = threading.Lock()

        def packed(layer: nn.Linear) -> PackedLinear:
            return PackedLinear(kernels, layer, parts)

        self.img_in, self.last = packed(transformer.img_in), packed(transformer.final_layer.linear)
        self.double = [_Double.of(block, packed) for block in transformer.double_blocks]
        self.single = [_Single.of(block, packed) for block in transformer.single_blocks]

    def evaluate_with_region(
        self,
        target: Tensor,
        prepared: Prepared,
        mod: StepModulation,
        recorder: ContextKVRecorder | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs of the last layer and the region head's logits; the region head itself runs in PyTorch."""
        with self._lock:
            plan = self._plan
            if plan is None or not plan.serves(target, prepared, mod):
                plan = self._plan = self._planned(target, prepared, mod)
            plan.target.copy_(target)
            plan.x[:, : prepared.text.shape[1]] = prepared.text
            if prepared.context is not None:
                plan.x[:, -prepared.context.shape[1] :] = prepared.context
            plan.modulate(mod)
            region = None
            if self.region_head is None:
                self._run(plan, slice(None), recorder)
            else:
                self._run(plan, slice(self.before_region), recorder)
                rows = plan.x[:, prepared.text.shape[1] :][:, : target.shape[1]]
                region, conditioned = self.region_head(rows)
                rows.copy_(conditioned)
                self._run(plan, slice(self.before_region, None), recorder)
            return plan.out.clone(), region

    def _run(self, plan: _Plan, part: slice, recorder: ContextKVRecorder | None) -> None:
        """Run a part of the blocks, with all jobs in one call unless keys and values are recorded."""
        if recorder is None:
            self.kernels.run([job for jobs in plan.blocks[part] for job in jobs])
            return
        for jobs, block in zip(plan.blocks[part], (*self.double, *self.single, None)[part]):
            self.kernels.run(jobs)
            if block is not None:
                recorder.blocks.append(
                    self._read_kv(plan.buffers, block, plan.prepared.rotary, recorder.start)
                )

    def _planned(self, target: Tensor, prepared: Prepared, mod: StepModulation) -> _Plan:
        start, rotary = prepared.text.shape[1], prepared.rotary
        target_rows = slice(start, start + target.shape[1])
        x = target.new_empty(target.shape[0], rotary.shape[0], self.width)
        outputs = target.new_empty(*target.shape[:2], self.outputs)
        plan = _Plan(prepared, torch.empty_like(target), x, self._allocate(x), outputs, mod)
        begin = [self.img_in.job(plan.target, x[:, target_rows])]
        prefix = prepared.prefix or (None,) * (len(self.double) + len(self.single))
        for double, pair, context_kv in zip(self.double, mod.double, prefix):
            plan.blocks.append(begin + self._double(double, x, plan.buffers, pair, start, rotary, context_kv))
            begin = []
        for single, (modulated,), context_kv in zip(self.single, mod.single, prefix[len(self.double) :]):
            query_rows = target_rows if single is self.single[-1] else slice(0, x.shape[1])
            plan.blocks.append(
                begin + self._single(single, x, plan.buffers, modulated, rotary, context_kv, query_rows)
            )
            begin = []
        plan.blocks.append([*begin, self.last.job(x[:, target_rows], plan.out, modulation=mod.final)])
        plan.find_modulated(mod)
        return plan

    def prefill(self, tokens: Tensor, mod: StepModulation, rotary: Tensor) -> list[KeysValues]:
        """See `Transformer.prefill`."""
        x = tokens.new_empty(*tokens.shape[:2], self.width)
        self.kernels.run([self.img_in.job(tokens, x)])
        buffers, blocks = self._allocate(x), []
        for double, pair in zip(self.double, mod.double):
            self.kernels.run(self._double(double, x, buffers, pair, 0, rotary, None))
            blocks.append(self._read_kv(buffers, double, rotary))
        for single, (modulated,) in zip(self.single, mod.single):
            query_rows = slice(0, 0 if single is self.single[-1] else x.shape[1])
            self.kernels.run(self._single(single, x, buffers, modulated, rotary, None, query_rows))
            blocks.append(self._read_kv(buffers, single, rotary))
        return blocks

    def _allocate(self, x: Tensor) -> _Buffers:
        b, n, w = x.shape
        return _Buffers(
            x.new_empty(b, 3 * self.heads, n, w // self.heads), x.new_empty(b, n, w + self.hidden), w
        )

    def _double(
        self,
        block: _Double,
        x: Tensor,
        buffers: _Buffers,
        mods: tuple[tuple[Modulated, ...], tuple[Modulated, ...]],
        change: int,
        rotary: Tensor,
        context_kv: KeysValues | None,
    ) -> list[Job]:
        """Jobs of a double block: text up to row `change`, then pictures, each with its own weights."""
        streams = [(block.picture, slice(change, None), mods[0])]
        if change:
            streams.append((block.text, slice(0, change), mods[1]))
        jobs: list[Job] = [
            stream.qkv.job(x[:, rows], heads=buffers.qkv[:, :, rows], modulation=mod[0])
            for stream, rows, mod in streams
        ]
        every = slice(0, x.shape[1])
        jobs.append(
            attention(
                buffers.qkv, block.scales, change, rotary, context_kv, buffers.attended, every, self.parts
            )
        )
        for stream, rows, mod in streams:
            jobs.append(stream.proj.job(buffers.attended[:, rows], x[:, rows], gate=mod[0].gate))
            jobs.append(stream.mlp_in.job(x[:, rows], buffers.mlp[:, rows], modulation=mod[1], gelu=True))
            jobs.append(stream.mlp_out.job(buffers.mlp[:, rows], x[:, rows], gate=mod[1].gate))
        return jobs

    def _single(
        self,
        block: _Single,
        x: Tensor,
        buffers: _Buffers,
        mod: Modulated,
        rotary: Tensor,
        context_kv: KeysValues | None,
        query_rows: slice,
    ) -> list[Job]:
        """Jobs of a single block, which update rows `query_rows` of x; of the others only keys and values."""
        jobs: list[Job] = []
        kv_columns = slice(self.width, 3 * self.width)
        for rows in (slice(0, query_rows.start), slice(query_rows.stop, x.shape[1])):
            if rows.start < rows.stop:
                heads = buffers.qkv[:, self.heads :, rows]
                jobs.append(block.linear1.job(x[:, rows], heads=heads, modulation=mod, columns=kv_columns))
        if query_rows.start == query_rows.stop:
            return jobs
        mlp, heads = buffers.mlp[:, query_rows], buffers.qkv[:, :, query_rows]
        return [
            *jobs,
            block.linear1.job(x[:, query_rows], mlp, heads=heads, modulation=mod, gelu=True),
            attention(
                buffers.qkv, block.scales, 0, rotary, context_kv, buffers.attended, query_rows, self.parts
            ),
            block.linear2.job(buffers.both[:, query_rows], x[:, query_rows], gate=mod.gate),
        ]

    def _read_kv(
        self, buffers: _Buffers, block: _Double | _Single, rotary: Tensor, start: int = 0
    ) -> KeysValues:
        """Normalized and rotated keys, and values, of a block's rows from `start` on."""
        keys, values = buffers.qkv[:, self.heads :, start:].unflatten(1, (2, self.heads)).unbind(1)
        keys = F.rms_norm(keys, keys.shape[-1:], eps=1e-6) * block.scales[1][1]
        (turned,) = apply_rotary(keys.transpose(1, 2).unsqueeze(2), rotary[start:]).transpose(1, 3).unbind(2)
        return KeysValues(turned.contiguous(), values.clone(memory_format=torch.contiguous_format))


@dataclass(frozen=True)
class _Buffers:
    """Buffers shared by the blocks of one evaluation."""

    qkv: Tensor
    """(b, 3 heads, n, head_width)."""
    both: Tensor
    """(b, n, width + hidden): output of the attention, then the hidden values of the MLP."""
    width: int

    @property
    def attended(self) -> Tensor:
        return self.both[..., : self.width]

    @property
    def mlp(self) -> Tensor:
        return self.both[..., self.width :]


@dataclass
class _Plan:
    """The jobs of an evaluation, reused while only target and time change."""

    prepared: Prepared
    target: Tensor
    x: Tensor
    buffers: _Buffers
    out: Tensor
    mod: StepModulation
    blocks: list[list[Job]] = field(default_factory=list)
    """Jobs of each block, and last of the velocity."""
    modulated: list[tuple[Product, str, int]] = field(default_factory=list)
    """Jobs and their fields that hold addresses of the modulation's tensors."""

    def serves(self, target: Tensor, prepared: Prepared, mod: StepModulation) -> bool:
        shift, known = mod.final.shift, self.mod.final.shift
        return (
            prepared is self.prepared
            and target.shape == self.target.shape
            and (shift.shape, shift.stride()) == (known.shape, known.stride())
        )

    def find_modulated(self, mod: StepModulation) -> None:
        places = {tensor.data_ptr(): i for i, tensor in enumerate(_tensors(mod))}
        for jobs in self.blocks:
            for job in jobs:
                if isinstance(job, Product):
                    self.modulated += [
                        (job, name, places[getattr(job, name)])
                        for name in ("shift", "factor", "gate")
                        if getattr(job, name)
                    ]

    def modulate(self, mod: StepModulation) -> None:
        """Use the modulation of a time."""
        self.mod = mod  # stays alive while its addresses are used
        tensors = _tensors(mod)
        for job, name, place in self.modulated:
            setattr(job, name, tensors[place].data_ptr())


def _tensors(mod: StepModulation) -> list[Tensor]:
    branches = [part for pair in mod.double for stream in pair for part in stream]
    branches += [part for (part,) in mod.single]
    return [tensor for part in (*branches, mod.final) for tensor in part]


@dataclass(frozen=True)
class _Stream:
    qkv: PackedLinear
    proj: PackedLinear
    mlp_in: PackedLinear
    mlp_out: PackedLinear


@dataclass(frozen=True)
class _Double:
    picture: _Stream
    text: _Stream
    scales: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, block: DoubleStreamBlock, packed: PackLinear) -> _Double:
        def stream(attention: SelfAttention, mlp: nn.Sequential) -> _Stream:
            mlp_in, _, mlp_out = cast(tuple[nn.Linear, nn.Module, nn.Linear], tuple(mlp))
            return _Stream(packed(attention.qkv), packed(attention.proj), packed(mlp_in), packed(mlp_out))

        scales = _scales(block.txt_attn.norm, block.img_attn.norm)
        return cls(stream(block.img_attn, block.img_mlp), stream(block.txt_attn, block.txt_mlp), scales)


@dataclass(frozen=True)
class _Single:
    linear1: PackedLinear
    linear2: PackedLinear
    scales: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, block: SingleStreamBlock, packed: PackLinear) -> _Single:
        return cls(packed(block.linear1), packed(block.linear2), _scales(block.norm, block.norm))


def _scales(text_norm: QKNorm, picture_norm: QKNorm) -> tuple[Tensor, Tensor]:
    return (
        torch.stack((text_norm.query_norm.scale, picture_norm.query_norm.scale)).detach(),
        torch.stack((text_norm.key_norm.scale, picture_norm.key_norm.scale)).detach(),
    )
