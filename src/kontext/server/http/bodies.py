"""Limits the memory used by bodies, and the number of values in a JSON body.

Counts requests being received and large responses being sent.

Plain ASGI middleware, so that streams pass through unchanged.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kontext.server.http.answers import answer

LARGE_BYTES = 2**20  # smaller responses are not counted
CHUNK_BYTES = 256 * 2**10  # chunk size of a large response
JSON_VALUES = 50_000  # in a non-form body: many small values take twenty times their text size in memory
BUSY = "too many large requests at once; try again in a moment"
RETRY = {"retry-after": "2"}


class Bodies:
    """Responds 503 when bodies would use more than `limit_bytes` in total, and 413 for too much JSON."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app, self.limit = app, limit_bytes
        self.reserved = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        mine = values = 0
        form = Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")
        waiting: Message | None = None  # the start of a large response, held until its body size is known

        def hold(size: int) -> bool:
            nonlocal mine
            if self.reserved + size > self.limit:
                return False
            self.reserved += size
            mine += size
            return True

        async def received() -> Message:
            nonlocal values
            message = await receive()
            body = message.get("body", b"")
            if not hold(len(body)):
                raise HTTPException(503, BUSY, RETRY)
            if not form:
                values += sum(body.count(mark) for mark in (b"[", b"{", b","))
                if values > JSON_VALUES:
                    raise HTTPException(413, f"the body must have at most {JSON_VALUES} values")
            return message

        async def answered(message: Message) -> None:
            nonlocal waiting
            if message["type"] == "http.response.start":
                if int(Headers(raw=message["headers"]).get("content-length", "0")) > LARGE_BYTES:
                    waiting = message
                else:
                    await send(message)
                return
            body, more = message.get("body", b""), message.get("more_body", False)
            if waiting is not None:
                start, waiting = waiting, None
                if not more and not hold(len(body)):
                    busy = answer(503, BUSY, "busy", "server_error", headers=dict(RETRY))
                    await busy(scope, receive, send)
                    return
                await send(start)
            if message["type"] != "http.response.body" or len(body) <= CHUNK_BYTES:
                await send(message)
                return
            for at in range(0, len(body), CHUNK_BYTES):
                last = at + CHUNK_BYTES >= len(body)
                piece = body[at : at + CHUNK_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": more or not last})

        try:
            await self.app(scope, received, answered)
        finally:
            self.reserved -= mine
