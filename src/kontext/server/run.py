"""Runs the service: logging, socket, uvicorn, graceful shutdown."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType

import uvicorn

from kontext.errors import BadConfig
from kontext.server.app import create_app
from kontext.server.auth.keys import Keys
from kontext.server.http.connections import (
    ACCEPTED_AT_ONCE,
    Connection,
    Connections,
    bounds_of,
    raise_file_limit,
)
from kontext.server.http.logs import JsonLines, Throttle
from kontext.server.service.service import Service
from kontext.server.settings import Settings
from kontext.server.workers.launch import Launched
from kontext.terminal import log_handler

log = logging.getLogger(__name__)

WAITING_CONNECTIONS = 2048  # backlog of the listening socket


class Server(uvicorn.Server):
    """uvicorn server that ends event streams at the first signal and aborts at the second."""

    def __init__(self, config: uvicorn.Config, service: Service, connections: Connections) -> None:
        super().__init__(config)
        self.service, self.connections = service, connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(WAITING_CONNECTIONS)  # asyncio has reduced the backlog to its accept batch
        self._sweep = asyncio.create_task(self.connections.sweep())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._sweep.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        self.service.begin_stop()
        super().handle_exit(number, frame)


def run(
    settings: Settings,
    *,
    launched: Sequence[Launched] = (),
    open_page: bool = False,
    echo: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM, with workers `launched` in advance. Raises BadConfig."""
    handler = log_handler("%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.log_format == "json":
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[Throttle(handler)])
    warnings.filterwarnings("ignore", module="PIL")  # Pillow's warnings about unusual files are noise

    sys.setswitchinterval(0.0005)  # lets the event loop preempt threads that encode results

    connections = Connections(bounds_of(settings, raise_file_limit()))
    listener = _listen(settings)
    port = listener.getsockname()[1]
    service = Service(settings, launched)
    if settings.keys_needed and not Keys(service.store).all():
        echo("this address requires API keys, but there are none: create one with `kontext keys create NAME`")
    config = uvicorn.Config(
        create_app(settings, service),
        http=partial(Connection, table=connections),  # type: ignore[arg-type]
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # public_url replaces proxy headers
        timeout_keep_alive=75,  # longer than proxies keep idle connections
        timeout_graceful_shutdown=max(1, int(settings.grace_seconds)),
        h11_max_incomplete_event_size=65536,
    )
    shown = "localhost" if settings.loopback or settings.host in ("0.0.0.0", "::") else settings.host
    url = settings.public_url or f"http://{shown}:{port}"
    threading.Thread(target=_announce, args=(service, url, open_page, echo), daemon=True).start()
    server = Server(config, service, connections)
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=[listener])
    if not server.started:
        raise BadConfig("the service could not be started; see its log")


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only for an explicit IPPROTO_TCP; otherwise responses are delayed by 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(WAITING_CONNECTIONS)
    except OSError as error:
        listener.close()
        words = f"{settings.host} port {settings.port} is not available ({error.strerror})"
        raise BadConfig(f"{words}; choose another with --port") from None
    return listener


def _announce(service: Service, url: str, open_page: bool, echo: Callable[[str], None]) -> None:
    """Print the URL when the service is ready, or why the model cannot be loaded."""
    started = time.monotonic()
    while not service.ready and not service.scheduler.load_error and not service.stopping:
        time.sleep(0.02)
    if service.scheduler.load_error:
        echo(f"the model cannot be loaded: {service.scheduler.load_error}")
    elif service.ready and service.model_info:
        seconds = time.monotonic() - started
        echo(f"Kontext is ready at {url}  ({service.model_info.name}, {seconds:.1f} s; Ctrl-C stops)")
        if open_page:
            import webbrowser

            webbrowser.open(url)
