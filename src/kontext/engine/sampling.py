"""The sampling loop: from noise to the latents of the pictures asked for, all pictures of a batch in one
forward.

All that does not change from step to step is prepared before the loop: text, positions, contexts and the
modulations of every step. The state is float32 whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kontext.errors import Cancelled
from kontext.flow import euler, guided
from kontext.model.transformer import Prefix, Transformer


@dataclass(frozen=True)
class Batch:
    """Pictures of equal shape that are sampled together."""

    noise: Tensor
    """(b, n, 64) float32."""
    ids: Tensor
    """Positions of the target's tokens, (n, 3)."""
    text: Tensor
    """(b, m, text_width)."""
    pooled: Tensor
    """(b, pooled_width)."""
    prefixes: Sequence[Prefix] = ()
    """"prefix" attention: one for each context picture, of batch 1 or b."""
    context: Sequence[tuple[Tensor, Tensor]] = ()
    """"full" attention: tokens (1 or b, k, 64) and positions (k, 3) of each context picture."""
    without_prompt: tuple[Tensor, Tensor] | None = None
    """Text states and pooled vector of the empty prompt, (1, ...): with them every step is guided."""
    source: Tensor | None = None
    """Tokens of the pictures being edited, (b, n, 64) float32."""
    fixed: Tensor | None = None
    """(b, n) bool: tokens that must end as `source`."""


def seeded_noise(seed: int, height: int, width: int, channels: int = 16) -> Tensor:
    """Latent noise (1, channels, height, width) of one picture; the same on every device and in every
    batch.
    """
    return torch.randn(1, channels, height, width, generator=torch.Generator("cpu").manual_seed(seed))


def sample(
    transformer: Transformer,
    batch: Batch,
    times: Sequence[float],
    guidance: float,
    on_step: Callable[[int, Tensor], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Tokens (b, n, 64) float32 at time 0. `on_step(i, estimate)` hears of every step i (from 0).

    Raises Cancelled at the next evaluation after `cancelled` says so.
    """
    count = batch.noise.shape[0]
    text, pooled, copies = batch.text, batch.pooled, 1
    if batch.without_prompt is not None:  # both evaluations of guidance run as one batch
        copies = 2
        text = torch.cat((text, batch.without_prompt[0].expand_as(text)))
        pooled = torch.cat((pooled, batch.without_prompt[1].expand_as(pooled)))
    embedded = pooled.new_full((pooled.shape[0],), guidance) if transformer.config.guidance_embed else None

    prefixes = [_repeat_prefix(prefix, copies) for prefix in batch.prefixes]
    context = [(_repeat(tokens, copies), ids) for tokens, ids in batch.context]
    prepared = transformer.prepare(text, batch.ids, context, prefixes)
    modulation = dict(zip(times, transformer.modulations(times[:-1], pooled, embedded)))

    def velocity(z: Tensor, t: float) -> Tensor:
        if cancelled():
            raise Cancelled(f"stopped at step {times.index(t) + 1} of {len(times) - 1}; nothing was written")
        v = transformer.evaluate(z.to(text.dtype).repeat(copies, 1, 1), prepared, modulation[t]).float()
        if copies == 2:
            v = guided(v[:count], v[count:], guidance)
        if batch.fixed is not None:  # straight to the source
            v = torch.where(batch.fixed[..., None], (z - batch.source) / t, v)
        return v

    return euler(velocity, batch.noise, times, on_step and (lambda i, _, estimate: on_step(i, estimate)))


def _repeat(tokens: Tensor, copies: int) -> Tensor:
    return tokens if tokens.shape[0] == 1 else tokens.repeat(copies, 1, 1)


def _repeat_prefix(prefix: Prefix, copies: int) -> Prefix:
    if copies == 1 or prefix.blocks[0].keys.shape[0] == 1:
        return prefix
    return Prefix(tuple(type(kv)(*(part.repeat(copies, 1, 1, 1) for part in kv)) for kv in prefix.blocks))
