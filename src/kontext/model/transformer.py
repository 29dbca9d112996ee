"""The rectified-flow transformer of FLUX.1 Kontext: predicts the velocity of the target's tokens.

The sequence is [text | target | context pictures]; positions are (picture index, row, column), the target has
index 0 and text (0, 0, 0). With `context_attention = "prefix"` a context picture attends only to itself,
modulated at t = 0 without prompt and guidance; its keys and values (`prefill`) serve every step, seed and
prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Protocol, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.model.attention_guidance import AttentionGuidance
from kontext.model.blocks import (
    ContextKVRecorder,
    DoubleStreamBlock,
    KeysValues,
    LastLayer,
    MLPEmbedder,
    Modulated,
    Modulation,
    OutputMLP,
    SingleStreamBlock,
    sinusoidal_embedding,
)
from kontext.model.compilation import EAGER, BlockCalls, can_be_compiled
from kontext.model.module_list import ModuleList
from kontext.model.presets import TransformerConfig
from kontext.model.rope import rotary_table
from kontext.model.streaming import WeightStream

MIN_TIME = 0.1
"""Smallest time used to compute a velocity from a predicted picture."""

Context = Sequence[tuple[Tensor, Tensor]]
"""Context pictures: tokens (batch, n, in_channels) and their positions (n, 3)."""


@dataclass(frozen=True)
class Prefix:
    """Keys and values of every block of a context picture, for the queries of text and target."""

    blocks: tuple[KeysValues, ...]

    @property
    def tokens(self) -> int:
        return self.blocks[0].keys.shape[2]

    @property
    def bytes(self) -> int:
        return sum(part.nelement() * part.element_size() for block in self.blocks for part in block)


@dataclass(frozen=True)
class StepModulation:
    """Shifts, scales and gates of all blocks at one time."""

    double: tuple[tuple[tuple[Modulated, ...], tuple[Modulated, ...]], ...]
    """Per double block: picture stream, text stream."""
    single: tuple[tuple[Modulated, ...], ...]
    final: Modulated


@dataclass(frozen=True)
class Prepared:
    """The inputs of an evaluation that are the same in every step."""

    text: Tensor
    """Projected text, (batch, m, width)."""
    context: Tensor | None
    """"full": embedded context tokens, (batch, n, width)."""
    prefix: tuple[KeysValues, ...] | None
    """"prefix": keys and values of all context pictures, per block. Of fewer pictures than the batch has
    targets, each serves the same number of adjacent targets.
    """
    rotary: Tensor
    """Table over [text | target | context] in "full", [text | target] in "prefix", where targets may have
    positions of their own.
    """
    source: Tensor | None = None
    """Tokens of the picture being edited at the target's positions, (1 or batch, n, in_channels), for models
    with output gates or an output MLP; None: nothing is edited.
    """
    partial: bool = False
    """Only some of the target's tokens are computed: a number for which no block is compiled."""
    guidance: AttentionGuidance | None = None
    """The second half of the batch are negative prompts, which guide every attention of the first."""


class TransformerBackend(Protocol):
    """Another implementation of a transformer with the same weights."""

    def evaluate_with_region(
        self,
        target: Tensor,
        prepared: Prepared,
        mod: StepModulation,
        recorder: ContextKVRecorder | None = None,
    ) -> tuple[Tensor, Tensor | None]: ...

    def prefill(self, tokens: Tensor, mod: StepModulation, rotary: Tensor) -> list[KeysValues]: ...


