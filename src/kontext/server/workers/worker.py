"""The worker process: an editor that runs batches of jobs and reports every step.

`ModelHost` hosts the editor under every executor. `main` is a local worker process: it communicates over one
socket with the service that started it, and exits when that service does.
"""

from __future__ import annotations

import io
import json
import logging
import os
import queue
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from PIL import Image

from kontext.engine.guidance import plan_guidance
from kontext.engine.requests import EditRequest, Result, StepInfo
from kontext.engine.sizes import scaled_canvases
from kontext.errors import BadConfig, BadRequest, Cancelled, DeviceUnavailable, KontextError
from kontext.loras import LoraAccess
from kontext.server.jobs.requests import JobRequest
from kontext.terminal import log_handler

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

POLITE = 10
"""Niceness of a worker: on shared CPUs the service stays responsive."""
PREVIEW_SIDE = 256  # longest side of a preview, in pixels
PREVIEW_ENLARGED = 8  # factor: a preview has one pixel per latent pixel


@dataclass(frozen=True)
class JobPayload:
    """A job as sent to a worker. `pictures`: encoded files by role (picture, references, mask, markup)."""

    id: str
    request: JobRequest
    pictures: Mapping[str, Sequence[bytes]]
    watched: bool = False
    """Whether previews are wanted."""

    def edit_request(self) -> EditRequest:
        return self.request.edit_request(self.pictures)


@dataclass(frozen=True)
class Failure:
    """Why a job has no result; `message` is for the user."""

    message: str
    cancelled: bool = False


