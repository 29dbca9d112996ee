"""From planned edits to results: contexts, prompts, sampling, decoding, in this order."""

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
from kontext.engine.loras import LoraStore
from kontext.engine.plan import EditPlan
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
    """Runs edits of equal shape with one model. Contexts and prompts are cached."""

    def __init__(self, model: Model, context_bytes: int, loras: LoraStore | None = None) -> None:
        self.model = model
        self.contexts = ContextStore(model, context_bytes)
        self.prompts = PromptStore(model)
        self.loras = loras or LoraStore(model)
        self._projection: Tensor | None = None

    def run(
        self,
        edits: Sequence[EditPlan],
        on_step: OnStep | None,
        cancel: Cancel | None,
        load_seconds: float = 0.0,
    ) -> list[Result]:
        """The results of edits of equal shape; `load_seconds` is reported with them."""
        with self.loras.active(edits[0].loras):
            return self._run(edits, on_step, cancel, load_seconds)

    def _run(
        self, edits: Sequence[EditPlan], on_step: OnStep | None, cancel: Cancel | None, load_seconds: float
    ) -> list[Result]:
        first, clock = edits[0], _Clock()
        rows, columns = self._grid(first)
        batch = self._batch(edits, clock)
        select_active, edit_mask = self._active_selection(edits, batch.source)

        def report_step(step: int, estimate: Tensor) -> None:
            def preview(i: int = 0) -> Image.Image:
                return self._preview(unpack(estimate[i : i + 1], 2 * rows, 2 * columns)[0], edits[i])

            assert on_step is not None
            on_step(StepInfo(step + 1, len(first.times) - 1, preview, range(len(edits))))

        sampled = sample(
            self.model.transformer,
            batch,
            first.times,
            first.guidance,
            select_active,
            edit_mask,
            report_step if on_step is not None else None,
            cancel.is_set if cancel is not None else lambda: False,
            first.approximations,
            expected_region if _keeps_source(edits) and first.request.expand is None else None,
            first.sampler,
        )
        tokens, expected = sampled.tokens, sampled.region
        finite(tokens, f"transformer of {self.model.name}")
        clock.lap("sample")

        latents, window = unpack(tokens, 2 * rows, 2 * columns), None
        if select_active is None and expected is None:
            decoded = decode(self.model, latents)
        else:
            decoded, window = self.contexts.paint(latents, [edit.source for edit in edits if edit.source])
        regions = [None] * len(edits) if expected is None else list(expected)
        finished = [
            finish(edit, self.contexts, pixels, window, region)
            for edit, pixels, region in zip(edits, decoded, regions)
        ]
        clock.lap("decode")

        seconds = {"load": load_seconds, **clock.seconds, "total": load_seconds + clock.total}
        return [
            result_of(
                edit, self.contexts, self.loras.fingerprint, picture, region, sampled.evaluations, seconds
            )
            for edit, (picture, region) in zip(edits, finished)
        ]

    def locate(self, edit: EditPlan) -> Image.Image | None:
        """Predict where an edit would act, with one evaluation: a mask (mode L) at output size.

        None for models without a region head. Raises BadRequest for an edit without a picture.
        """
        if edit.source is None:
            raise BadRequest("give the picture in which to locate the edit")
        with self.loras.active(edit.loras):
            batch = self._batch([edit], _Clock())
            _, edit_mask = self._active_selection([edit], batch.source)
            region = locate(self.model.transformer, batch, edit.times, expected_region, edit_mask)
        if region is None:
            return None
        tokens = Image.fromarray(region[0].reshape(self._grid(edit)).cpu().numpy().astype(np.uint8) * 255)
        on_canvas = tokens.resize(edit.plan.canvas, Image.Resampling.NEAREST)
        found = edit.plan.restore(on_canvas, Image.Resampling.NEAREST)
        if edit.edit_mask is None:
            return found
        return ImageChops.multiply(found, edit.plan.original(edit.edit_mask))

    @property
    def has_prefix(self) -> bool:
        """Whether the context is a prefix, which does not depend on prompt, seed and step."""
        return self.model.transformer.config.context_attention == "prefix"

    def _grid(self, edit: EditPlan) -> tuple[int, int]:
        """(rows, columns) of the target's tokens."""
        width, height = edit.plan.canvas
        token = self.model.preset.token_pixels
        return height // token, width // token

    def _batch(self, edits: Sequence[EditPlan], clock: _Clock) -> Batch:
        """All inputs of the sampling loop."""
        model, first = self.model, edits[0]
        sources = None
        if first.source is not None:
            sources = pack(torch.cat([self.contexts.latents(edit.source) for edit in edits if edit.source]))
            for edit in edits:
                if edit.source is not None:
                    self.contexts.reconstruct(edit.source)
        prefixes, context, key = [], [], first.loras.key("transformer")
        for placed in zip(*(edit.contexts for edit in edits)):  # each context of all edits
            canvases, origin = [context.canvas for context in placed], placed[0].origin
            if self.has_prefix:
                prefixes.append(stack([self.contexts.prefix(canvas, origin, key) for canvas in canvases]))
            else:
                tokens, ids = zip(*(self.contexts.tokens(canvas, origin) for canvas in canvases))
                context.append((torch.cat(tokens), ids[0]))
        clock.lap("encode")

        def states(prompts: Iterable[str]) -> tuple[Tensor, Tensor]:
            key = first.loras.key("t5", "clip")
            pairs = [self.prompts.states(prompt, first.text_tokens, key) for prompt in prompts]
            return torch.cat([text for text, _ in pairs]), torch.cat([pooled for _, pooled in pairs])

        text, pooled = states(edit.request.prompt for edit in edits)
        negative = None
        if first.guidance.negative:
            negative = states(edit.request.negative_prompt or "" for edit in edits)
        finite(text, f"T5 encoder of {model.name}")
        finite(pooled, f"CLIP encoder of {model.name}")
        clock.lap("text")

        rows, columns = self._grid(first)
        channels = model.preset.autoencoder.latent_channels
        noise = pack(torch.cat([seeded_noise(edit.seed, 2 * rows, 2 * columns, channels) for edit in edits]))
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
        self, edits: Sequence[EditPlan], sources: Tensor | None
    ) -> tuple[Callable[[Tensor], Tensor | None] | None, Tensor | None]:
        """The function that selects active tokens after the first step, and the edit mask.

        The mask is of tokens, (n,) bool.

        Both are None if an edit does not allow regions; then all tokens are computed. Tokens outside of all
        boxes and masks are never computed.
        """
        if sources is None or not _keeps_source(edits):
            return None, None
        grid = self._grid(edits[0])
        masks = [
            token_mask(edit.plan.place(edit.edit_mask), edit.plan.canvas[0] // grid[1])
            for edit in edits
            if edit.edit_mask is not None
        ]
        limited = len(masks) == len(edits)
        edit_mask = torch.stack(masks).any(0).to(sources.device) if limited else None
        known = None if edit_mask is None else dilate_if_sparse(edit_mask)
        if edits[0].request.expand is not None:  # the border is filled, whatever its estimate looks like
            return lambda estimate: None, known
        return lambda estimate: select_active_tokens(estimate, sources, grid, edit_mask), known

    def _preview(self, latents: Tensor, edit: EditPlan) -> Image.Image:
        """A preview of the picture's part of the canvas from an estimate (channels, height, width)."""
        with computing(device_of(self.model)):
            if self._projection is None:
                self._projection = fit_projection(self.model.autoencoder)
            preview = paint(latents, self._projection)
            if edit.source is not None and edit.request.lock:
                before = self.contexts.latents(edit.source)[0]
                preview = over_source(preview, latents, before, edit.source.image)
        scale = preview.width / edit.plan.canvas[0]
        x, y, width, height = (round(scale * edge) for edge in edit.plan.inner)
        return preview.crop((x, y, x + max(1, width), y + max(1, height)))


def _keeps_source(edits: Sequence[EditPlan]) -> bool:
    """Whether tokens outside of the edit may keep the source's values without being computed."""
    return all(edit.source is not None and edit.regions for edit in edits)


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
