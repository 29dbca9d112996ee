"""Executors of batches. `Worker` is the interface; `LocalWorker` is a process on this machine.

A worker runs one batch at a time. When it dies, `run` raises WorkerDied and `start` launches a new one.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

from kontext.engine.requests import Result
from kontext.errors import BadConfig
from kontext.server.errors import CannotLoad, WorkerDied
from kontext.server.settings import Settings
from kontext.server.workers.launch import Launched, launch
from kontext.server.workers.worker import Failure, JobPayload, ModelInfo, OnProgress

log = logging.getLogger(__name__)


class Worker(Protocol):
    """Runs batches; all methods are called on the event loop."""

    alive: bool

    async def start(self) -> ModelInfo:
        """Load the model, also after the worker died. Raises WorkerDied, CannotLoad."""

    async def run(self, payloads: Sequence[JobPayload], on_progress: OnProgress) -> list[Result | Failure]:
        """Run one batch; results in the order of the payloads. Raises WorkerDied."""

    async def prefill(self, picture: bytes) -> float | Failure:
        """Precompute the context of a picture; returns the seconds it took. Raises WorkerDied."""

    def cancel(self, job_id: str) -> None: ...

    def watch(self, job_id: str) -> None:
        """Send previews of this job from now on."""

    async def kill(self) -> None:
        """Kill the worker immediately."""


class LocalWorker:
    """A `kontext.server.workers.worker` process, connected by a socket."""

    def __init__(self, settings: Settings, launched: Launched | None = None, index: int = 0) -> None:
        self.settings, self._launched, self._index = settings, launched, index
        self.process: subprocess.Popen | None = None
        self._waiting: dict[str, asyncio.Future] = {}
        self.alive = False
        self._on_progress: OnProgress | None = None
        self._sending = threading.Lock()
        self._prefilling = asyncio.Lock()

    async def start(self) -> ModelInfo:
        launched, self._launched = self._launched, None
        if launched is None:
            await self.kill()
            settings = self.settings
            launched = launch(
                settings.editor,
                settings.model,
                settings.device,
                settings.workers,
                self._index,
                settings.editor_options,
                settings.more_models,
                settings.loras,
            )
        self.process = launched.process
        self._connection = Connection(launched.socket.detach())
        loop = asyncio.get_running_loop()
        self.alive = True
        ready = self._await_reply("ready")
        threading.Thread(target=self._listen, args=(self._connection, loop), daemon=True).start()
        return await ready

    async def run(self, payloads: Sequence[JobPayload], on_progress: OnProgress) -> list[Result | Failure]:
        self._on_progress = on_progress
        results = self._await_reply("results")
        await self._send("run", list(payloads))
        return await results

    async def prefill(self, picture: bytes) -> float | Failure:
        async with self._prefilling:  # replies have no id, so only one request may be pending
            seconds = self._await_reply("prefilled")
            await self._send("prefill", picture)
            return await seconds

    def cancel(self, job_id: str) -> None:
        asyncio.ensure_future(self._send("cancel", job_id))

    def watch(self, job_id: str) -> None:
        asyncio.ensure_future(self._send("watch", job_id))

    async def kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    def _await_reply(self, kind: str) -> asyncio.Future:
        if not self.alive:
            raise WorkerDied("the worker process is not running")
        self._waiting[kind] = future = asyncio.get_running_loop().create_future()
        return future

    async def _send(self, *message: Any) -> None:
        def send() -> None:
            with self._sending:
                self._connection.send(message)

        try:
            await asyncio.to_thread(send)
        except (OSError, ValueError):
            pass  # the worker died; the listener thread fails the pending replies

    def _listen(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Receive messages in a separate thread until the process exits."""
        try:
            while True:
                loop.call_soon_threadsafe(self._on_message, connection.recv())
        except (EOFError, OSError, RuntimeError):
            pass
        finally:
            connection.close()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._on_worker_exit, connection)

    def _on_message(self, message: tuple) -> None:
        kind, *content = message
        if kind == "step":
            if self._on_progress is not None:
                self._on_progress(*content)
        elif kind == "failed":
            self._answer("ready", CannotLoad(content[0]))
        else:
            self._answer(kind, content[0])

    def _answer(self, kind: str, answer: Any) -> None:
        future = self._waiting.pop(kind, None)
        if future is not None and not future.done():
            future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)

    def _on_worker_exit(self, connection: Connection) -> None:
        if connection is self._connection:
            self.alive = False
            for kind in list(self._waiting):
                self._answer(kind, WorkerDied("the worker process died"))


def make_workers(settings: Settings, launched: Sequence[Launched] = ()) -> list[Worker]:
    """Create the configured workers; `launched` are processes that were started in advance."""
    if settings.executor == "ray":
        try:
            from kontext.server.workers.ray_executor import RayWorker
        except ImportError:
            raise BadConfig("--executor ray needs the ray extra: pip install 'openkontext[ray]'") from None

        return [RayWorker(settings) for _ in range(settings.workers)]
    ahead = [*launched, *[None] * (settings.workers - len(launched))]
    return [LocalWorker(settings, launched_worker, index) for index, launched_worker in enumerate(ahead)]
