"""Capabilities, examples, login and health of the server."""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field
from typing_extensions import TypedDict

from kontext.engine.requests import GUIDANCE, MAX_CONTEXTS, MAX_STEPS
from kontext.errors import NotFound
from kontext.options import MAX_LORAS
from kontext.server.auth.access import COOKIE, MetricsKey, ReadKey, service_of
from kontext.server.errors import Unauthorized
from kontext.server.http.answers import FAILURES
from kontext.server.routes.common import Body, Model, Text, with_example
from kontext.server.routes.edits import MAX_VARIANTS
from kontext.server.service.metrics import metrics_text
from kontext.server.service.service import RESULTS_AT_ONCE
from kontext.server.workers.worker import ModelInfo
from kontext.version import __version__

router = APIRouter(responses=FAILURES)


class Login(Body):
    model_config = with_example(key="kontext_...")
    key: Text


def describe_model(model_info: ModelInfo) -> dict[str, Any]:
    """A model as `/api/capabilities` shows it."""
    return {
        "name": model_info.name,
        "description": model_info.description,
        "fingerprint": model_info.fingerprint,
        "native_sizes": [list(size) for size in model_info.sizes],
        "steps": model_info.steps,
        "guidance": model_info.guidance,
        "prompt_tokens": model_info.prompt_tokens,
        "warnings": list(model_info.warnings),
        "suggestions": model_info.skills["suggestions"] if model_info.skills else None,
    }


@router.get("/api/capabilities", tags=["own"], responses={})
async def capabilities(request: Request) -> dict[str, Any]:
    """The loaded models (`model` is the first), the limits and the enabled features. Needs no key."""
    service = service_of(request)
    settings, model_info = service.settings, service.model_info
    models = [describe_model(info) for info in model_info.all] if model_info else []
    return {
        "version": __version__,
        "ready": service.ready,
        "trouble": service.public_load_error,
        "model": models[0] if models else None,
        "models": models,
        "limits": {
            "body_bytes": settings.body_bytes,
            "picture_pixels": settings.picture_pixels,
            "output_pixels": settings.picture_pixels,
            "output_pixels_together": RESULTS_AT_ONCE * settings.picture_pixels,
            "storage_bytes": (settings.storage_bytes or None) if settings.keys_needed else None,
            "references": MAX_CONTEXTS - 1,
            "variants": MAX_VARIANTS,
            "prompt_characters": 10_000,
            "prompt_tokens": model_info.prompt_tokens if model_info else None,
            "steps": [1, MAX_STEPS],
            "guidance": [float(edge) for edge in GUIDANCE],
            "active_jobs": settings.active_jobs,
            "loras": MAX_LORAS,
        },
        "features": {
            "keys": settings.keys_needed,
            "login": settings.keys_needed,
            "fetch_urls": settings.fetch_urls or bool(settings.picture_hosts),
            "moderation": bool(settings.banned_words or settings.nsfw),
            "credits": settings.keys_needed,
            "expand_prompt": service.expansion.enabled,
        },
    }


class LoraNames(TypedDict):
    loras: list[str]


@router.get("/api/loras", tags=["own"])
async def loras(key: ReadKey, request: Request) -> LoraNames:
    """Names of the LoRAs that requests may use in `loras`."""
    return {"loras": await asyncio.to_thread(service_of(request).settings.loras.names)}


class Tokens(Body):
    model_config = with_example(prompt="Make the hair blue")
    prompt: Annotated[Text, Field(max_length=10_000)]
    model: Model | None = None


class TokenCount(TypedDict):
    tokens: int | None
    limit: int | None


@router.post("/api/tokens", tags=["own"])
async def tokens(key: ReadKey, request: Request, body: Tokens) -> TokenCount:
    """Length of a prompt in tokens, and the most that the model (default: the first) reads.

    Both are null while the model is loading, or if it has no tokenizer.
    """
    model_info = service_of(request).model_named(body.model)
    if model_info is None:
        return {"tokens": None, "limit": None}
    count = await asyncio.to_thread(model_info.count_tokens, body.prompt)
    return {"tokens": count, "limit": model_info.prompt_tokens}


