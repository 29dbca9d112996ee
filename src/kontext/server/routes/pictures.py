"""Uploads and prefill: a picture is stored and its context precomputed before the first edit."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile
from typing_extensions import TypedDict

from kontext.errors import BadRequest
from kontext.server.auth.access import EditKey, ReadKey, service_of
from kontext.server.http.answers import FAILURES, is_known
from kontext.server.http.inputs import Inputs
from kontext.server.http.problems import unreadable
from kontext.server.routes.common import Body, Sha256, Text, open_session, with_example

router = APIRouter(prefix="/api", tags=["own"], responses=FAILURES)

PREFILL_SECONDS = 2.0
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {
                        "picture": {"type": "string", "format": "binary"},
                        "name": {"type": "string"},
                    },
                }
            },
            "application/json": {
                "schema": {"type": "object", "properties": {"url": {"type": "string", "format": "uri"}}},
                "example": {"url": "https://example.org/kid.png"},
            },
        },
    }
}


class Upload(TypedDict):
    picture: str
    size: list[int]
    url: str
    warnings: list[str]


class Prefill(Body):
    model_config = with_example(session="5f2e9c1a7b3d4e60", turn="c41d9c1a7b3d4e60")
    picture: Sha256 | None = None
    session: Text | None = None
    turn: Text | None = None


class Prefilled(TypedDict):
    state: str
    seconds: float | None


def inputs_of(request: Request) -> Inputs:
    """Input picture storage for the caller's key."""
    return request.app.state.inputs.of(request.state.owner)


async def form_of(request: Request) -> dict[str, Any]:
    """Fields of a multipart body: text as text, files as bytes. Raises BadRequest."""
    found: dict[str, Any] = {}
    async with request.form(max_files=20, max_fields=50) as form:
        for field, value in form.multi_items():
            found.setdefault(field, []).append(await value.read() if isinstance(value, UploadFile) else value)
    return found


def file_of(form: dict[str, Any], field: str) -> bytes:
    values = form.get(field, [])
    if len(values) != 1 or not isinstance(values[0], bytes):
        raise BadRequest(f"the form must have exactly one file in the part {field!r}")
    return values[0]


async def json_of(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise BadRequest(unreadable(error)) from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


@router.post("/pictures", status_code=201, openapi_extra=PICTURE_BODY)
async def upload_picture(key: EditKey, request: Request) -> Upload:
    """Store a picture and prefill it."""
    service, inputs = service_of(request), inputs_of(request)
    if is_form(request):
        data = file_of(await form_of(request), "picture")
    else:
        url = (await json_of(request)).get("url")
        if not isinstance(url, str):
            raise BadRequest("send a file in the part 'picture' of a form, or JSON with 'url'")
        data = await inputs.fetch(url)
    stored = await inputs.keep(data)
    await asyncio.to_thread(service.queue.add_upload, key.id, stored.sha256, stored.size)
    await service.prefills.prefill(stored.sha256)
    url = f"{service.settings.base_path}/api/pictures/{stored.sha256}"
    return {
        "picture": stored.sha256,
        "size": list(stored.size),
        "url": url,
        "warnings": list(stored.warnings),
    }


@router.get("/pictures/{picture}", response_class=Response)
def get_picture(key: ReadKey, request: Request, picture: str) -> Response:
    """An upload of the caller, as PNG."""
    service = service_of(request)
    service.queue.upload(key.id, picture)
    return png(request, service.store.blobs.get(picture), picture)


@router.post("/prefill")
async def prefill_picture(key: EditKey, request: Request, body: Prefill) -> Prefilled:
    """Precompute the context of a picture; returns how long it took."""
    service = service_of(request)
    if body.picture:
        await asyncio.to_thread(service.queue.upload, key.id, body.picture)
        sha256 = body.picture
    elif body.session:
        session = await asyncio.to_thread(open_session, service, key, body.session)
        turn = session.tree.find(body.turn) if body.turn else session.current
        if not turn.has_picture:
            raise BadRequest("this turn comes from a file's history; its picture is not available")
        sha256 = turn.blobs["picture"][0]
    else:
        raise BadRequest("give 'picture', or 'session' and 'turn'")
    task = await service.prefills.prefill(sha256)
    await asyncio.wait([task], timeout=PREFILL_SECONDS)
    seconds = task.result() if task.done() else None
    return {"state": "queued" if seconds is None else "done", "seconds": seconds}


def png(request: Request, data: bytes, etag: str, media_type: str = "image/png") -> Response:
    """A response with immutable content."""
    headers = {"etag": f'"{etag}"', "cache-control": "private, max-age=31536000, immutable"}
    if is_known(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)
