"""What runs beside the service: an editor that takes batches of work and tells of every step.

`Station` is the inside, the same under every executor. `main` is a local worker process: it talks over one
socket with the service that started it, and ends when that service does.
"""

from __future__ import annotations

import io
import logging
import os
import queue
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from PIL import Image

from kontext.engine.requests import EditRequest, Result
from kontext.errors import Cancelled, DeviceUnavailable, KontextError
from kontext.terminal import log_handler

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

POLITE = 10
"""Niceness of a worker: on shared processors a request is taken before the next step."""
PREVIEW_SIDE = 256  # longest side of a preview, in pixels
PREVIEW_ENLARGED = 8  # times: a preview has one pixel for each of the autoencoder's


@dataclass(frozen=True)
class Work:
    """A job as a worker gets it. `pictures`: encoded files by role (picture, references, mask, markup)."""

    id: str
    request: Mapping[str, Any]
    pictures: Mapping[str, Sequence[bytes]]
    watched: bool = False
    """Whether anybody wants to see previews."""

    def edit_request(self) -> EditRequest:
        one: dict[str, Any] = {
            role: given[0] for role, given in self.pictures.items() if given and role != "references"
        }
        return EditRequest(
            **self.request["edit"], **one, references=tuple(self.pictures.get("references", ()))
        )


@dataclass(frozen=True)
class Failure:
    """Why a job has no result; `message` is for the person who asked."""

    message: str
    cancelled: bool = False


@dataclass(frozen=True)
class Card:
    """The loaded model, as the service shows it."""

    name: str
    fingerprint: str
    description: str
    sizes: tuple[tuple[int, int], ...]
    steps: int
    guidance: float
    warnings: tuple[str, ...]
    prompt_tokens: int | None = None
    """The longest prompt that the model reads, as `tokenizer` (JSON of the tokenizers library) counts it."""
    tokenizer: str | None = None
    skills: Mapping[str, Any] | None = None
    """Prompts that are known to work: `kontext.checkpoint.skills.Skills` as plain data, so that the service
    does not import it (and torch).
    """

    def check_prompt(self, prompt: str) -> None:
        """Raises BadRequest for a prompt that is longer than the model reads."""
        if self._tokenizer is not None and self.prompt_tokens is not None:
            from kontext.engine.prompt_length import check_length

            check_length(self._tokenizer, prompt, self.prompt_tokens, self.name)

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.tokenizer) if self.tokenizer else None


Tell = Callable[[str, int, int, bytes | None], None]  # job id, step, steps, preview as JPEG


def load_editor(model: str, device: str | None) -> Any:
    """The editor that `kontext` itself uses."""
    from kontext.engine import Editor

    return Editor.load(model, device=device)


def editor_factory(name: str) -> Callable[[str, str | None], Any]:
    """ "module:function" or "file.py:function"; from the operator, never from a request."""
    place, _, function = name.rpartition(":")
    return (
        runpy.run_path(place)[function] if place.endswith(".py") else getattr(import_module(place), function)
    )


