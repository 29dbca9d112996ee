"""The FastAPI application: the service, its routes, the playground at `/`, and what every answer carries."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

import kontext
from kontext import __version__
from kontext.server import answers
from kontext.server.inputs import Inputs
from kontext.server.keys import Keys, Rates
from kontext.server.limits import Gate
from kontext.server.metrics import Figures
from kontext.server.routes import about, bfl, edits, events, huggingface, openai, pictures, sessions
from kontext.server.service import Service
from kontext.server.settings import Settings

log = logging.getLogger(__name__)

PLAYGROUND = Path(kontext.__file__).parent / "playground"


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """An application of its own; `service` when it was made before (so that workers load meanwhile)."""
    settings = settings or Settings()
    figures = Figures()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = found = service or Service(settings)
        app.state.keys, app.state.rates = Keys(found.store), Rates()
        app.state.inputs, app.state.figures = Inputs(found), figures
        await found.start()
        try:
            yield
        finally:
            await found.stop()

    app = FastAPI(
        title="Kontext",
        version=__version__,
        summary="Say what to change in a picture; only that changes.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
    )
    answers.install(app)
    for routes in (bfl, edits, events, sessions, pictures, openai, huggingface, about):  # the busy ones first
        app.include_router(routes.router)
    app.mount("/", GZipMiddleware(Playground(PLAYGROUND), minimum_size=500))
    app.add_middleware(Gate, settings=settings, figures=figures)
    return app


class Playground:
    """The static files of the playground with a strict policy: scripts, styles and requests of this server
    only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = StaticFiles(directory=folder, html=True, check_dir=False)
        self.policy = policy(folder / "index.html")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answered(message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (b"content-security-policy", self.policy.encode()),
                    (b"cache-control", b"no-cache"),
                ]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        if scope["path"] == "/" and not (self.folder / "index.html").is_file():
            words = "<!doctype html><title>Kontext</title><p>The service runs, without a playground.</p>"
            await HTMLResponse(words)(scope, receive, answered)
            return
        await self.files(scope, receive, answered)


def policy(page: Path) -> str:
    """The content security policy; inline import maps are allowed by their hash alone."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    maps = re.findall(r"<script[^>]*type=[\"']importmap[\"'][^>]*>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() for inline in maps]
    scripts = " ".join(["'self'", *(f"'sha256-{one}'" for one in hashes)])
    rules = {
        "default-src": "'none'",
        "script-src": scripts,
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "font-src": "'self'",
        "connect-src": "'self' data: blob:",
        "manifest-src": "'self'",
        "media-src": "'self' blob:",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
