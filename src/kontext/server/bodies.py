"""How many bytes of bodies lie in memory at a time: of requests that still arrive, and of large answers that
clients still read.

Plain ASGI, so that streams pass through untouched.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kontext.server.answers import answer

LARGE_BYTES = 2**20  # smaller answers are not counted
PIECE_BYTES = 256 * 2**10  # of an answer, handed on before the client has read the piece before
BUSY = "too many large requests at a time; try again in a moment"
RETRY = {"retry-after": "2"}


class Bodies:
    """Refuses with 503 what would hold more than `limit_bytes` at a time."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app, self.limit = app, limit_bytes
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        mine = 0
        waiting: Message | None = None  # the start of a large answer, until its body shows what is held

        def hold(size: int) -> bool:
            nonlocal mine
            if self.held + size > self.limit:
                return False
            self.held += size
            mine += size
            return True

        async def received() -> Message:
            message = await receive()
            if not hold(len(message.get("body", b""))):
                raise HTTPException(503, BUSY, RETRY)
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
            if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
                await send(message)
                return
            for at in range(0, len(body), PIECE_BYTES):
                last = at + PIECE_BYTES >= len(body)
                piece = body[at : at + PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": more or not last})

        try:
            await self.app(scope, received, answered)
        finally:
            self.held -= mine
