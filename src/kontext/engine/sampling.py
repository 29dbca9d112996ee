"""The sampling loop: from noise to latents, all pictures of a batch in one forward.

Everything that does not change between steps is prepared before the loop: text, positions, contexts and the
modulations of every step. The state is float32 for any type of weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kontext.engine.approximations import Approximations, StepCache
from kontext.engine.guidance import Guidance
from kontext.errors import Cancelled
from kontext.flow import SAMPLERS, guided, interpolate
from kontext.flow.solvers import Sampler
from kontext.model.attention_guidance import AttentionGuidance
from kontext.model.transformer import Context, Prefix, Prepared, Transformer

MAX_ACTIVE_SHARE = 0.75  # of the tokens: with more active ones, the new preparation costs what it saves
NEIGHBORS = 1
"""Rings of tokens around a region that are computed with it, though they end at the source.

Without them an edit by nano is worse: 0.33 of the source's error remains instead of 0.28, in words on signs
0.40 instead of 0.31; a small edit takes 5 % longer with them.
"""


REST_WARM_UP = 6
"""In "full" attention, steps at the start of a schedule that compute all tokens, as in RegionE."""
REST_END = 2
"""In "full" attention, steps at the end of a schedule that compute all tokens, as in RegionE."""
REST_REFRESH = 8
"""In "full" attention, evaluations that share the keys and values of tokens outside of the region."""
EXACT = Approximations()


@dataclass(frozen=True)
class Batch:
    """Pictures of equal shape that are sampled together."""

    noise: Tensor
    """(b, n, in_channels) float32."""
    ids: Tensor
    """Positions of the target's tokens, (n, 3)."""
    text: Tensor
    """(b, m, text_width)."""
    pooled: Tensor
    """(b, pooled_width)."""
    prefixes: Sequence[Prefix] = ()
    """"prefix" attention: one for each context picture, of batch 1 or b."""
    context: Sequence[tuple[Tensor, Tensor]] = ()
    """"full" attention: tokens (1 or b, k, in_channels) and positions (k, 3) of each context."""
    negative: tuple[Tensor, Tensor] | None = None
    """Text states and pooled vectors of the negative prompts, (1 or b, ...), as long as `text`."""
    source: Tensor | None = None
    """Tokens of the pictures being edited, (1 or b, n, in_channels) float32. Tokens that are not computed end
    there.
    """


@dataclass(frozen=True)
class Sampled:
    """The result of the sampling loop."""

    tokens: Tensor
    """(b, n, in_channels) float32, at time 0."""
    region: Tensor | None
    """Tokens that the region head expects to change, (b, n) bool; the others are the source's. None if it was
    not evaluated.
    """
    evaluations: int
    """Evaluations of the transformer per picture."""


def seeded_noise(seed: int, height: int, width: int, channels: int = 16) -> Tensor:
    """Latent noise (1, channels, height, width) of one picture, equal on every device and in every batch."""
    generator = torch.Generator("cpu").manual_seed(seed)
    # Type and device are named: the defaults are those of the program around this one.
    return torch.randn(1, channels, height, width, generator=generator, dtype=torch.float32, device="cpu")


def sample(
    transformer: Transformer,
    batch: Batch,
    times: Sequence[float],
    guidance: Guidance,
    select_active: Callable[[Tensor], Tensor | None] | None = None,
    edit_mask: Tensor | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    approximations: Approximations = EXACT,
    region_of: Callable[[Tensor], Tensor] | None = None,
    sampler: str = "euler",
) -> Sampled:
    """Sample a batch along decreasing times that end at 0.

    From noise, or if the times start below 1, from the source with that much noise.

    `region_of(logits)` converts the region head's logits (b, n) of the first evaluation into each picture's
    region, (b, n) bool; all other tokens go straight to the source, and of these only neighbors of the region
    are still computed. For models without a region head, `select_active(estimate)` is called after the first
    step and returns the tokens, (n,) bool, to keep computing (None: all); the others go straight to the
    source. `edit_mask`, (n,) bool, limits the tokens
    that are computed at all (None: all). `on_step(i, estimate)` is called after every step i (from 0). Raises
    Cancelled at the next evaluation after `cancelled()` returns true. `sampler`: one of `flow.SAMPLERS`.
    """
    solver, done = SAMPLERS[sampler], 0
    full = transformer.config.context_attention == "full"
    first = REST_WARM_UP if full else 1  # steps with all tokens
    last = len(times) - 2 - (REST_END if full else 0)  # index of the last step with the active tokens alone
    field = _Field(transformer, batch, times, guidance, approximations, edit_mask, region_of, solver)

    def velocity(z: Tensor, t: float) -> Tensor:
        if cancelled():
            raise Cancelled(f"stopped at step {done + 1} of {len(times) - 1}; nothing was written")
        return field(z, t)

    def after_step(i: int, _: Tensor, estimate: Tensor) -> None:
        nonlocal done
        done = i + 1
        if i == 0 and field.region is not None:
            field.restrict(_with_neighbors(field.region.any(0), batch.ids))
        elif i == first - 1 and select_active is not None and i < last:
            active = select_active(estimate)
            if active is not None:
                field.restrict(active)
        elif i == last and field.full and field.active is not None:
            field.work_on(None)
        if on_step is not None:
            on_step(i, estimate)

    tokens = solver.solve(velocity, _start(batch, times), times, after_step)
    return Sampled(tokens, field.region, field.evaluations)


