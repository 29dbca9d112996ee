"""Authentication and authorization: FastAPI dependencies that resolve the caller's key.

On loopback no key is needed and the owner is "". Elsewhere sessions and jobs belong to the id of the key. A
key is sent as `x-key` or as `Authorization: Bearer`; pages use a token for it (`logins.py`) in an HttpOnly
cookie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from kontext.server.auth.keys import LOCAL_USER, SCOPES, Key
from kontext.server.errors import Forbidden, Unauthorized
from kontext.server.service.service import Service

COOKIE = "kontext_key"


def service_of(request: Request) -> Service:
    return request.app.state.service


_header = APIKeyHeader(name="x-key", auto_error=False, description="A key created by `kontext keys create`.")
_bearer = HTTPBearer(auto_error=False)


def allowed(scope: str) -> Callable:
    """A dependency that returns the caller's key if it has this scope.

    It raises Unauthorized, Forbidden, RateLimited.
    """

    async def caller(
        request: Request,
        header: Annotated[str | None, Security(_header)] = None,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> Key:
        state = request.app.state
        if not state.service.settings.keys_needed:
            request.state.owner = LOCAL_USER.id
            return LOCAL_USER
        text = header or (bearer.credentials if bearer else None)
        token = request.cookies.get(COOKIE)
        if text:
            key = await asyncio.to_thread(state.keys.look_up, text)
        elif token:
            key = await asyncio.to_thread(state.logins.key, token)
            request.state.login = token
        else:
            raise Unauthorized("Not authenticated: send a key as header x-key or Authorization: Bearer")
        if key is None:
            raise Unauthorized("this key is unknown, expired or revoked; ask the operator for a new one")
        if scope not in key.scopes:
            raise Forbidden(
                f"this key does not have the scope {scope!r} ({SCOPES[scope]}); ask the operator for it"
            )
        state.rates.take(key.id, key.rate_per_minute or state.service.settings.rate_per_minute)
        request.state.owner = key.id
        if state.keys.begin_use(key):
            state.service.background.start(asyncio.to_thread(state.keys.note_use, key))
        return key

    return caller


ReadKey = Annotated[Key, Depends(allowed("read"))]
EditKey = Annotated[Key, Depends(allowed("edit"))]
MetricsKey = Annotated[Key, Depends(allowed("metrics"))]
