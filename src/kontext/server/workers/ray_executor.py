"""Workers as Ray actors on one or more machines: Ray places them and detects failures.

The queue stays in the service, which assigns the next batch to an idle actor; positions, cancellation, fair
scheduling and retries work as with local processes. Connects to the cluster of RAY_ADDRESS, or starts one
on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from kontext.engine.requests import Result
from kontext.loras import LoraAccess
from kontext.server.errors import CannotLoad, WorkerDied
from kontext.server.settings import Settings
from kontext.server.workers.worker import Failure, JobPayload, ModelHost, ModelInfo, OnProgress

log = logging.getLogger(__name__)


_connecting = threading.Lock()


class ModelHostActor:
    """A `ModelHost` in a Ray actor; a batch is a stream of steps that ends with its results."""

    def __init__(
        self,
        factory: str,
        model: str,
        device: str | None,
        options: Mapping[str, Any],
        more_models: Sequence[str],
        loras: LoraAccess,
    ) -> None:
        self.host = ModelHost(factory, model, device, options=options, more_models=more_models, loras=loras)
        self._working = threading.Lock()

    def model_info(self) -> ModelInfo:
        return self.host.model_info

    def run(self, payloads: Sequence[JobPayload]) -> Iterator[tuple]:
        messages: queue.Queue[tuple] = queue.Queue()

        def work() -> None:
            with self._working:
                results = self.host.run(payloads, lambda *step: messages.put(("step", *step)))
            messages.put(("results", results))

        threading.Thread(target=work).start()
        while True:
            message = messages.get()
            yield message
            if message[0] == "results":
                return

    def prefill(self, picture: bytes) -> float | Failure:
        with self._working:
            return self.host.prefill(picture)

    def cancel(self, job_id: str) -> None:
        self.host.cancel(job_id)

    def watch(self, job_id: str) -> None:
        self.host.watch(job_id)


class RayWorker:
    """A `Worker` placed by Ray."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.alive = settings, False
        self._actor: Any = None

    async def start(self) -> ModelInfo:
        await self.kill()
        try:
            await asyncio.to_thread(connect)
            needs: dict[str, Any] = {"num_gpus": 1} if self.settings.device == "cuda" else {"num_cpus": 1}
            actor = ray.remote(ModelHostActor).options(max_restarts=0, max_concurrency=4, **needs)
            settings = self.settings
            self._actor = actor.remote(
                settings.editor,
                settings.model,
                settings.device,
                settings.editor_options,
                settings.more_models,
                settings.loras,
            )
            model_info = await self._actor.model_info.remote()
        except RayActorError as error:
            cause = str(getattr(error, "cause", None) or error)
            raise (CannotLoad if "creation task" in cause or "__init__" in cause else WorkerDied)(
                last_line(cause)
            ) from None
        except RayError as error:
            raise WorkerDied(last_line(str(error))) from None
        self.alive = True
        return model_info

    async def run(self, payloads: Sequence[JobPayload], on_progress: OnProgress) -> list[Result | Failure]:
        try:
            stream = self._actor.run.options(num_returns="streaming").remote(list(payloads))
            async for reference in stream:
                kind, *values = await reference
                if kind == "results":
                    return values[0]
                on_progress(*values)
        except RayTaskError as error:
            return [Failure(f"the editor failed ({last_line(str(error))})") for _ in payloads]
        except RayError as error:
            self.alive = False
            raise WorkerDied(last_line(str(error))) from None
        self.alive = False
        raise WorkerDied("the actor ended without results")

    async def prefill(self, picture: bytes) -> float | Failure:
        try:
            return await self._actor.prefill.remote(picture)
        except RayTaskError as error:
            return Failure(last_line(str(error)))
        except RayError as error:
            self.alive = False
            raise WorkerDied(last_line(str(error))) from None

    def cancel(self, job_id: str) -> None:
        if self.alive:
            self._actor.cancel.remote(job_id)

    def watch(self, job_id: str) -> None:
        if self.alive:
            self._actor.watch.remote(job_id)

    async def kill(self) -> None:
        actor, self._actor, self.alive = self._actor, None, False
        if actor is not None:
            await asyncio.to_thread(ray.kill, actor)


def connect() -> None:
    """Connect to the cluster once per process. Raises CannotLoad."""
    with _connecting:
        if ray.is_initialized():
            return
        joined: Future[None] = Future()
        threading.Thread(target=_hold, args=(joined,), daemon=True).start()
        try:
            joined.result()
        except Exception as error:  # Ray raises plain exceptions when its services do not start
            raise CannotLoad(f"cannot connect to or start a Ray cluster: {last_line(str(error))}") from None


def _hold(joined: Future[None]) -> None:
    """Initialize Ray in a thread that never ends, since a local cluster stops with its starting thread."""
    try:
        ray.init(logging_level=logging.WARNING, include_dashboard=False, log_to_driver=False)
    except Exception as error:
        joined.set_exception(error)
        return
    joined.set_result(None)
    threading.Event().wait()


def last_line(text: str) -> str:
    """The last line of a Ray error, which has the cause."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"