def worker_device(device: str | None, index: int, workers: int) -> str | None:
    """The device of worker `index` (from 0) of `workers` on this machine: of several GPUs each gets its own.

    Workers that share a GPU each hold a copy of the model there; the log says so.
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
            "worker %d shares %s with worker %d: %d workers, and GPUs to use: %d; each worker holds a copy "
            "of the model there, so start with --workers %d unless it is small",
            *(index, own, index % len(gpus), workers, len(gpus), len(gpus)),
        )
    return own


class Station:
    """An editor and the batch on it, as worker `index` (from 0) of `workers` on this machine."""

    def __init__(
        self, factory: str, model: str, device: str | None, index: int = 0, workers: int = 1
    ) -> None:
        make = editor_factory(factory)
        self.editor = make(model, worker_device(device, index, workers))
        self._flags: dict[str, threading.Event] = {}
        self._watched: set[str] = set()

    @property
    def card(self) -> Card:
        model = self.editor.model
        preset = model.preset
        sampling = preset.sampling
        tokenizer = getattr(model, "tokenizer", None)
        return Card(
            name=model.name,
            fingerprint=model.fingerprint,
            description=getattr(preset, "description", ""),
            sizes=tuple(tuple(size) for size in preset.sizes),
            steps=sampling.steps,
            guidance=sampling.guidance,
            warnings=tuple(model.warnings),
            prompt_tokens=preset.text_length if tokenizer else None,
            tokenizer=tokenizer.to_str() if tokenizer else None,
            skills=asdict(model.skills) if getattr(model, "skills", None) else None,
        )

    def run(self, works: Sequence[Work], tell: Tell) -> list[Result | Failure]:
        """Results or failures in the order of the works. One bad request does not harm the others."""
        self._flags = {work.id: threading.Event() for work in works}
        self._watched |= {work.id for work in works if work.watched}
        try:
            return list(self._edit(works, tell))
        except Cancelled as error:
            return [Failure(str(error) or "cancelled", cancelled=True) for _ in works]
        except DeviceUnavailable as error:
            # A GPU that failed stays unusable in this process; the service starts another and tries again.
            log.error("%s", error)
            raise SystemExit(1) from error
        except Exception as error:
            if len(works) > 1:
                return [self.run([work], tell)[0] for work in works]
            return [_explained(error)]

    def _edit(self, works: Sequence[Work], tell: Tell) -> list[Result]:
        def on_step(info: Any) -> None:
            for place, work in enumerate(works):
                preview = _jpeg(info.preview(place)) if work.id in self._watched else None
                tell(work.id, info.index, info.steps, preview)

        requests = [work.edit_request() for work in works]
        results = self.editor.edit_batch(requests, on_step=on_step, cancel=self)
        return [replace(result, source=None) for result in results]  # the service has it: not sent back

    def is_set(self) -> bool:
        """The editor's cancel flag: nobody waits for this batch any more."""
        flags = list(self._flags.values())
        return bool(flags) and all(flag.is_set() for flag in flags)

    def cancel(self, job_id: str) -> None:
        if job_id in self._flags:
            self._flags[job_id].set()

    def watch(self, job_id: str) -> None:
        """Make previews of a job from now on."""
        if job_id in self._flags:
            self._watched.add(job_id)

    def prefill(self, picture: bytes) -> float:
        """Seconds that it took to compute what every edit of this picture needs."""
        start = time.perf_counter()
        self.editor.prefill(picture)
        return time.perf_counter() - start


def _explained(error: Exception) -> Failure:
    if isinstance(error, KontextError):
        return Failure(str(error))
    log.error("the editor failed", exc_info=error)
    if isinstance(error, MemoryError):
        return Failure("out of memory; try a smaller picture or fewer variants")
    return Failure(f"the editor failed ({type(error).__name__}); the server's log says more")


def _jpeg(preview: Any) -> bytes:
    """Enlarged smoothly here, where it costs least: a page would blur large pixels all over the window."""
    scale = min(PREVIEW_ENLARGED, PREVIEW_SIDE / max(preview.size))
    size = tuple(max(1, round(scale * side)) for side in preview.size)
    preview = preview.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    preview.save(file, "JPEG", quality=80)
    return file.getvalue()


def serve(
    connection: Connection, factory: str, model: str, device: str | None, index: int = 0, workers: int = 1
) -> None:
    """Answer messages until the other side is gone."""
    inbox: queue.Queue[tuple] = queue.Queue()
    station: list[Station] = []

    def listen() -> None:
        try:
            while True:
                message = connection.recv()
                if message[0] in ("cancel", "watch"):
                    for one in station:
                        getattr(one, message[0])(message[1])
                else:
                    inbox.put(message)
        except (EOFError, OSError):
            os._exit(0)  # the service is gone: nobody wants the rest of this batch

    sending = threading.Lock()

    def send(*message: Any) -> None:
        with sending:
            connection.send(message)

    threading.Thread(target=listen, daemon=True).start()
    try:
        station.append(Station(factory, model, device, index, workers))
    except Exception as error:
        send("failed", _explained(error).message)
        raise SystemExit(1) from error
    send("ready", station[0].card)
    while True:
        kind, *given = inbox.get()
        if kind == "run":
            send("results", station[0].run(given[0], lambda *told: send("step", *told)))
        elif kind == "prefill":
            try:
                send("prefilled", station[0].prefill(given[0]))
            except Exception as error:
                send("prefilled", _explained(error))


def main() -> None:
    """Arguments: number of the socket, editor, model, device, index and number of workers; see `launch`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the service, which ends this process
    if hasattr(os, "nice"):
        os.nice(POLITE)
    handler = log_handler("%(asctime)s worker %(levelname)s %(message)s")
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    socket, editor, model, device, index, workers = sys.argv[1:7]
    serve(Connection(int(socket)), editor, model, device or None, int(index), int(workers))
