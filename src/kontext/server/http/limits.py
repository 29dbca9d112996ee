"""Checks of every request and security headers of every response.

Host, origin, body size and speed are checked. A proxy path (`public_url`) is removed here.

Plain ASGI middleware, so that streams pass through unchanged.
"""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import SplitResult, unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kontext.server.http.answers import answer
from kontext.server.service.metrics import Metrics
from kontext.server.settings import Settings

SAFE = ("GET", "HEAD", "OPTIONS")
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
LENGTH_DIGITS = 20  # maximum digits of a Content-Length
PROBES = ("/healthz", "/readyz")  # probed by container address, whatever the public name


class RequestGuard:
    """Rejects foreign hosts, foreign origins and oversized or slow bodies; records metrics; sets headers."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.too_large = f"the body is larger than {settings.body_bytes // 2**20} MiB"
        self.hosts = set(settings.allowed_hosts)
        self.base_path = settings.base_path
        public = _parsed(settings.public_url) if settings.public_url else None
        self.public_site = _site(public) if public else None
        if public:
            self.hosts.add(public.hostname or "")
        if settings.loopback:
            self.hosts |= LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        scope, whole_path = _without_base(scope, self.base_path), scope["path"]
        head = scope["method"] == "HEAD" and not scope["path"].endswith("/events")  # streams do not end
        if head:  # as GET, without the body (RFC 9110, section 9.3.2)
            scope = {**scope, "method": "GET"}

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("referrer-policy", "no-referrer")
                headers.setdefault("x-frame-options", "DENY")
                # Signed samples may be embedded anywhere; everything else is same-origin only.
                sample = scope["path"].startswith("/v1/samples/")
                headers.setdefault(
                    "cross-origin-resource-policy", "cross-origin" if sample else "same-origin"
                )
                if "content-security-policy" not in headers:
                    headers["content-security-policy"] = "default-src 'none'; frame-ancestors 'none'"
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.add(scope["method"], route, status, time.perf_counter() - started)
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        refusal = self._refusal(scope)
        if not refusal and self.base_path and whole_path == unquote(self.base_path):
            # Relative URLs of the page need a path that ends with a slash.
            query = scope.get("query_string", b"").decode("latin-1")
            refusal = RedirectResponse(f"{self.base_path}/{'?' if query else ''}{query}", 308)
        if refusal:
            await refusal(scope, receive, answered)
            return
        received_bytes, complete = 0, False

        async def received() -> Message:
            nonlocal received_bytes, complete
            try:
                async with asyncio.timeout(None if complete else self.settings.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body arrived too slowly; send it again") from None
            received_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)  # further calls wait for the client to disconnect
            if received_bytes > self.settings.body_bytes:
                raise HTTPException(413, self.too_large)
            return message

        await self.app(scope, received, answered)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host and not (HOST.fullmatch(host) and _parsed(f"//{host}")):
            return answer(400, "the Host header is malformed", "bad_request")
        probed = scope["path"] in PROBES and not self.settings.loopback
        if (self.settings.loopback or self.settings.allowed_hosts) and not probed:
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if name.lower() not in self.hosts:
                return answer(421, "this server does not serve that host name; see --allow-host", "forbidden")
        if scope["method"] not in SAFE:
            origin = headers.get("origin")
            cross_origin = origin is not None and not self._is_own(origin, host)
            if cross_origin or headers.get("sec-fetch-site") == "cross-site":
                return answer(403, "requests from pages of other sites are not allowed", "forbidden")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return answer(400, "the Content-Length header must be a number of bytes", "bad_request")
        if len(length) > LENGTH_DIGITS or int(length) > self.settings.body_bytes:
            return answer(413, self.too_large, "too_large")
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether an Origin header belongs to this server; malformed values do not."""
        parts = _parsed(origin)
        if parts is None or parts.scheme not in ("http", "https"):
            return False
        return parts.netloc == host or _site(parts) == self.public_site


def _parsed(url: str) -> SplitResult | None:
    """The parts of a URL; None if the host or port is malformed."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises for an invalid port
    except ValueError:
        return None
    return parts if parts.hostname else None


def _site(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """The origin of a URL: scheme, host and port."""
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _without_base(scope: Scope, base_path: str) -> Scope:
    """The request scope without the base path."""
    base = unquote(base_path)
    path: str = scope["path"]
    if not base or not (path == base or path.startswith(f"{base}/")):
        return scope  # a proxy that strips the path itself, or a request that does not come through it
    raw: bytes = scope.get("raw_path") or path.encode()
    raw_base = base_path.encode()
    raw = raw[len(raw_base) :] if raw.startswith(raw_base) else path[len(base) :].encode()
    return {**scope, "path": path[len(base) :] or "/", "raw_path": raw or b"/"}
