"""One edit, from a picture and a sentence to the edited picture. `Editor` is the way in; `_run` is the way
through.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, overload

import numpy as np
import torch
from PIL import Image, ImageChops

from kontext.engine import pictures
from kontext.engine.context import (
    Canvas,
    ContextStore,
    accelerate_cpu,
    decode,
    device_of,
    stack,
)
from kontext.engine.detail import add_detail
from kontext.engine.device import computing, explained_errors, finite, usable_device
from kontext.engine.domain import photo_warning
from kontext.engine.pictures import Picture, PictureLike
from kontext.engine.pointing import draw_on, edit_mask_of, overlay_of
from kontext.engine.previews import fit_projection, paint
from kontext.engine.prompts import PromptStore
from kontext.engine.regions import (
    changed_fraction,
    composite,
    dilate_if_sparse,
    enlarge,
    region_of,
    select_active_tokens,
    token_mask,
)
from kontext.engine.requests import (
    MAX_BATCH,
    MAX_SEED,
    Cancel,
    EditRequest,
    OnStep,
    Result,
    StepInfo,
    whole_number,
)
from kontext.engine.sampling import Batch, sample, seeded_noise
from kontext.engine.sizes import Box, Size, SizePlan, plan_edit, plan_generate
from kontext.errors import BadRequest
from kontext.flow import schedule
from kontext.memory import keep_freed
from kontext.model.tokens import pack, picture_ids, unpack
from kontext.model.window import Window
from kontext.threads import leave_one_processor

if TYPE_CHECKING:
    from kontext.checkpoint import Model
    from kontext.session import Session

NOTHING_CHANGED = "nothing changed; say it in other words, or let it reach further (a larger box or mask)"


@dataclass(frozen=True)
class Job:
    """A request with everything decided that can be decided before the first computation."""

    request: EditRequest
    picture: Picture | None
    plan: SizePlan
    source: Canvas | None
    """The picture on the canvas, as it is."""
    contexts: tuple[Canvas, ...]
    """The contexts of the model: the picture (with its markup) and the references."""
    edit_mask: Image.Image | None
    """Mode L, as large as the picture: where the edit may act; None: anywhere."""
    seed: int
    steps: int
    guidance: float
    warnings: tuple[str, ...]

    @property
    def shape(self) -> tuple:
        """Jobs of equal shape can share a forward."""
        return (
            self.plan.canvas,
            tuple(canvas.image.size for canvas in self.contexts),
            self.steps,
            self.guidance,
        )


class Editor:
    """Edits pictures by sentences with one model. Contexts of known pictures are cached.

    refresh: steps between two evaluations of the contexts in "full" attention; 1 is exact.
    Raises BadRequest below 1.
    """

    def __init__(self, model: Model, context_bytes: int = 512 * 2**20, refresh: int = 1) -> None:
        if refresh < 1:
            raise BadRequest(f"refresh must be at least 1, got {refresh}")
        self.model = model
        model.autoencoder.to(memory_format=torch.channels_last)  # a fifth faster on processors
        self.refresh = refresh
        self.contexts = ContextStore(model, context_bytes)
        self.prompts = PromptStore(model)
        self._projection: torch.Tensor | None = None
        self._background: ThreadPoolExecutor | None = None
        self._load_seconds = 0.0

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "nano",
        device: str | None = None,
        dtype: torch.dtype | None = None,
        lora: Sequence[str | Path] = (),
        refresh: int = 1,
    ) -> Editor:
        """The editor of a model: "nano", a folder, a .safetensors or a .gguf file; with LoRA files merged in,
        each FILE or FILE:scale. Raises NotFound, BadCheckpoint, DeviceUnavailable, OutOfMemory.
        """
        from kontext.checkpoint import load_model

        start = time.perf_counter()
        keep_freed()
        place = usable_device(device)
        if place.type == "cpu":
            leave_one_processor()
        with explained_errors(place):
            model = load_model(name_or_path, device=place, dtype=dtype, lora=lora)
            if dtype is None:
                accelerate_cpu(model)
            editor = cls(model, refresh=refresh)
        editor._load_seconds = time.perf_counter() - start
        return editor

    def close(self) -> None:
        """Wait for a prefill that is being computed, drop those that wait, and end their thread.

        An editor that is used again starts what it needs again.
        """
        if self._background is not None:
            self._background.shutdown(cancel_futures=True)
            self._background = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def edit(
        self,
        picture: PictureLike,
        prompt: str,
        *,
        references: PictureLike | Sequence[PictureLike] | None = (),
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        size: str | Size = "match",
        box: Box | None = None,
        mask: PictureLike | None = None,
        markup: PictureLike | None = None,
        lock: bool = True,
        regions: bool = True,
        on_step: OnStep | None = None,
        cancel: Cancel | None = None,
    ) -> Result:
        """Change the picture as the sentence says, and nothing else.

        The fields of `EditRequest` say what each argument means. Raises BadPicture, BadRequest, NotFound,
        OutOfMemory, DeviceUnavailable, BadCheckpoint (weights that give NaN), and Cancelled within one step
        of `cancel.is_set()`.
        """
        request = EditRequest(
            picture=picture,
            prompt=prompt,
            references=references,
            seed=seed,
            steps=steps,
            guidance=guidance,
            size=size,
            box=box,
            mask=mask,
            markup=markup,
            lock=lock,
            regions=regions,
        )
        return self.edit_batch([request], on_step=on_step, cancel=cancel)[0]

    def generate(
        self,
        prompt: str,
        *,
        size: str | Size | None = None,
        references: PictureLike | Sequence[PictureLike] | None = (),
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        on_step: OnStep | None = None,
        cancel: Cancel | None = None,
    ) -> Result:
        """A picture from words, and up to 4 references. No size means the model's own."""
        request = EditRequest(
            prompt=prompt,
            references=references,
            seed=seed,
            steps=steps,
            guidance=guidance,
            size=size,
            lock=False,
        )
        return self.edit_batch([request], on_step=on_step, cancel=cancel)[0]

    def variants(
        self,
        picture: PictureLike | None,
        prompt: str,
        count: int,
        *,
        references: PictureLike | Sequence[PictureLike] | None = (),
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        size: str | Size | None = None,
        box: Box | None = None,
        mask: PictureLike | None = None,
        markup: PictureLike | None = None,
        lock: bool = True,
        regions: bool = True,
        on_step: OnStep | None = None,
        cancel: Cancel | None = None,
    ) -> list[Result]:
        """`count` (1 to 16) results of seeds seed, seed + 1, ... in one batched forward; arguments as in
        `edit`, or with None for the picture as in `generate`.
        """
        count = whole_number("variants", count, 1, MAX_BATCH)
        first = _seed(seed, count)
        if picture is not None:
            picture = pictures.load(picture)
        request = EditRequest(
            picture=picture,
            prompt=prompt,
            references=references,
            steps=steps,
            guidance=guidance,
            size=size,
            box=box,
            mask=mask,
            markup=markup,
            lock=lock,
            regions=regions,
        )
        requests = [replace(request, seed=first + i) for i in range(count)]
        return self.edit_batch(requests, on_step=on_step, cancel=cancel)

    def edit_batch(
        self, requests: Sequence[EditRequest], on_step: OnStep | None = None, cancel: Cancel | None = None
    ) -> list[Result]:
        """Results in the order of the requests; requests of equal shape share their forwards, 16 at a time.

        Every request is checked before anything is computed. Raises what `edit` does.
        """
        jobs = [self._job(request) for request in requests]
        groups: dict[tuple, list[int]] = defaultdict(list)
        for i, job in enumerate(jobs):
            groups[job.shape].append(i)
        results: dict[int, Result] = {}
        for members in groups.values():
            for start in range(0, len(members), MAX_BATCH):
                part = members[start : start + MAX_BATCH]
                with computing(device_of(self.model)):
                    done = self._run([jobs[i] for i in part], on_step, cancel)
                results.update(zip(part, done))
        return [results[i] for i in range(len(jobs))]

    @overload
    def prefill(self, picture: PictureLike, background: Literal[False] = False) -> None: ...
    @overload
    def prefill(self, picture: PictureLike, background: Literal[True]) -> Future[None]: ...
    def prefill(self, picture: PictureLike, background: bool = False) -> Future[None] | None:
        """Compute now what any edit of the picture needs, so that the edit itself starts at once.

        `background=True` is `prefill_in_background`.
        """
        if background:
            return self.prefill_in_background(picture)
        picture = pictures.load(picture)
        canvas = Canvas(plan_edit(picture.size, "match", self.model.preset.sizes).place(picture.opaque_rgb))
        with computing(device_of(self.model)):
            self.contexts.reconstruct(canvas)
            if self._has_prefix:
                self.contexts.prefix(canvas, 1)
        return None

    def prefill_in_background(self, picture: PictureLike) -> Future[None]:
        """`prefill` in a thread of its own; the Future is done when it is."""
        if self._background is None:
            self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefill")
        return self._background.submit(self.prefill, picture)

    def open(self, picture: PictureLike) -> Session:
        """A session: many edits of one picture, with undo and branches."""
        from kontext.session import Store

        return Store.temporary().create(picture, editor=self)

    @property
    def _has_prefix(self) -> bool:
        return self.model.transformer.config.context_attention == "prefix"

    def _job(self, request: EditRequest) -> Job:
        """Everything that can be refused is refused here, before the first computation."""
        preset = self.model.preset
        self.prompts.check(request.prompt)
        steps = preset.sampling.steps if request.steps is None else request.steps
        guidance = float(preset.sampling.guidance if request.guidance is None else request.guidance)
        references = [pictures.load(reference) for reference in request.references]
        warnings = list(self.model.warnings)
        for reference in references:
            warnings += reference.warnings
        context_canvases = [self._canvas(reference) for reference in references]

        if request.picture is None:
            if request.box is not None or request.mask is not None or request.markup is not None:
                raise BadRequest("box, mask and markup point into a picture; give the picture to edit")
            plan = plan_generate(request.size, preset.sizes)
            picture = source = edit_mask = None
        else:
            picture = pictures.load(request.picture)
            warnings += picture.warnings
            plan = plan_edit(picture.size, request.size or "match", preset.sizes)
            if plan.cropped:
                warnings.append(
                    f"size {request.size} is of another shape than the picture, which was cropped about its "
                    f"middle from {picture.size[0]}x{picture.size[1]} to {plan.crop[2]}x{plan.crop[3]}"
                )
            source = Canvas(plan.place(picture.opaque_rgb))
            overlay = overlay_of(request, picture)
            edit_mask = edit_mask_of(request, picture, overlay)
            marked = source if overlay is None else Canvas(plan.place(draw_on(picture.opaque_rgb, overlay)))
            context_canvases.insert(0, marked)
        return Job(
            request=request,
            picture=picture,
            plan=plan,
            source=source,
            contexts=tuple(context_canvases),
            edit_mask=edit_mask,
            seed=_seed(request.seed),
            steps=steps,
            guidance=guidance,
            warnings=tuple(warnings),
        )

    def _canvas(self, picture: Picture) -> Canvas:
        return Canvas(plan_edit(picture.size, "match", self.model.preset.sizes).place(picture.opaque_rgb))

    def _run(self, jobs: Sequence[Job], on_step: OnStep | None, cancel: Cancel | None) -> list[Result]:
        """The one way through, for jobs of equal shape."""
        model, clock = self.model, _Clock()
        first = jobs[0]
        width, height = first.plan.canvas
        token, channels = model.preset.token_pixels, model.preset.autoencoder.latent_channels
        rows, columns = height // token, width // token

        # 1. Pictures to latents, and to what the transformer sees of them.
        sources = None
        if first.source is not None:
            sources = pack(torch.cat([self.contexts.latents(job.source) for job in jobs]))
            for job in jobs:
                self.contexts.reconstruct(job.source)
        prefixes, context = [], []
        for index, context_canvases in enumerate(zip(*(job.contexts for job in jobs)), start=1):
            if self._has_prefix:
                prefixes.append(stack([self.contexts.prefix(canvas, index) for canvas in context_canvases]))
            else:
                tokens, ids = zip(*(self.contexts.tokens(canvas, index) for canvas in context_canvases))
                context.append((torch.cat(tokens), ids[0]))
        clock.lap("encode")

        # 2. Sentences to text states; guidance without an input of its own needs those of the empty sentence.
        text, pooled = map(torch.cat, zip(*(self.prompts.states(job.request.prompt) for job in jobs)))
        guided = first.guidance > 1 and not model.transformer.config.guidance_embed
        without_prompt = self.prompts.states("") if guided else None
        finite(text, f"T5 encoder of {model.name}")
        finite(pooled, f"CLIP encoder of {model.name}")
        clock.lap("text")

        # 3. Noise to the target's tokens.
        noise = pack(torch.cat([seeded_noise(job.seed, 2 * rows, 2 * columns, channels) for job in jobs]))
        batch = Batch(
            noise=noise.to(device_of(model)),
            ids=picture_ids(0, rows, columns, device=device_of(model)),
            text=text,
            pooled=pooled,
            prefixes=prefixes,
            context=context,
            without_prompt=without_prompt,
            source=sources,
        )
        times = schedule(first.steps, rows * columns, model.preset.sampling.shift)

        def report_step(step: int, estimate: torch.Tensor) -> None:
            def preview(i: int = 0) -> Image.Image:
                return self._preview(unpack(estimate[i : i + 1], 2 * rows, 2 * columns)[0], jobs[i].plan)

            on_step(StepInfo(step + 1, first.steps, preview))

        select_active, edit_mask = self._active_selection(jobs, sources, (rows, columns))
        cancelled = cancel.is_set if cancel is not None else lambda: False
        report = on_step and report_step
        tokens = sample(
            model.transformer,
            batch,
            times,
            first.guidance,
            select_active,
            edit_mask,
            report,
            cancelled,
            self.refresh,
        )
        finite(tokens, f"transformer of {model.name}")
        clock.lap("sample")

        # 4. Tokens to pictures; what did not change becomes the original again.
        latents, window = unpack(tokens, 2 * rows, 2 * columns), None
        if select_active is None:
            decoded = decode(model, latents)
        else:
            decoded, window = self.contexts.paint(latents, [job.source for job in jobs])
        finished = [self._finish(job, pixels, window) for job, pixels in zip(jobs, decoded)]
        clock.lap("decode")

        seconds = {"load": self._load_seconds, **clock.seconds, "total": self._load_seconds + clock.total}
        self._load_seconds = 0.0  # reported once, with the first result
        evaluations = first.steps * (2 if guided else 1)
        return [
            self._result(job, picture, region, evaluations, seconds)
            for job, (picture, region) in zip(jobs, finished)
        ]

    @staticmethod
    def _active_selection(jobs: Sequence[Job], sources: torch.Tensor | None, grid: tuple[int, int]):
        """The selection of active tokens after the first step, and the edit mask as tokens (n,) bool.

        Both are None where a job does not allow regions: then all tokens are computed. Tokens outside of all
        boxes and masks are never computed.
        """
        if sources is None or not all(job.request.lock and job.request.regions for job in jobs):
            return None, None
        masks = [
            job.edit_mask and token_mask(job.plan.place(job.edit_mask), job.plan.canvas[0] // grid[1])
            for job in jobs
        ]
        limited = all(mask is not None for mask in masks)
        edit_mask = torch.stack(masks).any(0).to(sources.device) if limited else None
        known = None if edit_mask is None else dilate_if_sparse(edit_mask)
        return lambda estimate: select_active_tokens(estimate, sources, grid, edit_mask), known

    def _finish(
        self, job: Job, decoded: np.ndarray, window: Window | None
    ) -> tuple[Image.Image, Image.Image | None]:
        """The output picture and its region (None: the whole); outside of a window nothing was made."""
        on_canvas = Image.fromarray(decoded)
        if job.picture is None or not job.request.lock:
            return job.plan.restore(on_canvas), None
        codec = self.contexts.reconstruct(job.source)
        edit_mask = job.edit_mask and job.plan.place(job.edit_mask)
        region = region_of(decoded, codec, edit_mask, window)
        alpha = job.picture.alpha and job.plan.original(job.picture.alpha)
        original = job.plan.original(job.picture.rgb if alpha else job.picture.opaque_rgb)
        if region.soft is None:
            return add_detail(on_canvas, original, codec, job.plan), None
        soft = enlarge(region, job.plan)
        if job.edit_mask is not None:  # the person's own border, at full resolution
            soft = ImageChops.multiply(soft, job.plan.original(job.edit_mask))
        box = soft.getbbox()
        result = add_detail(on_canvas, original, codec, job.plan, box) if box else original
        return composite(original, result, soft, alpha), soft

    def _result(
        self, job: Job, picture: Image.Image, region: Image.Image | None, evaluations: int, seconds: dict
    ) -> Result:
        request, warnings = job.request, list(job.warnings)
        changed = 1.0
        if job.source is not None:
            changed = changed_fraction(job.plan.original(job.picture.as_given), picture)
            if self.model.preset.name != "dev":
                warnings += photo_warning(self.model.name, *self.contexts.picture_stats(job.source))
            if changed == 0:
                warnings.append(NOTHING_CHANGED)
        settings = {
            "size": request.size if isinstance(request.size, str | None) else list(request.size),
            "canvas": list(job.plan.canvas),
            "references": len(request.references),
            "box": None if request.box is None else list(request.box),
            "mask": request.mask is not None,
            "markup": request.markup is not None,
            "lock": request.lock,
            "regions": request.regions,
            "fingerprint": self.model.fingerprint,
        }
        return Result(
            picture=picture,
            region=region,
            changed_fraction=changed,
            seed=job.seed,
            steps=job.steps,
            guidance=job.guidance,
            size=picture.size,
            model=self.model.name,
            evaluations=evaluations,
            seconds=seconds,
            warnings=tuple(dict.fromkeys(warnings)),
            prompt=request.prompt,
            settings=settings,
            source=job.picture,
        )

    def _preview(self, latents: torch.Tensor, plan: SizePlan) -> Image.Image:
        with computing(device_of(self.model)):
            if self._projection is None:
                self._projection = fit_projection(self.model.autoencoder)
            small = paint(latents, self._projection)
        x, y, width, height = (round(edge / 8) for edge in plan.inner)
        return small.crop((x, y, x + max(1, width), y + max(1, height)))


def _seed(seed: int | None, count: int = 1) -> int:
    """The first of `count` seeds; drawn where None is given."""
    return secrets.randbelow(2**32) if seed is None else whole_number("seed", seed, 0, MAX_SEED - count + 1)


class _Clock:
    """Seconds of the stages, lap by lap."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.last = now - self.last, now

    @property
    def total(self) -> float:
        return self.last - self.start
