"""The FastAPI application: the service, its routes, middleware, and the playground at `/`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from kontext.server.auth.keys import Keys, Rates
from kontext.server.auth.logins import Logins
from kontext.server.http import answers
from kontext.server.http.addresses import Addresses
from kontext.server.http.bodies import Bodies
from kontext.server.http.inputs import Inputs
from kontext.server.http.limits import RequestGuard
from kontext.server.http.pages import Playground
from kontext.server.routes import about, bfl, edits, events, huggingface, openai, pictures, sessions
from kontext.server.service.metrics import Metrics
from kontext.server.service.service import Service
from kontext.server.settings import Settings
from kontext.version import __version__

log = logging.getLogger(__name__)

PLAYGROUND = Path(__file__).parents[1] / "playground"


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """Create the application; pass `service` if it already exists, so that workers load meanwhile."""
    settings = settings or Settings()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = found = service or Service(settings)
        app.state.keys, app.state.rates = Keys(found.store), Rates()
        app.state.logins = Logins(app.state.keys)
        app.state.inputs, app.state.metrics = Inputs(found), metrics
        await found.start()
        nothing = {"type": "http", "method": "GET", "path": "/nowhere", "root_path": "", "headers": []}
        for route in app.routes:  # FastAPI initializes a route on first use: do it now, while the model loads
            route.matches(nothing)
        try:
            yield
        finally:
            await found.stop()

    routers = (bfl, edits, events, sessions, pictures, openai, huggingface, about)  # the most used ones first
    app = FastAPI(
        title="Kontext",
        version=__version__,
        summary="Say what to change in a picture; only that changes.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        servers=[{"url": settings.public_base}] if settings.public_base else None,
    )
    answers.install(app)
    known = Addresses(route for module in routers for route in module.router.routes)
    for module in routers:
        app.include_router(module.router)
    app.mount("/", Playground(PLAYGROUND, known, settings.base_path))
    app.add_middleware(Bodies, limit_bytes=settings.bodies_bytes)
    app.add_middleware(RequestGuard, settings=settings, metrics=metrics)
    return app