@dataclass(frozen=True)
class ModelInfo:
    """Information about the loaded model."""

    name: str
    fingerprint: str
    description: str
    sizes: tuple[tuple[int, int], ...]
    steps: int
    guidance: float
    warnings: tuple[str, ...]
    prompt_tokens: int | None = None
    """Maximum prompt length in tokens of `tokenizer` (JSON of the tokenizers library)."""
    tokenizer: str | None = None
    skills: Mapping[str, Any] | None = None
    """Prompts that are known to work: `kontext.checkpoint.skills.Skills` as plain data, so that the service
    does not import torch.
    """
    embeds_guidance: bool | None = None
    """Whether guidance is an input of the model. None: not known."""
    others: tuple[ModelInfo, ...] = ()
    """Further models of the same service."""

    @property
    def all(self) -> tuple[ModelInfo, ...]:
        """The model and the others."""
        return (self, *self.others)

    def named(self, name: str | None) -> ModelInfo:
        """The model with this name; None: this one. Raises BadRequest."""
        for model_info in self.all:
            if name is None or model_info.name == name:
                return model_info
        raise not_served(str(name), [model_info.name for model_info in self.all])

    def check_request(self, request: JobRequest) -> None:
        """Raises BadRequest for what the model cannot do.

        Prompts that are too long for it, and a canvas or guidance that it does not have.
        """
        scaled_canvases(self.sizes, request.canvas, 1)
        if self._tokenizer is not None and self.prompt_tokens is not None:
            from kontext.engine.prompt_length import check_length

            check_length(self._tokenizer, request.prompt, self.prompt_tokens, self.name)
            negative = request.negative_prompt or ""
            check_length(self._tokenizer, negative, self.prompt_tokens, self.name, "negative prompt")
        if self.embeds_guidance is not None:
            plan_guidance(request, self.guidance, self.embeds_guidance, request.steps or self.steps)

    def count_tokens(self, prompt: str) -> int | None:
        """Tokens of a prompt as `prompt_tokens` limits them; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        from kontext.engine.prompt_length import count_tokens

        return count_tokens(self._tokenizer, prompt)

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.tokenizer) if self.tokenizer else None


def not_served(name: str, served: Iterable[str]) -> BadRequest:
    error = BadRequest(f"model {name!r:.60} is not served here; choose from {', '.join(served)}")
    error.param = "model"
    return error


OnProgress = Callable[[str, int, int, bytes | None], None]  # job id, step, steps, preview as JPEG


def load_editor(model: str, device: str | None, **options: Any) -> Any:
    """The default editor factory; `options` are further arguments of `Editor.load`."""
    from kontext.engine import Editor

    return Editor.load(model, device=device, **options)


def editor_factory(name: str) -> Callable[..., Any]:
    """Load "module:function" or "file.py:function"; set by the operator, never by a request."""
    place, _, function = name.rpartition(":")
    return (
        runpy.run_path(place)[function] if place.endswith(".py") else getattr(import_module(place), function)
    )


def worker_device(device: str | None, index: int, workers: int) -> str | None:
    """The device of worker `index` (from 0) of `workers` on this machine: GPUs are assigned round robin.

    Workers that share a GPU each hold a copy of the model there, which is logged as a warning.
    """
    if workers < 2 or device == "cpu":
        return device
    from kontext.engine.device import available_devices

    found = available_devices()
    gpus = [name for name in found if name != "cpu"]
    if device is not None and device != "cuda":
        gpus = [device]
    if not gpus:
        return device
    own = gpus[index % len(gpus)]
    if index >= len(gpus):
        log.warning(
            "worker %d shares %s with worker %d (%d workers, available GPUs: %d); each worker holds a copy "
            "of the model there, so start with --workers %d unless it is small",
            *(index, own, index % len(gpus), workers, len(gpus), len(gpus)),
        )
    return own


class ModelHost:
    """The editors of all models with their current batch.

    As worker `index` (from 0) of `workers` on this machine.
    """

    def __init__(
        self,
        factory: str,
        model: str,
        device: str | None,
        index: int = 0,
        workers: int = 1,
        options: Mapping[str, Any] | None = None,
        more_models: Sequence[str] = (),
        loras: LoraAccess | None = None,
    ) -> None:
        """Raises BadConfig for two models of the same name."""
        make, device = editor_factory(factory), worker_device(device, index, workers)
        editors = [make(name, device, **(options or {})) for name in (model, *more_models)]
        self.editors = {editor.model.name: editor for editor in editors}
        if len(self.editors) < len(editors):
            raise BadConfig(f"models must have distinct names, got {', '.join((model, *more_models))}")
        self.editor = editors[0]
        for editor in editors:
            if hasattr(editor, "use_loras"):
                editor.use_loras(loras or LoraAccess(paths=False))
        self._flags: dict[str, threading.Event] = {}
        self._watched: set[str] = set()

    @property
    def model_info(self) -> ModelInfo:
        """Of the default model, with the others."""
        first, *others = map(self._info, self.editors.values())
        return replace(first, others=tuple(others))

    @staticmethod
    def _info(editor: Any) -> ModelInfo:
        model = editor.model
        preset = model.preset
        sampling = preset.sampling
        tokenizer = getattr(model, "tokenizer", None)
        return ModelInfo(
            name=model.name,
            fingerprint=getattr(editor, "fingerprint", model.fingerprint),
            description=getattr(preset, "description", ""),
            sizes=tuple(tuple(size) for size in preset.sizes),
            steps=sampling.steps,
            guidance=sampling.guidance,
            warnings=tuple(model.warnings),
            prompt_tokens=preset.text_length if tokenizer else None,
            tokenizer=tokenizer.to_str() if tokenizer else None,
            skills=asdict(model.skills) if getattr(model, "skills", None) else None,
            embeds_guidance=getattr(getattr(preset, "transformer", None), "guidance_embed", None),
        )

    def run(self, payloads: Sequence[JobPayload], on_progress: OnProgress) -> list[Result | Failure]:
        """Results or failures in the order of the payloads; one bad request does not affect the others."""
        self._flags = {payload.id: threading.Event() for payload in payloads}
        self._watched |= {payload.id for payload in payloads if payload.watched}
        try:
            return list(self._edit(payloads, on_progress))
        except Cancelled as error:
            return [Failure(str(error) or "cancelled", cancelled=True) for _ in payloads]
        except DeviceUnavailable as error:
            # A failed GPU stays unusable in this process; the service starts a new worker and retries.
            log.error("%s", error)
            raise SystemExit(1) from error
        except Exception as error:
            if len(payloads) > 1:
                return [self.run([payload], on_progress)[0] for payload in payloads]
            return [_explained(error)]

    def _edit(self, payloads: Sequence[JobPayload], on_progress: OnProgress) -> list[Result]:
        def on_step(info: StepInfo) -> None:
            for place, payload in enumerate(payloads[index] for index in info.indices):
                preview = _jpeg(info.preview(place)) if payload.id in self._watched else None
                on_progress(payload.id, info.index, info.steps, preview)

        requests = [payload.edit_request() for payload in payloads]
        results = self._editor(payloads[0].request.model).edit_batch(requests, on_step=on_step, cancel=self)
        return [replace(result, source=None) for result in results]  # the service has it: not sent back

    def _editor(self, model: str | None) -> Any:
        """The editor of a batch, whose jobs are all of one model. Raises BadRequest."""
        if model is None:
            return self.editor
        if model not in self.editors:
            raise not_served(model, self.editors)
        return self.editors[model]

    def is_set(self) -> bool:
        """The editor's cancel flag: set when all jobs of the batch are cancelled."""
        flags = list(self._flags.values())
        return bool(flags) and all(flag.is_set() for flag in flags)

    def cancel(self, job_id: str) -> None:
        if job_id in self._flags:
            self._flags[job_id].set()

    def watch(self, job_id: str) -> None:
        """Send previews of a job from now on."""
        if job_id in self._flags:
            self._watched.add(job_id)

    def prefill(self, picture: bytes) -> float:
        """Precompute the context of a picture; returns the seconds it took."""
        start = time.perf_counter()
        self.editor.prefill(picture)
        return time.perf_counter() - start


