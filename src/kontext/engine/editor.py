"""`Editor`, the Python interface: edits, variants, batches and sessions with one model."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, Unpack, overload

import torch
from PIL import Image

from kontext import pictures
from kontext.engine.batching import BatchShape
from kontext.engine.context import (
    ContextStore,
    accelerate_cpu,
    device_of,
)
from kontext.engine.device import computing, explained_errors, usable_device
from kontext.engine.layout import canvas_of
from kontext.engine.pipeline import Pipeline
from kontext.engine.plan import first_seed, plan_job
from kontext.engine.prompts import PromptStore
from kontext.engine.requests import (
    MAX_BATCH,
    Cancel,
    EditOptions,
    EditRequest,
    GenerateOptions,
    OnStep,
    Result,
)
from kontext.engine.sizes import Box
from kontext.errors import BadRequest
from kontext.memory import keep_freed
from kontext.model.autoencoder import use_channels_last
from kontext.pictures import PictureLike
from kontext.threads import leave_one_processor
from kontext.values import whole_number

if TYPE_CHECKING:
    from kontext.checkpoint import Model
    from kontext.session import Session


class Editor:
    """Edits pictures by text instructions with one model. Contexts of pictures are cached.

    refresh: steps between two evaluations of the contexts in "full" attention; 1 is exact.
    Raises BadRequest below 1.
    """

    def __init__(self, model: Model, context_bytes: int = 512 * 2**20, refresh: int = 1) -> None:
        if refresh < 1:
            raise BadRequest(f"refresh must be at least 1, got {refresh}")
        self.model = model
        use_channels_last(model.autoencoder)
        self.pipeline = Pipeline(model, context_bytes, refresh)
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
        """Load the editor of a model: "nano", a folder, a .safetensors or a .gguf file. `lora` are files to
        merge, each FILE or FILE:scale. Raises NotFound, BadCheckpoint, DeviceUnavailable, OutOfMemory.
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
        """Wait for the running prefill, drop the queued ones, and end their thread.

        A closed editor can still be used; it starts a new thread when it needs one.
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
        on_step: OnStep | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[EditOptions],
    ) -> Result:
        """Edit a picture as the prompt says; nothing else changes.

        The options are the fields of `EditRequest`, described there. Raises BadPicture, BadRequest, NotFound,
        OutOfMemory, DeviceUnavailable, BadCheckpoint (weights that give NaN), and Cancelled within one step
        of `cancel.is_set()`.
        """
        options.setdefault("size", "match")
        request = EditRequest(picture=picture, prompt=prompt, **options)
        return self.edit_batch([request], on_step=on_step, cancel=cancel)[0]

    def generate(
        self,
        prompt: str,
        *,
        on_step: OnStep | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Result:
        """Generate a picture from text and up to 4 references. Without `size`, the model's own size."""
        request = EditRequest(prompt=prompt, lock=False, **options)
        return self.edit_batch([request], on_step=on_step, cancel=cancel)[0]

    def variants(
        self,
        picture: PictureLike | None,
        prompt: str,
        count: int,
        *,
        on_step: OnStep | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Result]:
        """`count` (1 to 16) results with seeds seed, seed + 1, ... in one batch. The options are those of
        `edit`, or without a picture those of `generate`.
        """
        count = whole_number("variants", count, 1, MAX_BATCH)
        first = first_seed(options.get("seed"), count)
        if picture is not None:
            picture = pictures.load(picture)
        request = EditRequest(picture=picture, prompt=prompt, **options)
        requests = [replace(request, seed=first + i) for i in range(count)]
        return self.edit_batch(requests, on_step=on_step, cancel=cancel)

    def edit_batch(
        self, requests: Sequence[EditRequest], on_step: OnStep | None = None, cancel: Cancel | None = None
    ) -> list[Result]:
        """Results in the order of the requests. Requests of equal shape are batched, up to 16 at a time.

        Every request is checked before anything is computed. Raises the errors of `edit`.
        """
        jobs = [plan_job(request, self.model, self.pipeline.prompts) for request in requests]
        groups: dict[BatchShape, list[int]] = defaultdict(list)
        for i, job in enumerate(jobs):
            groups[job.shape].append(i)
        results: dict[int, Result] = {}
        for members in groups.values():
            for start in range(0, len(members), MAX_BATCH):
                part = members[start : start + MAX_BATCH]
                with computing(device_of(self.model)):
                    done = self.pipeline.run(
                        [jobs[i] for i in part],
                        on_step and _with_indices(on_step, part),
                        cancel,
                        self._load_seconds,
                    )
                self._load_seconds = 0.0  # reported once, with the first results
                results.update(zip(part, done))
        return [results[i] for i in range(len(jobs))]

    def locate(
        self,
        picture: PictureLike,
        prompt: str,
        *,
        references: PictureLike | Sequence[PictureLike] | None = (),
        box: Box | None = None,
        mask: PictureLike | None = None,
        markup: PictureLike | None = None,
    ) -> Image.Image | None:
        """Predict where an edit would act, with one evaluation of the model.

        Returns a mask as large as the picture (mode L, 255 where the edit would act), empty for a prompt that
        asks for no change; None for models without a region head. Arguments and errors are those of `edit`.
        """
        request = EditRequest(
            prompt=prompt, picture=picture, references=references, box=box, mask=mask, markup=markup, seed=0
        )
        with computing(device_of(self.model)):
            return self.pipeline.locate(plan_job(request, self.model, self.pipeline.prompts))

    @overload
    def prefill(self, picture: PictureLike, background: Literal[False] = False) -> None: ...
    @overload
    def prefill(self, picture: PictureLike, background: Literal[True]) -> Future[None]: ...
    def prefill(self, picture: PictureLike, background: bool = False) -> Future[None] | None:
        """Compute the context of a picture in advance, for edits of it to start faster.

        `background=True` is `prefill_in_background`.
        """
        if background:
            return self.prefill_in_background(picture)
        picture = pictures.load(picture)
        canvas = canvas_of(picture, self.model.preset.sizes)
        with computing(device_of(self.model)):
            self.contexts.reconstruct(canvas)
            if self.pipeline.has_prefix:
                self.contexts.prefix(canvas, (1, 0, 0))
        return None

    def prefill_in_background(self, picture: PictureLike) -> Future[None]:
        """Run `prefill` in a background thread; the Future completes with it."""
        if self._background is None:
            self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefill")
        return self._background.submit(self.prefill, picture)

    @property
    def contexts(self) -> ContextStore:
        """The cache of picture contexts."""
        return self.pipeline.contexts

    @property
    def prompts(self) -> PromptStore:
        """The cache of encoded prompts."""
        return self.pipeline.prompts

    def open(self, picture: PictureLike) -> Session:
        """A session: many edits of one picture, with undo and branches."""
        from kontext.session import Store

        return Store.temporary().create(picture, editor=self)


def _with_indices(on_step: OnStep, indices: Sequence[int]) -> OnStep:
    """`on_step` for a batch of some of the requests."""
    return lambda info: on_step(replace(info, indices=indices))