@router.post("/api/login", tags=["own"], status_code=204)
async def login(request: Request, body: Login, response: Response) -> None:
    """Exchange a key for an HttpOnly cookie, which a page sends with picture and event requests.

    The cookie is valid for a week, but not longer than the key.
    """
    settings, state = service_of(request).settings, request.app.state
    if settings.keys_needed:
        key = await asyncio.to_thread(state.keys.look_up, body.key)
        if key is None:
            raise Unauthorized("this key is unknown, expired or revoked; ask the operator for a new one")
        state.rates.take(key.id, key.rate_per_minute or settings.rate_per_minute)
        token, seconds = state.logins.token(key)
        secure = (settings.public_url or str(request.url)).startswith("https:")
        response.set_cookie(
            COOKIE,
            token,
            max_age=seconds,
            path=f"{settings.base_path}/",
            httponly=True,
            samesite="strict",
            secure=secure,
        )


@router.post("/api/logout", tags=["own"], status_code=204)
async def logout(request: Request, response: Response) -> None:
    """End this login: the cookie is deleted, and copies of it are rejected. Other logins of the key stay."""
    token = request.cookies.get(COOKIE)
    if token:
        await asyncio.to_thread(request.app.state.logins.end, token)
    path = f"{service_of(request).settings.base_path}/"
    response.delete_cookie(COOKIE, path=path, httponly=True, samesite="strict")


@lru_cache
def example_table() -> dict[str, dict[str, Any]]:
    """`examples/examples.json` of the package by name; empty if it does not exist."""
    table = files("kontext") / "examples" / "examples.json"
    if not table.is_file():
        return {}
    return {example["name"]: example for example in json.loads(table.read_text(encoding="utf-8"))}


def example_bytes(name: str) -> bytes:
    """The picture of an example. Raises NotFound."""
    example = example_table().get(name)
    if example is None:
        raise NotFound(f"no example {name[:40]!r}; available: {', '.join(example_table()) or 'none'}")
    return (files("kontext") / "examples" / example["file"]).read_bytes()


@router.get("/api/examples", tags=["own"])
async def examples(key: ReadKey, request: Request) -> dict[str, list[dict[str, Any]]]:
    """Example pictures with prompts that the loaded model is known to handle.

    The prompts are empty while the model is loading.
    """
    service, table = service_of(request), example_table()
    model_info, base = service.model_info, f"{service.settings.base_path}/api/examples"
    prompts = {name: list(example["prompts"]) if model_info else [] for name, example in table.items()}
    if model_info and model_info.skills:
        prompts = {
            example["picture"]: list(example["prompt"].values()) for example in model_info.skills["examples"]
        }
    shown = [
        {"name": name, "title": table[name]["title"], "prompts": texts, "picture": f"{base}/{name}"}
        for name, texts in prompts.items()
        if name in table
    ]
    return {"examples": shown}


@router.get("/api/examples/{name}", tags=["own"], response_class=Response)
async def example(key: ReadKey, name: str) -> Response:
    """The picture of an example."""
    return Response(
        example_bytes(name), media_type="image/png", headers={"cache-control": "private, max-age=86400"}
    )


@router.get("/healthz", tags=["operation"], responses={}, response_class=PlainTextResponse)
async def healthz() -> str:
    """Liveness: the process is running."""
    return "ok\n"


@router.get("/readyz", tags=["operation"], responses={503: {"description": "Loading, stopping or broken"}})
async def readyz(request: Request) -> JSONResponse:
    """Readiness: jobs can be accepted and run."""
    service = service_of(request)
    reason = service.public_load_error
    if service.ready and service.housekeeping.storage_error is None:
        state = "ready"
    elif service.stopping:
        state = "stopping"
    elif service.scheduler.load_error:
        state = "broken"
    elif service.housekeeping.storage_error:
        state, reason = "storage", service.housekeeping.storage_error
    else:
        state = "loading"
    return JSONResponse({"state": state, "trouble": reason}, 200 if state == "ready" else 503)


@router.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
async def metrics(key: MetricsKey, request: Request) -> str:
    """Metrics in the Prometheus text format."""
    return await metrics_text(request.app.state.metrics, service_of(request))
