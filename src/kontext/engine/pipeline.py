"""From planned jobs to results: contexts, prompts, sampling, decoding, in this order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageChops
from torch import Tensor

from kontext.engine.context import ContextStore, decode, device_of, stack
from kontext.engine.device import computing, finite
from kontext.engine.finish import finish, result_of
from kontext.engine.plan import Job
from kontext.engine.previews import fit_projection, over_source, paint
from kontext.engine.prompts import PromptStore
from kontext.engine.regions import dilate_if_sparse, expected_region, select_active_tokens, token_mask
from kontext.engine.requests import Cancel, OnStep, Result, StepInfo
from kontext.engine.sampling import Batch, locate, sample, seeded_noise
from kontext.errors import BadRequest
from kontext.model.tokens import pack, picture_ids, unpack

if TYPE_CHECKING:
    from kontext.checkpoint import Model


class Pipeline:
    """Runs jobs of equal shape with one model. Contexts and prompts are cached.

    refresh: steps between two evaluations of the contexts in "full" attention; 1 is exact.
    """

    def __init__(self, model: Model, context_bytes: int, refresh: int) -> None:
        self.model, self.refresh = model, refresh
        self.contexts = ContextStore(model, context_bytes)
        self.prompts = PromptStore(model)
        self._projection: Tensor | None = None

    def run(
        self, jobs: Sequence[Job], on_step: OnStep | None, cancel: Cancel | None, load_seconds: float = 0.0
    ) -> list[Result]:
        """The results of jobs of equal shape; `load_seconds` is reported with them."""
        first, clock = jobs[0], _Clock()
        rows, columns = self._grid(first)
        batch = self._batch(jobs, clock)
        select_active, edit_mask = self._active_selection(jobs, batch.source)

        def report_step(step: int, estimate: Tensor) -> None:
            def preview(i: int = 0) -> Image.Image:
                return self._preview(unpack(estimate[i : i + 1], 2 * rows, 2 * columns)[0], jobs[i])

            assert on_step is not None
            on_step(StepInfo(step + 1, len(first.times) - 1, preview, range(len(jobs))))

        sampled = sample(
            self.model.transformer,
            batch,
            first.times,
            first.guidance,
            select_active,
            edit_mask,
            report_step if on_step is not None else None,
            cancel.is_set if cancel is not None else lambda: False,
            self.refresh,
            expected_region if _keeps_source(jobs) and first.request.expand is None else None,
            first.sampler,
        )
        tokens, expected = sampled.tokens, sampled.region
        finite(tokens, f"transformer of {self.model.name}")
        clock.lap("sample")

        latents, window = unpack(tokens, 2 * rows, 2 * columns), None
        if select_active is None and expected is None:
            decoded = decode(self.model, latents)
        else:
            decoded, window = self.contexts.paint(latents, [job.source for job in jobs if job.source])
        regions = [None] * len(jobs) if expected is None else list(expected)
        finished = [
            finish(job, self.contexts, pixels, window, region)
            for job, pixels, region in zip(jobs, decoded, regions)
        ]
        clock.lap("decode")

        seconds = {"load": load_seconds, **clock.seconds, "total": load_seconds + clock.total}
        return [
            result_of(job, self.contexts, picture, region, sampled.evaluations, seconds)
            for job, (picture, region) in zip(jobs, finished)
        ]

    def locate(self, job: Job) -> Image.Image | None:
        """Predict where a job would act, with one evaluation: a mask (mode L) at output size.

        None for models without a region head. Raises BadRequest for a job without a picture.
        """
        if job.source is None:
            raise BadRequest("give the picture in which to locate the edit")
        batch = self._batch([job], _Clock())
        _, edit_mask = self._active_selection([job], batch.source)
        region = locate(self.model.transformer, batch, job.times, expected_region, edit_mask)
        if region is None:
            return None
        tokens = Image.fromarray(region[0].reshape(self._grid(job)).cpu().numpy().astype(np.uint8) * 255)
        on_canvas = tokens.resize(job.plan.canvas, Image.Resampling.NEAREST)
        found = job.plan.restore(on_canvas, Image.Resampling.NEAREST)
        if job.edit_mask is None:
            return found
        return ImageChops.multiply(found, job.plan.original(job.edit_mask))

    @property
    def has_prefix(self) -> bool:
        """Whether the context is a prefix, which does not depend on prompt, seed and step."""
        return self.model.transformer.config.context_attention == "prefix"

    def _grid(self, job: Job) -> tuple[int, int]:
        """(rows, columns) of the target's tokens."""
        width, height = job.plan.canvas
        token = self.model.preset.token_pixels
        return height // token, width // token

    def _batch(self, jobs: Sequence[Job], clock: _Clock) -> Batch:
        """All inputs of the sampling loop."""
        model, first = self.model, jobs[0]
        sources = None
        if first.source is not None:
            sources = pack(torch.cat([self.contexts.latents(job.source) for job in jobs if job.source]))
            for job in jobs:
                if job.source is not None:
                    self.contexts.reconstruct(job.source)
        prefixes, context = [], []
        for placed in zip(*(job.contexts for job in jobs)):  # each context of all jobs
            canvases, origin = [context.canvas for context in placed], placed[0].origin
            if self.has_prefix:
                prefixes.append(stack([self.contexts.prefix(canvas, origin) for canvas in canvases]))
            else:
                tokens, ids = zip(*(self.contexts.tokens(canvas, origin) for canvas in canvases))
                context.append((torch.cat(tokens), ids[0]))
        clock.lap("encode")

        def states(prompts: Iterable[str]) -> tuple[Tensor, Tensor]:
            pairs = [self.prompts.states(prompt, first.text_tokens) for prompt in prompts]
            return torch.cat([text for text, _ in pairs]), torch.cat([pooled for _, pooled in pairs])

        text, pooled = states(job.request.prompt for job in jobs)
        negative = None
        if first.guidance.negative:
            negative = states(job.request.negative_prompt or "" for job in jobs)
        finite(text, f"T5 encoder of {model.name}")
        finite(pooled, f"CLIP encoder of {model.name}")
        clock.lap("text")

        rows, columns = self._grid(first)
        channels = model.preset.autoencoder.latent_channels
        noise = pack(torch.cat([seeded_noise(job.seed, 2 * rows, 2 * columns, channels) for job in jobs]))
        return Batch(
            noise=noise.to(device_of(model)),
            ids=picture_ids(0, rows, columns, device=device_of(model)),
            text=text,
            pooled=pooled,
            prefixes=prefixes,
            context=context,
            negative=negative,
            source=sources,
        )

    def _active_selection(
        self, jobs: Sequence[Job], sources: Tensor | None
    ) -> tuple[Callable[[Tensor], Tensor | None] | None, Tensor | None]:
        """The function that selects active tokens after the first step, and the edit mask as tokens (n,)
        bool.

        Both are None if a job does not allow regions; then all tokens are computed. Tokens outside of all
        boxes and masks are never computed.
        """
        if sources is None or not _keeps_source(jobs):
            return None, None
        grid = self._grid(jobs[0])
        masks = [
            token_mask(job.plan.place(job.edit_mask), job.plan.canvas[0] // grid[1])
            for job in jobs
            if job.edit_mask is not None
        ]
        limited = len(masks) == len(jobs)
        edit_mask = torch.stack(masks).any(0).to(sources.device) if limited else None
        known = None if edit_mask is None else dilate_if_sparse(edit_mask)
        if jobs[0].request.expand is not None:  # the border is filled, whatever its estimate looks like
            return lambda estimate: None, known
        return lambda estimate: select_active_tokens(estimate, sources, grid, edit_mask), known

    def _preview(self, latents: Tensor, job: Job) -> Image.Image:
        """A preview of the picture's part of the canvas from an estimate (channels, height, width)."""
        with computing(device_of(self.model)):
            if self._projection is None:
                self._projection = fit_projection(self.model.autoencoder)
            preview = paint(latents, self._projection)
            if job.source is not None and job.request.lock:
                before = self.contexts.latents(job.source)[0]
                preview = over_source(preview, latents, before, job.source.image)
        scale = preview.width / job.plan.canvas[0]
        x, y, width, height = (round(scale * edge) for edge in job.plan.inner)
        return preview.crop((x, y, x + max(1, width), y + max(1, height)))


def _keeps_source(jobs: Sequence[Job]) -> bool:
    """Whether tokens outside of the edit may keep the source's values without being computed."""
    return all(job.source is not None and job.request.lock and job.request.regions for job in jobs)


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.last = now - self.last, now

    @property
    def total(self) -> float:
        return self.last - self.start
