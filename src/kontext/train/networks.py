"""The jointly trained networks, with sampling for validation, rollouts and distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kontext import flow
from kontext.errors import BadCheckpoint
from kontext.model.compilation import raise_recompile_limit
from kontext.model.presets import Preset, TransformerConfig
from kontext.model.text import ClipText, T5Encoder
from kontext.model.transformer import Context, Transformer
from kontext.train.letters import LetterHead, recorded_inputs
from kontext.train.pairs import LABELS


class Predicted(NamedTuple):
    """What the networks predict for a batch."""

    velocity: Tensor
    """(b, n, channels)."""
    labels: Tensor
    """Scores (b, LABELS) of the edit's class."""
    region: Tensor | None
    """Logits (b, n); None without a region head."""
    letters: Tensor | None
    """Logits (b, n, columns, classes); None without a region head."""


def take(values: Tensor, active: Tensor) -> Tensor:
    """Values (b, tokens, ...) of the tokens with indices `active` (b, n)."""
    return values[torch.arange(len(active), device=active.device)[:, None], active]


def for_smaller_tokens(weights: Mapping[str, Tensor], config: TransformerConfig) -> Mapping[str, Tensor]:
    """The weights of a network whose tokens each cover 2 x 2 tokens of `config`, as the start of one.

    In tokens (c, 2, 2) the four parts of a channel become one: the input layer adds what it does with each,
    the output layer predicts their mean. Weights of tokens of this size are returned as they are.
    """
    name = "transformer.img_in.weight"
    if name not in weights or weights[name].shape[1] != 4 * config.in_channels:
        return weights
    changed = dict(weights)
    changed[name] = weights[name].unflatten(1, (-1, 4)).sum(2)
    for name in ("transformer.final_layer.linear.weight", "transformer.final_layer.linear.bias"):
        changed[name] = weights[name].unflatten(0, (-1, 4)).mean(1)
    return {name: value for name, value in changed.items() if not name.startswith("letters.")}


class Networks(nn.Module):
    """Transformer and text encoders; `label` and `letters` are used in training only."""

    def __init__(self, preset: Preset):
        super().__init__()
        self.transformer = Transformer(preset.transformer)
        self.transformer.initialize()
        self.t5 = T5Encoder(preset.t5)
        self.clip = ClipText(preset.clip)
        self.label = nn.Linear(preset.clip.width, LABELS)
        self.letters: LetterHead | None = None
        if preset.transformer.region_after is not None:
            self.letters = LetterHead(preset.transformer.width)

    def load(self, weights: Mapping[str, Tensor], complete: bool) -> None:
        """Load weights. Raises BadCheckpoint.

        complete: none may be missing, but for those of `letters`, which earlier runs do not have. Otherwise
        they may be those of the same network with tokens of 2 x 2 of these tokens.
        """
        if not complete:
            weights = for_smaller_tokens(weights, self.transformer.config)
        missing, unexpected = self.load_state_dict(weights, strict=False)
        wrong = [*unexpected, *(name for name in missing if not name.startswith("letters."))]
        if complete and wrong:
            raise BadCheckpoint(f"the state is of another preset: {', '.join(wrong[:3])} do not match")

    def compile_blocks(self) -> None:
        """Compile the transformer's blocks for static shapes.

        Batches have 0, 1 or 2 contexts, with and without gradients, in student and teacher, which exceeds
        torch's default limit of 8 variants.
        """
        raise_recompile_limit()
        for block in (*self.transformer.double_blocks, *self.transformer.single_blocks):
            block.compile(dynamic=False)
            block.context = torch.compile(block.context, dynamic=False)  # type: ignore[method-assign]

    def forward(
        self,
        z: Tensor,
        ids: Tensor,
        t: Tensor,
        target_ids: Tensor,
        contexts: Context = (),
        guidance: Tensor | None = None,
        active: Tensor | None = None,
    ) -> Predicted:
        """What the networks predict for tokens z (b, n, channels) and text ids (b, m).

        A context may hold fewer pictures than the batch has targets; each then serves the same number of
        adjacent targets. `active` (b, n): indices of the tokens that z and target_ids, then (b, n, 3), are
        of; None: all.
        """
        pooled, transformer = self.clip(ids), self.transformer
        states = self.t5(ids)
        source = contexts[0][0].repeat_interleave(len(z) // len(contexts[0][0]), 0) if contexts else None
        if source is not None and active is not None:
            source = take(source, active)
        if transformer.config.context_attention == "prefix":
            prefixes = [transformer.prefill(tokens, context_ids) for tokens, context_ids in contexts]
            prepared = transformer.prepare(states, target_ids, prefixes=prefixes, source=source)
        else:
            contexts = [(tokens.repeat_interleave(len(z) // len(tokens), 0), i) for tokens, i in contexts]
            prepared = transformer.prepare(states, target_ids, contexts, source=source)
        mod = transformer.modulate(transformer.vector(t, pooled, guidance))
        with recorded_inputs(None if self.letters is None else transformer.region_head) as inputs:
            predicted, region = transformer.evaluate_with_region(z, prepared, mod)
        letters = None if self.letters is None else self.letters(inputs[0])
        velocity = transformer.to_velocity(predicted, z, t[:, None, None])
        return Predicted(velocity, self.label(pooled), region, letters)

    @torch.no_grad()
    def expected_region(
        self, preset: Preset, ids: Tensor, noise: Tensor, target_ids: Tensor, contexts: Context
    ) -> Tensor | None:
        """Region logits (b, n) of the first evaluation of `sample`; None without a region head."""
        first = flow.schedule(preset.sampling.steps, noise.shape[1], preset.sampling.shift)[0]
        if not hasattr(self.transformer, "region_head"):
            return None
        strength = noise.new_full((len(noise),), preset.sampling.guidance)
        embedded = strength if preset.transformer.guidance_embed else None
        return self(noise, ids, noise.new_full((len(noise),), first), target_ids, contexts, embedded).region

    @torch.no_grad()
    def sample(
        self, preset: Preset, ids: Tensor, noise: Tensor, target_ids: Tensor, contexts: Context
    ) -> Tensor:
        """Tokens (b, n, channels) at t = 0 with the preset's steps and schedule, from noise of that shape."""
        pooled = self.clip(ids)
        source = contexts[0][0] if contexts else None
        prepared = self.transformer.prepare(self.t5(ids), target_ids, contexts, source=source)
        strength = noise.new_full((len(noise),), preset.sampling.guidance)
        embedded = strength if preset.transformer.guidance_embed else None

        def field(z: Tensor, t: float) -> Tensor:
            times = torch.full((len(z),), t, device=z.device)
            mod = self.transformer.modulate(self.transformer.vector(times, pooled, embedded))
            return self.transformer.to_velocity(self.transformer.evaluate(z, prepared, mod), z, t)

        times = flow.schedule(preset.sampling.steps, noise.shape[1], preset.sampling.shift)
        return flow.euler(field, noise, times)