def locate(
    transformer: Transformer,
    batch: Batch,
    times: Sequence[float],
    region_of: Callable[[Tensor], Tensor],
    edit_mask: Tensor | None = None,
) -> Tensor | None:
    """The region (b, n) bool of each picture by the region head, as `sample` would find it.

    One evaluation; None for models without a region head.
    """
    if transformer.config.region_after is None:
        return None
    field = _Field(transformer, batch, times[:2], Guidance(), EXACT, edit_mask, region_of)
    field(_start(batch, times), times[0])
    return field.region


def _with_neighbors(active: Tensor, ids: Tensor) -> Tensor:
    """The active tokens, (n,) bool, and those at most `NEIGHBORS` away from one; positions are (n, 3)."""
    places = ids[:, 1:]
    apart = (places[:, None] - places[active][None]).abs().amax(-1)  # (n, active)
    return (apart <= NEIGHBORS).any(1)


def _start(batch: Batch, times: Sequence[float]) -> Tensor:
    """The noise, or, for times that begin below 1, the source with that much of it."""
    start = batch.noise
    if times[0] < 1 and batch.source is not None:
        start = interpolate(batch.source, start, start.new_full((len(start),), times[0]))
    return start


class _Field:
    """The velocity of a batch at the times of a schedule, over all tokens or the active ones.

    In "full" attention the other tokens stay visible: their keys and values join those of the contexts, and
    all of these are kept for `REST_REFRESH` evaluations.
    """

    def __init__(
        self,
        transformer: Transformer,
        batch: Batch,
        times: Sequence[float],
        guidance: Guidance,
        approximations: Approximations = EXACT,
        edit_mask: Tensor | None = None,
        region_of: Callable[[Tensor], Tensor] | None = None,
        sampler: Sampler = SAMPLERS["euler"],
    ):
        self.full = transformer.config.context_attention == "full"
        self.region_of = region_of if transformer.config.region_after is not None else None
        self.region: Tensor | None = None
        self.batch, self.evaluations = batch, 0
        steps = [sampler.step_times(*ends) for ends in zip(times, times[1:])]
        guided = [] if batch.negative is None else [t for step in guidance.steps(steps) for t in step]
        plain = [t for step in steps for t in step if t not in guided]
        self.step_cache: StepCache | None = None
        if approximations.step_cache:
            self.step_cache = StepCache(approximations.step_cache, len(guided) + len(plain))
        self.evaluators: dict[float, _Evaluator] = {}
        for some, negative in ((guided, True), (plain, False)):
            if some:
                evaluator = _Evaluator(
                    transformer, batch, some, guidance, negative, approximations.context_refresh
                )
                self.evaluators |= dict.fromkeys(some, evaluator)
        self.work_on(None if self.full else edit_mask)

    def work_on(self, active: Tensor | None) -> None:
        """Compute only these tokens, (n,) bool, in the following steps; None: all."""
        self.active = active
        self.tokens = self.batch.noise.shape[1] if active is None else int(active.sum())
        ids, source, rest_ids = self.batch.ids, self.batch.source, None
        if active is not None:
            rest_ids = ids[~active] if self.full else None
            ids, source = ids[active], None if source is None else source[:, active]
        for evaluator in set(self.evaluators.values()):
            evaluator.prepare(ids, source, rest_ids, partial=active is not None)
        if self.step_cache is not None:
            self.step_cache.reset()

    def restrict(self, active: Tensor) -> None:
        """Compute only these tokens, (n,) bool, in the following steps, if that saves time."""
        if active.sum() <= MAX_ACTIVE_SHARE * self.tokens:
            self.work_on(active)

    def __call__(self, z: Tensor, t: float) -> Tensor:
        if self.active is None:
            v = self._evaluate(z, t)
        else:
            v = self._toward_source(z, t)
            if self.tokens:
                rest = z[:, ~self.active] if self.full else None
                v[:, self.active] = self._evaluate(z[:, self.active], t, rest)
        if self.region is not None:
            v = torch.where(self.region[..., None], v, self._toward_source(z, t))
        return v

    def _toward_source(self, z: Tensor, t: float) -> Tensor:
        """The velocity of tokens that are not computed, which leads to the source."""
        assert self.batch.source is not None
        return (z - self.batch.source) / t

    def _evaluate(self, z: Tensor, t: float, rest: Tensor | None = None) -> Tensor:
        if self.step_cache is not None:
            return self.step_cache(z, t, lambda z: self._compute(z, t, rest))
        return self._compute(z, t, rest)

    def _compute(self, z: Tensor, t: float, rest: Tensor | None) -> Tensor:
        evaluator = self.evaluators[t]
        ask_region = self.region_of is not None and self.region is None
        v, logits = evaluator(z, t, ask_region, rest)
        self.evaluations += evaluator.copies
        if logits is not None and self.region_of is not None:
            self.region = self._region(logits, self.region_of)
        return v

    def _region(self, logits: Tensor, region_of: Callable[[Tensor], Tensor]) -> Tensor:
        """The region (b, n) bool of logits over the tokens that are computed."""
        if self.active is None:
            return region_of(logits)
        everywhere = logits.new_full((len(logits), len(self.active)), -math.inf)
        everywhere[:, self.active] = logits
        return region_of(everywhere)


