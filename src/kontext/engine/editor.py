"""`Editor`, the Python interface: edits, variants, batches and sessions with one model."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
from kontext.engine.device import computing, explained_errors, release_memory, usable_device
from kontext.engine.layout import canvas_of
from kontext.engine.loras import LoraStore
from kontext.engine.memory_sizes import Workload
from kontext.engine.pipeline import Pipeline
from kontext.engine.plan import EditPlan, first_seed, plan_request
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
from kontext.engine.sizes import Box, scaled_canvases
from kontext.errors import OutOfMemory
from kontext.loras import LoraAccess
from kontext.memory import keep_freed, parse_memory
from kontext.model.autoencoder import use_channels_last
from kontext.model.compilation import check_compile
from kontext.model.fp8 import check_fp8
from kontext.pictures import PictureLike
from kontext.threads import leave_one_processor
from kontext.values import whole_number

if TYPE_CHECKING:
    from kontext.checkpoint import Model
    from kontext.checkpoint.placement import Placement
    from kontext.checkpoint.tensors import Weights
    from kontext.engine.memory_plan import MemoryPlan
    from kontext.model.presets import Preset
    from kontext.session import Session

log = logging.getLogger(__name__)


class Editor:
    """Edits pictures by text instructions with one model. Contexts of pictures are cached.

    plan: how the model was placed. canvas: side of the canvas for requests that give none; None: the model's
    own. compile: run the transformer's blocks by torch.compile. Raises BadRequest for a canvas that the model
    does not support.
    """

    def __init__(
        self,
        model: Model,
        context_bytes: int = 512 * 2**20,
        plan: MemoryPlan | None = None,
        canvas: int | None = None,
        compile: bool = False,
    ) -> None:
        self.model = model
        self.plan = plan
        self.canvas = canvas
        self._compile = compile
        self._sizes = scaled_canvases(model.preset.sizes, canvas, model.preset.token_pixels)
        self._prepare()
        self.pipeline = Pipeline(model, plan.cache_bytes if plan else context_bytes)
        self._background: ThreadPoolExecutor | None = None
        self._load_seconds = 0.0

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "nano",
        device: str | None = None,
        dtype: torch.dtype | None = None,
        lora: Sequence[str | Path] = (),
        memory: str | int | None = None,
        canvas: int | None = None,
        loras: LoraAccess | None = None,
        fp8: bool = False,
        compile: bool = False,
    ) -> Editor:
        """Load the editor of a model: "nano", a folder, a .safetensors or a .gguf file.

        lora: files to merge, each FILE or FILE:scale.
        memory: the limit on the device, such as "8GB" or a number of bytes; None or "auto": what is free.
        canvas: side of the canvas for requests that give none, which memory is planned for.
        loras: the LoRAs that requests may use (`EditRequest.loras`); None: any file, and names of files in
        KONTEXT_HOME/loras.
        fp8: multiply in 8-bit floats in the blocks of the transformer, an approximation: on GPUs of NVIDIA
        with compute capability 8.9 or newer; on CPUs it works, but is not faster.
        compile: run the blocks of the transformer by torch.compile, on CUDA and CPUs. The first edit of a
        size then takes about a minute more. Streamed blocks, and edits with LoRAs, stay as they are.
        Raises NotFound, BadCheckpoint, BadRequest, DeviceUnavailable, OutOfMemory.
        """
        from kontext.checkpoint import load_model
        from kontext.engine.memory_plan import choose_placement

        start = time.perf_counter()
        keep_freed()
        limit, place = parse_memory(memory), usable_device(device)
        if fp8:
            check_fp8(place)
        if compile:
            check_compile(place)
        if place.type == "cpu":
            leave_one_processor()
        plan: MemoryPlan | None = None

        def choose(preset: Preset, parts: Mapping[str, Weights]) -> Placement:
            nonlocal plan
            placement, plan = choose_placement(parts, preset, limit, place, dtype, canvas, fp8)
            return placement

        with explained_errors(place):
            model = load_model(name_or_path, lora=lora, place=choose)
            if dtype is None:
                accelerate_cpu(model, compile)
            editor = cls(model, plan=plan, canvas=canvas, compile=compile)
        if loras is not None:
            editor.use_loras(loras)
        editor._load_seconds = time.perf_counter() - start
        return editor

    def use_loras(self, access: LoraAccess) -> None:
        """Set the LoRAs that requests may use, and those of every request.

        Raises NotFound, BadRequest, BadCheckpoint.
        """
        with explained_errors(self.model.device):
            self.pipeline.loras = LoraStore(self.model, access)

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
        """`count` (1 to 16) results with seeds seed, seed + 1, ... in one batch.

        The options are those of `edit`, or without a picture those of `generate`.
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
        self._ensure_placed()
        edits = [
            plan_request(self._with_canvas(request), self.prompts, self.pipeline.loras)
            for request in requests
        ]
        groups: dict[BatchShape, list[int]] = defaultdict(list)
        for i, edit in enumerate(edits):
            groups[edit.shape].append(i)
        results: dict[int, Result] = {}
        for members in groups.values():
            together = self._max_batch(edits[members[0]])
            for start in range(0, len(members), together):
                part = members[start : start + together]
                results.update(zip(part, self._run(edits, part, on_step, cancel)))
        return [results[i] for i in range(len(edits))]

    def _with_canvas(self, request: EditRequest) -> EditRequest:
        return replace(request, canvas=self.canvas) if request.canvas is None else request

    def _max_batch(self, edit: EditPlan) -> int:
        """Batch size for edits of one shape."""
        if self.plan is None:
            return MAX_BATCH
        each = 2 if edit.guidance.negative else 1
        workload = Workload(edit.plan.canvas, edit.shape.contexts, edit.text_tokens, edit.steps, each)
        return max(1, self.plan.max_batch(workload, each * MAX_BATCH) // each)

    def _run(
        self, edits: Sequence[EditPlan], part: Sequence[int], on_step: OnStep | None, cancel: Cancel | None
    ) -> list[Result]:
        """Run some of the edits. If memory runs out: fewer at a time, then with the next smaller plan."""
        try:
            with computing(device_of(self.model)):
                done = self.pipeline.run(
                    [edits[i] for i in part],
                    on_step and _with_indices(on_step, part),
                    cancel,
                    self._load_seconds,
                )
            self._load_seconds = 0.0  # reported once, with the first results
            return done
        except OutOfMemory as error:
            smaller = None if len(part) > 1 or self.plan is None else self.plan.smaller()
            if len(part) == 1 and smaller is None:
                raise
            log.warning("%s", str(error))  # not itself: it holds on to tensors
        release_memory(self.model.device)  # now that the error is gone
        if smaller is not None:
            self._shrink()
            note = f"memory ran out; made with a smaller plan: {self.plan}"
            return [_noted(result, note) for result in self._run(edits, part, on_step, cancel)]
        middle, note = len(part) // 2, f"memory ran out for {len(part)} pictures at a time; made in parts"
        halves = (part[:middle], part[middle:])
        return [_noted(result, note) for half in halves for result in self._run(edits, half, on_step, cancel)]

    def _shrink(self) -> None:
        """Place the model by the next smaller plan that can be placed. Raises OutOfMemory at the last one."""
        while self.plan is not None and (smaller := self.plan.smaller()) is not None:
            self.plan, self._placed = smaller, False
            try:
                return self._place()
            except OutOfMemory:
                if smaller.smaller() is None:
                    raise
            release_memory(smaller.device)

    def _place(self) -> None:
        """Place the model anew, by the plan."""
        assert self.plan is not None
        with explained_errors(self.plan.device):
            self.model.place(self.plan.placement())
        self._prepare()

    def _ensure_placed(self) -> None:
        """Place the model again where memory ran out while it was placed. Raises OutOfMemory."""
        if not self._placed:
            self._place()

    def _prepare(self) -> None:
        autoencoder = self.model.autoencoder
        use_channels_last(autoencoder)
        autoencoder.strip_elements = self.plan.strip_elements if self.plan else None
        if self._compile:
            self.model.transformer.compile_blocks()
            if not self.model.compiled:
                log.warning(
                    "no block is compiled: the memory limit or the file's type leaves none on the device"
                )
        self._placed = True

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
            return self.pipeline.locate(plan_request(request, self.prompts, self.pipeline.loras))

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
        canvas = canvas_of(picture, self._sizes)
        self._ensure_placed()
        loras = self.pipeline.loras.always
        with computing(device_of(self.model)), self.pipeline.loras.active(loras):
            self.contexts.reconstruct(canvas)
            if self.pipeline.has_prefix:
                self.contexts.prefix(canvas, (1, 0, 0), loras.key("transformer"))
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


def _noted(result: Result, note: str) -> Result:
    return replace(result, warnings=tuple(dict.fromkeys((*result.warnings, note))))


def _with_indices(on_step: OnStep, indices: Sequence[int]) -> OnStep:
    """`on_step` for a batch of some of the requests."""
    return lambda info: on_step(replace(info, indices=indices))
