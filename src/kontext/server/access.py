"""Who asks: the dependencies by which routes let in those who may.

On loopback nobody needs a key and everybody is the owner "". Elsewhere the id of the key owns sessions and
jobs. A key travels as `x-key` or as `Authorization: Bearer`; pages carry a token for it (`logins.py`) in a
cookie that scripts cannot read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from kontext.server.errors import Forbidden, Unauthorized
from kontext.server.keys import EVERYBODY, SCOPES, Key
from kontext.server.service import Service

COOKIE = "kontext_key"


def service_of(request: Request) -> Service:
    return request.app.state.service


_header = APIKeyHeader(name="x-key", auto_error=False, description="A key made by `kontext keys make`.")
_bearer = HTTPBearer(auto_error=False)


def allowed(scope: str) -> Callable:
    """A dependency: the caller's key, if it has this scope. Raises Unauthorized, Forbidden, RateLimited."""

    async def caller(
        request: Request,
        header: Annotated[str | None, Security(_header)] = None,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> Key:
        state = request.app.state
        if not state.service.settings.keys_needed:
            request.state.owner = EVERYBODY.id
            return EVERYBODY
        text = header or (bearer.credentials if bearer else None)
        token = request.cookies.get(COOKIE)
        if text:
            key = await asyncio.to_thread(state.keys.look_up, text)
        elif token:
            key = await asyncio.to_thread(state.logins.key, token)
        else:
            raise Unauthorized("Not authenticated: send a key as header x-key or Authorization: Bearer")
        if key is None:
            raise Unauthorized("this key is not known, has expired or was revoked; ask the operator for one")
        if scope not in key.scopes:
            raise Forbidden(
                f"this key does not allow to {SCOPES[scope]}; ask the operator for the scope {scope!r}"
            )
        state.rates.take(key.id, key.rate_per_minute or state.service.settings.rate_per_minute)
        request.state.owner = key.id
        return key

    return caller


Reader = Annotated[Key, Depends(allowed("read"))]
Maker = Annotated[Key, Depends(allowed("edit"))]
Watcher = Annotated[Key, Depends(allowed("metrics"))]
