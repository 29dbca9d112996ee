"""Static files of the playground: read and compressed once, sent with a strict content security policy.

A page of small modules needs many requests; each costs only one stat call. The first response lists the
modules and texts to preload, so that the browser does not discover them import by import.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from kontext.server.http.addresses import Addresses
from kontext.server.http.answers import is_known

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
POLICY = "; ".join(
    f"{name} {value}"
    for name, value in {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "font-src": "'self'",
        "connect-src": "'self' data: blob:",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }.items()
)
# Static imports only; import(...) is loaded on demand.
IMPORT = re.compile(r"""\b(?:import|from)\s*["'](\.[^"']+)["']""")
UNKNOWN = """<!doctype html>
<html lang="en">
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>Not found - Kontext</title>
<h1>Page not found</h1>
<p>{words}</p>
<p><a href="{home}">Open Kontext</a></p>
</html>
"""
NO_PLAYGROUND = "<!doctype html><title>Kontext</title><p>The service is running without a playground.</p>"


@dataclass(frozen=True)
class Page:
    """A file at a modification time (nanoseconds), plain and compressed."""

    time: int
    tag: str
    plain: bytes
    packed: bytes
    imports: tuple[Path, ...]


class Playground:
    """Serves the static files below a folder, and responds to unknown paths.

    `addresses` knows the routes; `base_path` is the path of the page on the public host.
    """

    def __init__(self, folder: Path, addresses: Addresses | None = None, base_path: str = "") -> None:
        self.folder = folder.resolve()
        self.addresses, self.base_path = addresses or Addresses(), base_path
        self.pages: dict[Path, Page] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(Request(scope))(scope, receive, send)

    def answer(self, request: Request) -> Response:
        """Raises HTTPException: 404, 405."""
        path = request.scope["path"]
        name = path.removeprefix("/") or "index.html"
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache", "vary": "accept-encoding"}
        file = self.folder / name
        try:
            found_file = file.resolve().is_relative_to(self.folder) and file.is_file()
        except (ValueError, OSError):  # not a valid file name
            found_file = False
        found = found_file or name == "index.html"
        if found and request.method not in ("GET", "HEAD"):
            words = f"{request.method} is not allowed at this address; use GET"
            raise HTTPException(405, words, {"allow": "GET, HEAD"})
        if not found:
            refusal = self.addresses.refusal(request.method, path)
            if request.method != "GET" or "text/html" not in request.headers.get("accept", ""):
                raise refusal
            text = UNKNOWN.format(words=html.escape(refusal.detail), home=f"{self.base_path}/")
            return HTMLResponse(text, refusal.status_code, {"content-security-policy": POLICY})
        if not found_file:
            return HTMLResponse(NO_PLAYGROUND, headers=headers)
        page = self.page(file)
        headers["etag"] = page.tag
        if name == "index.html":
            headers["link"] = f"{self.modules()}, {self.words(request.headers.get('accept-language', ''))}"
        if is_known(request, page.tag):
            return Response(status_code=304, headers=headers)
        body = page.plain
        if "gzip" in request.headers.get("accept-encoding", "") and len(page.packed) < len(page.plain):
            body, headers["content-encoding"] = page.packed, "gzip"
        kind = TYPES.get(file.suffix, "text/plain; charset=utf-8")
        return Response(body, headers=headers, media_type=kind)

    def page(self, file: Path) -> Page:
        time = file.stat().st_mtime_ns
        page = self.pages.get(file)
        if page is None or page.time != time:
            plain = file.read_bytes()
            tag = f'"{hashlib.sha256(plain).hexdigest()[:24]}"'
            names = IMPORT.findall(plain.decode()) if file.suffix == ".js" else ()
            imports = tuple((file.parent / name).resolve() for name in names)
            page = self.pages[file] = Page(time, tag, plain, gzip.compress(plain, 9, mtime=0), imports)
        return page

    def modules(self) -> str:
        """Link header that preloads the scripts app.js imports, directly or indirectly."""
        found = dict.fromkeys([self.folder / "app.js"])
        for file in (waiting := list(found)):  # grows during iteration
            new = [name for name in self.page(file).imports if name not in found] if file.is_file() else []
            found |= dict.fromkeys(new)
            waiting += new
        names = (file.relative_to(self.folder).as_posix() for file in found)
        return ", ".join(f"<{self.base_path}/{name}>; rel=modulepreload" for name in names)

    def words(self, accept_language: str) -> str:
        """Link header that preloads the texts in the browser's preferred language."""
        known = accept_language[:2].lower() in (file.stem for file in self.folder.glob("locales/*.json"))
        language = accept_language[:2].lower() if known else "en"
        return f"<{self.base_path}/locales/{language}.json>; rel=preload; as=fetch; crossorigin"