def _explained(error: Exception) -> Failure:
    if isinstance(error, KontextError):
        return Failure(str(error))
    log.error("the editor failed", exc_info=error)
    if isinstance(error, MemoryError):
        return Failure("out of memory; try a smaller picture or fewer variants")
    return Failure(f"the editor failed ({type(error).__name__}); see the server's log")


def _jpeg(preview: Any) -> bytes:
    """Encode a preview as JPEG, enlarged smoothly to avoid large pixels in the page."""
    scale = min(PREVIEW_ENLARGED, PREVIEW_SIDE / max(preview.size))
    size = tuple(max(1, round(scale * side)) for side in preview.size)
    preview = preview.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    preview.save(file, "JPEG", quality=80)
    return file.getvalue()


def serve(
    connection: Connection,
    factory: str,
    model: str,
    device: str | None,
    index: int = 0,
    workers: int = 1,
    options: Mapping[str, Any] | None = None,
    more_models: Sequence[str] = (),
    loras: LoraAccess | None = None,
) -> None:
    """Handle messages until the service disconnects."""
    inbox: queue.Queue[tuple] = queue.Queue()
    host: list[ModelHost] = []

    def receive() -> None:
        try:
            while True:
                message = connection.recv()
                if message[0] in ("cancel", "watch"):
                    for model_host in host:
                        getattr(model_host, message[0])(message[1])
                else:
                    inbox.put(message)
        except (EOFError, OSError):
            os._exit(0)  # the service has exited, so the batch is obsolete

    sending = threading.Lock()

    def send(*message: Any) -> None:
        with sending:
            connection.send(message)

    threading.Thread(target=receive, daemon=True).start()
    try:
        host.append(ModelHost(factory, model, device, index, workers, options, more_models, loras))
    except Exception as error:
        send("failed", _explained(error).message)
        raise SystemExit(1) from error
    send("ready", host[0].model_info)
    while True:
        kind, *content = inbox.get()
        if kind == "run":
            send("results", host[0].run(content[0], lambda *step: send("step", *step)))
        elif kind == "prefill":
            try:
                send("prefilled", host[0].prefill(content[0]))
            except Exception as error:
                send("prefilled", _explained(error))


def main() -> None:
    """Entry point.

    Arguments: socket number, editor, model, device, index, workers, options (JSON), LoRAs, further models;
    see `launch`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the service, which stops this process
    if hasattr(os, "nice"):
        os.nice(POLITE)
    handler = log_handler("%(asctime)s worker %(levelname)s %(message)s")
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    socket, editor, model, device, index, workers, options, loras, *more_models = sys.argv[1:]
    serve(
        Connection(int(socket)),
        editor,
        model,
        device or None,
        int(index),
        int(workers),
        json.loads(options),
        more_models,
        LoraAccess.from_text(loras),
    )
