"""What every request passes before a route sees it: host, origin, size and pace of the body; and what every
answer gets.

Plain ASGI, so that streams pass through untouched.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kontext.server.answers import answer
from kontext.server.metrics import Figures
from kontext.server.settings import Settings

SAFE = ("GET", "HEAD", "OPTIONS")
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
PROBES = ("/healthz", "/readyz")  # asked for by the address of a container, whatever its public name


class Gate:
    """Refuses foreign hosts and pages, bodies that are too large or too slow; counts; sets safe headers."""

    def __init__(self, app: ASGIApp, settings: Settings, figures: Figures) -> None:
        self.app, self.settings, self.figures = app, settings, figures
        self.too_large = f"the body is larger than {settings.body_bytes // 2**20} MiB"
        self.hosts = set(settings.allowed_hosts)
        if settings.public_url:
            self.hosts.add(urlsplit(settings.public_url).hostname or "")
        if settings.loopback:
            self.hosts |= LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("referrer-policy", "no-referrer")
                headers.setdefault("x-frame-options", "DENY")
                # Signed samples may be shown anywhere; the rest tells no other page even that it is there.
                sample = scope["path"].startswith("/v1/samples/")
                headers.setdefault(
                    "cross-origin-resource-policy", "cross-origin" if sample else "same-origin"
                )
                if "content-security-policy" not in headers:
                    headers["content-security-policy"] = "default-src 'none'; frame-ancestors 'none'"
                route = getattr(scope.get("route"), "path", "other")
                self.figures.add(scope["method"], route, status, time.perf_counter() - started)
            await send(message)

        if refusal := self._refusal(scope):
            await refusal(scope, receive, answered)
            return
        seen, whole = 0, False

        async def received() -> Message:
            nonlocal seen, whole
            try:
                async with asyncio.timeout(None if whole else self.settings.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body came too slowly; send it again") from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)  # from now on this waits for the client to leave
            if seen > self.settings.body_bytes:
                raise HTTPException(413, self.too_large)
            return message

        await self.app(scope, received, answered)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        probed = scope["path"] in PROBES and not self.settings.loopback
        if (self.settings.loopback or self.settings.allowed_hosts) and not probed:
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if name.lower() not in self.hosts:
                return answer(421, "this server does not answer to that name; see --allow-host", "forbidden")
        if scope["method"] not in SAFE:
            origin = headers.get("origin")
            own = {host, urlsplit(self.settings.public_url).netloc} if self.settings.public_url else {host}
            if (origin is not None and urlsplit(origin).netloc not in own) or headers.get(
                "sec-fetch-site"
            ) == "cross-site":
                return answer(
                    403, "a page of another site asked; only this server's own pages may", "forbidden"
                )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return answer(400, "the header Content-Length is no number", "bad_request")
        if int(length) > self.settings.body_bytes:
            return answer(413, self.too_large, "too_large")
        return None