class RegionHead(nn.Module):
    """Predicts which tokens of the target will change, and conditions the remaining blocks on that.

    One logit per token, learned from exact masks; its sigmoid is projected back into the stream.
    """

    def __init__(self, width: int):
        super().__init__()
        self.logit = nn.Linear(width, 1)
        self.back = nn.Linear(1, width, bias=False)

    def forward(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, n) of the target (b, n, width), and the target conditioned on them."""
        logits = self.logit(F.layer_norm(target, target.shape[-1:], eps=1e-6))
        return logits[..., 0], target + self.back(logits.sigmoid())


class Transformer(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        # Computes with the same weights, faster on this processor (`kontext.kernels`).
        self.backend: TransformerBackend | None = None
        self.calls: BlockCalls = EAGER
        self.stream: WeightStream | None = None
        self.rotary_settings = config.axes, config.theta, config.position_step
        width = config.width
        self.img_in = nn.Linear(config.in_channels, width)
        self.txt_in = nn.Linear(config.text_width, width)
        self.time_in = MLPEmbedder(256, width)
        self.vector_in = MLPEmbedder(config.pooled_width, width)
        if config.guidance_embed:
            self.guidance_in = MLPEmbedder(256, width)
        self.double_blocks: ModuleList[DoubleStreamBlock] = ModuleList(
            DoubleStreamBlock(width, config.heads, config.mlp_ratio, config.qkv_bias)
            for _ in range(config.depth_double)
        )
        self.single_blocks: ModuleList[SingleStreamBlock] = ModuleList(
            SingleStreamBlock(width, config.heads, config.mlp_ratio) for _ in range(config.depth_single)
        )
        if config.region_after is not None:
            self.region_head = RegionHead(width)
        outputs = (3 if config.output_gates else 1) * config.in_channels
        if config.output_mlp:
            self.output_mlp = OutputMLP(config.in_channels, config.output_mlp)
        self.final_layer = LastLayer(width, outputs + 2 * config.output_mlp)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "backend": None, "calls": EAGER}  # they hold this instance's weights

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the weights, as `to` does. A backend that holds the old ones is dropped."""
        if self.backend is None:
            return super()._apply(fn, recurse)
        place = self.final_layer.linear.weight.data_ptr()
        module = super()._apply(fn, recurse)
        if self.final_layer.linear.weight.data_ptr() != place:
            self.backend = None
        return module

    def forward(
        self,
        target: Tensor,
        text: Tensor,
        pooled: Tensor,
        timesteps: Tensor,
        guidance: Tensor | None,
        target_ids: Tensor,
        context: Context = (),
    ) -> Tensor:
        """Velocity of the target.

        target (b, n, in_channels); text (b, m, text_width); pooled (b, pooled_width); timesteps (b,) in [0,
        1]; guidance (b,) where the model embeds it, else None; target_ids (n, 3). Returns (b, n,
        in_channels).
        """
        source = context[0][0] if context else None
        prepared = self.prepare(text, target_ids, context, source=source)
        predicted = self.evaluate(target, prepared, self.modulate(self.vector(timesteps, pooled, guidance)))
        return self.to_velocity(predicted, target, timesteps[:, None, None])

    def to_velocity(self, predicted: Tensor, z: Tensor, t: Tensor | float) -> Tensor:
        """Velocity at state z and time t from the output of `evaluate`: itself, or (z - picture) / t."""
        if self.config.prediction == "velocity":
            return predicted
        return (z - predicted) / (t.clamp_min(MIN_TIME) if isinstance(t, Tensor) else max(t, MIN_TIME))

    def evaluate(
        self,
        target: Tensor,
        prepared: Prepared,
        mod: StepModulation,
        recorder: ContextKVRecorder | None = None,
    ) -> Tensor:
        """One evaluation from prepared inputs: all the work inside the sampling loop."""
        return self.evaluate_with_region(target, prepared, mod, recorder)[0]

    def evaluate_with_region(
        self,
        target: Tensor,
        prepared: Prepared,
        mod: StepModulation,
        recorder: ContextKVRecorder | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`evaluate`, and the region head's logits (b, n), None for models without one."""
        if self.backend is not None and prepared.guidance is None:
            outputs, region = self.backend.evaluate_with_region(target, prepared, mod, recorder)
        else:
            outputs, region = self._outputs(target, prepared, mod, recorder)
        return self._gated(outputs, target, prepared.source), region

    def _gated(self, outputs: Tensor, target: Tensor, source: Tensor | None) -> Tensor:
        """The prediction (b, n, in_channels) from the outputs of the last layer.

        With output gates these are (b, n, 3 * in_channels): a prediction, and gates of target and source;
        with an output MLP, 2 * output_mlp channels that steer it follow.
        """
        config, added = self.config, None
        if config.output_mlp:
            outputs, steering = outputs.tensor_split((outputs.shape[-1] - 2 * config.output_mlp,), dim=-1)
            added = self.output_mlp(steering, target, source)
        if config.output_gates:
            predicted, of_target, of_source = outputs.chunk(3, dim=-1)
            outputs = predicted + of_target * target
            if source is not None:
                outputs = outputs + of_source * source.to(predicted.dtype)
        return outputs if added is None else outputs + added

    def _outputs(
        self,
        target: Tensor,
        prepared: Prepared,
        mod: StepModulation,
        recorder: ContextKVRecorder | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs of the last layer for the target's tokens, and the region head's logits."""
        picture, text = self.img_in(target), prepared.text
        if prepared.context is not None:
            picture = torch.cat((picture, prepared.context), dim=1)
        prefix = prepared.prefix or (None,) * (len(self.double_blocks) + len(self.single_blocks))
        prefix_double, prefix_single = prefix[: len(self.double_blocks)], prefix[len(self.double_blocks) :]

        calls = EAGER if prepared.partial else self.calls
        doubles, singles = self._in_turn(_without_modulation)
        for (picture_mod, text_mod), context_kv, block in zip(mod.double, prefix_double, doubles):
            inputs = (picture, text, picture_mod, text_mod, prepared.rotary, context_kv)
            picture, text = calls.double(block, *inputs, recorder, prepared.guidance)
        joined = torch.cat((text, picture), dim=1)
        target_rows = slice(text.shape[1], text.shape[1] + target.shape[1])
        region = None
        for i, (block_mod, context_kv, single) in enumerate(zip(mod.single, prefix_single, singles)):
            if i == self.config.region_after:
                region, conditioned = self.region_head(joined[:, target_rows])
                joined = torch.cat(
                    (joined[:, : target_rows.start], conditioned, joined[:, target_rows.stop :]), dim=1
                )
            query_rows = target_rows if single is self.single_blocks[-1] else None
            text_rows = text.shape[1] if query_rows is None else 0
            guide = None if prepared.guidance is None else partial(prepared.guidance, text_rows=text_rows)
            rotary = prepared.rotary
            joined = calls.single(single, joined, block_mod, rotary, context_kv, query_rows, recorder, guide)
        return self.final_layer(joined, mod.final), region

    def evaluate_and_cache_context(
        self, target: Tensor, prepared: Prepared, mod: StepModulation
    ) -> tuple[Tensor, Prepared]:
        """One evaluation in "full" attention, and inputs that reuse its context.

        Exact only for the same prompt and time; an approximation for the next steps.
        """
        start = prepared.text.shape[1] + target.shape[1]
        recorder = ContextKVRecorder(start)
        velocity = self.evaluate(target, prepared, mod, recorder)
        cached = replace(
            prepared, context=None, prefix=tuple(recorder.blocks), rotary=prepared.rotary[:start]
        )
        return velocity, cached

    def prepare(
        self,
        text: Tensor,
        target_ids: Tensor,
        context: Context = (),
        prefixes: Sequence[Prefix] = (),
        guidance: AttentionGuidance | None = None,
        source: Tensor | None = None,
        partial: bool = False,
    ) -> Prepared:
        """Inputs shared by all steps: projected text, rotary table, embedded or prefilled context.

        target_ids: positions (n, 3), in "prefix" attention also (batch, n, 3).

        In "prefix" attention, `prefixes` are prefilled pictures; `context` is prefilled here. With
        `guidance`, the second half of the batch are the negative prompts of the first. `source`: tokens of
        the picture being edited at `target_ids`, which models with output gates or an output MLP use.
        `partial`: these are only some of the target's tokens.
        """
        ids = [target_ids.new_zeros(*target_ids.shape[:-2], text.shape[1], 3), target_ids]
        if self.config.context_attention == "prefix":
            prefixes = [*prefixes, *(self.prefill(tokens, ids_) for tokens, ids_ in context)]
            embedded = None
        else:
            if prefixes:
                raise ValueError('prefixes need context_attention = "prefix"')
            ids += [ids_ for _, ids_ in context]
            embedded = self.img_in(torch.cat([tokens for tokens, _ in context], dim=1)) if context else None
            if embedded is not None and embedded.shape[0] != text.shape[0]:
                embedded = embedded.expand(text.shape[0], -1, -1)
        return Prepared(
            text=self.txt_in(text),
            context=embedded,
            prefix=_join(prefixes),
            rotary=rotary_table(torch.cat(ids, dim=-2), *self.rotary_settings),
            guidance=guidance,
            source=source,
            partial=partial,
        )

    def prefill(self, tokens: Tensor, ids: Tensor) -> Prefix:
        """Keys and values of one context picture: tokens (b, n, in_channels), ids (n, 3)."""
        mod = self.modulate(self.time_in(sinusoidal_embedding(tokens.new_zeros(1)).to(tokens.dtype)))
        rotary = rotary_table(ids, *self.rotary_settings)
        if self.backend is not None:
            return Prefix(tuple(self.backend.prefill(tokens, mod, rotary)))
        x, blocks, calls = self.img_in(tokens), [], self.calls
        doubles, singles = self._in_turn(_without_modulation)
        for (picture_mod, _), block in zip(mod.double, doubles):
            x, context_kv = calls.double_context(block, x, picture_mod, rotary)
            blocks.append(context_kv)
        for block_mod, single in zip(mod.single, singles):
            x, context_kv = calls.single_context(
                single, x, block_mod, rotary, last=single is self.single_blocks[-1]
            )
            blocks.append(context_kv)
        # Views would keep larger tensors alive in the cache.
        return Prefix(tuple(KeysValues(*(part.contiguous() for part in block)) for block in blocks))

    def vector(self, timesteps: Tensor, pooled: Tensor, guidance: Tensor | None = None) -> Tensor:
        """The conditioning vector (b, width) of times, pooled text and, if embedded, guidance."""
        vector = self.time_in(sinusoidal_embedding(timesteps).to(pooled.dtype)) + self.vector_in(pooled)
        if self.config.guidance_embed:
            if guidance is None:
                raise ValueError("this model embeds guidance: give one value per picture")
            vector = vector + self.guidance_in(sinusoidal_embedding(guidance).to(pooled.dtype))
        return vector

    def modulate(self, vector: Tensor) -> StepModulation:
        """Shifts, scales and gates of every block from the conditioning vector (b, width)."""
        activated = F.silu(vector)
        doubles, singles = self._in_turn(_modulation)
        double = tuple((block.img_mod(activated), block.txt_mod(activated)) for block in doubles)
        single = tuple(block.modulation(activated) for block in singles)
        return StepModulation(double, single, self.final_layer.modulation(activated))

    def modulations(
        self, timesteps: Sequence[float], pooled: Tensor, guidance: Tensor | None = None
    ) -> list[StepModulation]:
        """Modulations of all steps, with one product per block: timesteps (s), pooled (b, pooled_width)."""
        steps, batch = len(timesteps), pooled.shape[0]
        times = torch.tensor(timesteps, dtype=torch.float32, device=pooled.device).repeat_interleave(batch)
        every = self.modulate(
            self.vector(times, pooled.repeat(steps, 1), None if guidance is None else guidance.repeat(steps))
        )
        return [_rows(every, slice(i * batch, (i + 1) * batch)) for i in range(steps)]

    def _in_turn(
        self, used: Callable[[nn.Module], Iterable[nn.Module]]
    ) -> tuple[Iterator[DoubleStreamBlock], Iterator[SingleStreamBlock]]:
        """Double and single blocks with the weights of their `used` modules loaded.

        The single blocks must be taken after all double ones: both come from one stream.
        """
        if self.stream is None:
            return iter(self.double_blocks), iter(self.single_blocks)
        blocks = self.stream.in_turn([*self.double_blocks, *self.single_blocks], used)
        doubles = islice(blocks, len(self.double_blocks))
        return cast(Iterator[DoubleStreamBlock], doubles), cast(Iterator[SingleStreamBlock], blocks)

    def compile_blocks(self) -> None:
        """Run the blocks by torch.compile from now on, where their weights stay on the device.

        They take the place of a backend.
        """
        self.backend = None
        self.calls = BlockCalls(filter(can_be_compiled, (*self.double_blocks, *self.single_blocks)))

    def initialize(self) -> None:
        """Initial weights for training: every block is the identity (adaLN-zero), the velocity zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for embedder in (self.time_in, self.vector_in):
            nn.init.normal_(embedder.in_layer.weight, std=0.02)
            nn.init.normal_(embedder.out_layer.weight, std=0.02)
        silent: list[nn.Module] = [block.modulation.lin for block in self.single_blocks]
        for block in self.double_blocks:
            silent += [block.img_mod.lin, block.txt_mod.lin]
        silent += [self.final_layer.adaLN_modulation, self.final_layer.linear]
        if self.config.output_mlp:
            silent.append(self.output_mlp.out)
        if self.config.region_after is not None:
            silent += [self.region_head.logit, self.region_head.back]
        for module in silent:
            for parameter in module.parameters():
                nn.init.zeros_(parameter)


def _modulation(block: nn.Module) -> Iterable[nn.Module]:
    return (child for child in block.children() if isinstance(child, Modulation))


def _without_modulation(block: nn.Module) -> Iterable[nn.Module]:
    return (child for child in block.children() if not isinstance(child, Modulation))


def _join(prefixes: Sequence[Prefix]) -> tuple[KeysValues, ...] | None:
    if not prefixes:
        return None
    if len(prefixes) == 1:
        return prefixes[0].blocks
    return tuple(
        KeysValues(torch.cat([kv.keys for kv in same], dim=2), torch.cat([kv.values for kv in same], dim=2))
        for same in zip(*(prefix.blocks for prefix in prefixes))
    )


def _rows(mod: StepModulation, rows: slice) -> StepModulation:
    def cut(part: Modulated) -> Modulated:
        return Modulated(*(value[rows] if value.ndim else value for value in part))

    return StepModulation(
        double=tuple((tuple(map(cut, a)), tuple(map(cut, b))) for a, b in mod.double),
        single=tuple(tuple(map(cut, a)) for a in mod.single),
        final=cut(mod.final),
    )