class _Evaluator:
    """Evaluates prompts, alone or in one batch with their negative prompts."""

    def __init__(
        self,
        transformer: Transformer,
        batch: Batch,
        times: Sequence[float],
        guidance: Guidance,
        negative: bool,
        refresh: int,
    ):
        full = transformer.config.context_attention == "full"
        self.refresh = refresh if full and batch.context else 1
        self.transformer, self.guidance = transformer, guidance
        self.text, pooled, self.copies = batch.text, batch.pooled, 1
        self.attention: AttentionGuidance | None = None
        if negative and batch.negative is not None:
            self.copies = 2
            text, negative_pooled = batch.negative
            self.text = torch.cat((self.text, text.expand_as(self.text)))
            if guidance.attention > 1:  # the picture's stream is one, of the prompt
                self.attention = AttentionGuidance(guidance.attention)
                negative_pooled = pooled
            pooled = torch.cat((pooled, negative_pooled.expand_as(pooled)))
        embeds = transformer.config.guidance_embed
        embedded = pooled.new_full((pooled.shape[0],), guidance.scale) if embeds else None
        self.prefixes = [_repeat_prefix(prefix, self.copies) for prefix in batch.prefixes]
        self.context = [(_repeat(tokens, self.copies), ids) for tokens, ids in batch.context]
        self.modulation = dict(zip(times, transformer.modulations(times, pooled, embedded)))

    def prepare(
        self, ids: Tensor, source: Tensor | None, rest_ids: Tensor | None = None, partial: bool = False
    ) -> None:
        """Compute the target's tokens at these positions, (n, 3), from now on.

        source: the source's tokens there. rest_ids: positions of the target's other tokens, (m, 3), if they
        stay visible. partial: there are others.
        """
        self.ids, self.rest_ids, self.partial = ids, rest_ids, partial
        self.source = None if source is None else _repeat(source, self.copies)
        if rest_ids is None:
            self.prepared = self.cached = self._prepared(self.context)
        self.evaluations = 0
        self.kept_for = self.refresh if rest_ids is None else max(self.refresh, REST_REFRESH)

    def _prepared(self, context: Context) -> Prepared:
        return self.transformer.prepare(
            self.text, self.ids, context, self.prefixes, self.attention, self.source, self.partial
        )

    def __call__(
        self, z: Tensor, t: float, ask_region: bool, rest: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The velocity at z (b, n, in_channels) and, with `ask_region`, the region head's logits (b, n).

        rest: the state of the target's other tokens, (b, m, in_channels), if they stay visible.
        """
        target, logits = z.to(self.text.dtype).repeat(self.copies, 1, 1), None
        if self.kept_for > 1 and self.evaluations % self.kept_for == 0:
            if rest is not None and self.rest_ids is not None:
                others = rest.to(self.text.dtype).repeat(self.copies, 1, 1)
                contexts = [(tokens.expand(len(others), -1, -1), ids) for tokens, ids in self.context]
                self.prepared = self._prepared([(others, self.rest_ids), *contexts])
            v, self.cached = self.transformer.evaluate_and_cache_context(
                target, self.prepared, self.modulation[t]
            )
        elif ask_region:
            v, logits = self.transformer.evaluate_with_region(target, self.cached, self.modulation[t])
        else:
            v = self.transformer.evaluate(target, self.cached, self.modulation[t])
        self.evaluations += 1
        v = self.transformer.to_velocity(v.float(), z.repeat(self.copies, 1, 1), t)
        if self.copies == 2:
            prompt, negative = v.chunk(2)
            v = prompt if self.attention else guided(prompt, negative, self.guidance.true)
        return v, None if logits is None else logits[: len(z)]


def _repeat(tokens: Tensor, copies: int) -> Tensor:
    return tokens if tokens.shape[0] == 1 else tokens.repeat(copies, 1, 1)


def _repeat_prefix(prefix: Prefix, copies: int) -> Prefix:
    if copies == 1 or prefix.blocks[0].keys.shape[0] == 1:
        return prefix
    return Prefix(tuple(type(kv)(*(part.repeat(copies, 1, 1, 1) for part in kv)) for kv in prefix.blocks))
