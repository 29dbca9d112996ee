"""Errors as HTTP responses: one status table and one body format that clients of all dialects understand.

`detail` is read by FastAPI clients and the AI SDK, `message` by blackforest, `error` by openai.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kontext.errors import BadPicture, BadRequest, Busy, KontextError, NoSpace, NotFound, Unavailable
from kontext.server.errors import (
    ExpansionFailed,
    Forbidden,
    ModerationBlocked,
    NoCredits,
    NotReady,
    QueueFull,
    QuotaFull,
    RateLimited,
    TooLarge,
    Unauthorized,
)
from kontext.server.http.problems import body_model, detail_of, first_problem, unreadable
from kontext.session.blobs import FULL

log = logging.getLogger(__name__)

RETRY_SECONDS = 2
OPENAI_PATHS = ("/v1/images/", "/v1/models")


# Most specific class first: class -> status, code, type in the OpenAI dialect.
STATES: dict[type[KontextError], tuple[int, str, str]] = {
    RateLimited: (429, "rate", "rate_limit_error"),
    QueueFull: (429, "queue_full", "rate_limit_error"),
    NoCredits: (402, "no_credits", "insufficient_quota"),
    Unauthorized: (401, "no_key", "authentication_error"),
    Forbidden: (403, "forbidden", "permission_error"),
    TooLarge: (413, "too_large", "invalid_request_error"),
    NotReady: (503, "not_ready", "server_error"),
    ExpansionFailed: (502, "prompt_expansion", "server_error"),
    ModerationBlocked: (400, "moderation_blocked", "image_generation_user_error"),
    QuotaFull: (507, "quota", "insufficient_quota"),
    NoSpace: (507, "no_space", "server_error"),
    Unavailable: (503, "storage", "server_error"),
    NotFound: (404, "not_found", "invalid_request_error"),
    Busy: (409, "busy", "conflict_error"),
    BadPicture: (400, "bad_picture", "invalid_request_error"),
    BadRequest: (400, "bad_request", "invalid_request_error"),
    KontextError: (400, "bad_request", "invalid_request_error"),
}
# For framework errors: the most general code of each status.
CODES = {status: code for status, code, _ in STATES.values()} | {
    405: "no_such_method",
    408: "too_slow",
    422: "invalid",
    503: "not_ready",
}


class Problem(BaseModel):
    """Why a request failed."""

    message: str
    detail: Any
    code: str


def answer(
    status: int, message: str, code: str, kind: str = "invalid_request_error", **more: Any
) -> JSONResponse:
    headers = more.pop("headers", None)
    error = {"message": message, "type": kind, "param": more.pop("param", None), "code": code}
    body = {"message": message, "detail": message, "code": code, "error": error}
    return JSONResponse({**body, **more}, status, headers)


def explain(error: KontextError) -> JSONResponse:
    status, code, kind = next(state for known, state in STATES.items() if isinstance(error, known))
    headers = None
    if status in (429, 503):
        wait = error.wait_seconds if isinstance(error, RateLimited) else RETRY_SECONDS
        headers = {"retry-after": str(max(1, math.ceil(wait)))}
    return answer(status, str(error), code, kind, headers=headers, param=error.param)


def install(app: FastAPI) -> None:
    """Register handlers so that every error uses this format and exposes no internals."""

    @app.exception_handler(KontextError)
    async def _ours(request: Request, error: KontextError) -> JSONResponse:
        return explain(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        problems, model = error.errors(), body_model(request.scope.get("endpoint"))
        found = [detail_of(problem, model) for problem in problems]
        where, words = first_problem(problems, 1, model)
        message = f"{where}: {words}"[:500] if where else words
        if request.scope["path"].startswith(OPENAI_PATHS):  # OpenAI clients map 400 to BadRequestError
            return answer(400, message, "bad_request", param=where)
        return answer(422, message, "invalid", detail=found, param=where)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        code, words = CODES.get(error.status_code, "error"), str(error.detail)
        if isinstance(error.__cause__, ValueError | RecursionError):  # FastAPI could not parse the body
            words = unreadable(error.__cause__)
        return answer(error.status_code, words, code, headers=dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def _client_disconnected(request: Request, error: ClientDisconnect) -> JSONResponse:
        return answer(400, "the client disconnected before its request was complete", "bad_request")

    @app.exception_handler(OSError)
    async def _system(request: Request, error: OSError) -> JSONResponse:
        log.error("a request failed: %s", error)
        full = error.errno in FULL
        kind = NoSpace if full else Unavailable
        return explain(kind(f"the server's storage {'is full' if full else 'is not available'}"))

    @app.exception_handler(SQLAlchemyError)
    async def _database(request: Request, error: SQLAlchemyError) -> JSONResponse:
        log.error("a request failed", exc_info=error)
        return explain(Unavailable("the database is not available"))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        return answer(500, "internal server error; see the server's log", "failed", "server_error")


FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": words}
    for status, words in {
        400: "An invalid argument or picture",
        401: "A key is required",
        403: "The key does not allow this",
        404: "Not found, or owned by another key",
        409: "Changed concurrently",
        413: "Too large",
        422: "A field is missing or of the wrong type",
        429: "Too many jobs or requests; see Retry-After",
        503: "Loading, stopping, or the storage is not available",
        507: "The storage of the server or the quota of the key is full",
    }.items()
}


def is_known(request: Request, etag: str) -> bool:
    """Whether the client has the content of this entity tag, quoted (RFC 9110, section 13.1.2)."""
    known = request.headers.get("if-none-match", "").split(",")
    return any(tag.strip().removeprefix("W/") in ("*", etag.removeprefix("W/")) for tag in known)
