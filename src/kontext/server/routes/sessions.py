"""Sessions and turns: create, list, rename, navigate, delete, export and import."""

from __future__ import annotations

import asyncio
import io
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from PIL import Image
from pydantic import ValidationError
from starlette.background import BackgroundTask

from kontext.errors import BadRequest, Conflict, NotFound, Unavailable
from kontext.server.auth.access import EditKey, ReadKey, service_of
from kontext.server.auth.keys import Key
from kontext.server.errors import TooLarge
from kontext.server.http.answers import FAILURES
from kontext.server.http.problems import first_problem
from kontext.server.jobs.views import SessionLine, SessionView, line_view
from kontext.server.routes.about import example_bytes
from kontext.server.routes.common import (
    Body,
    Name,
    Sha256,
    Text,
    changed,
    current_view,
    open_session,
    with_example,
)
from kontext.server.routes.pictures import PICTURE_BODY, file_of, form_of, inputs_of, is_form, json_of, png
from kontext.server.service.outputs import FORMATS, TYPES, disposition
from kontext.server.service.service import Service
from kontext.session import Session, Turn, archive, provenance
from kontext.session.pixels import HEADER_BYTES, from_png, png_size
from kontext.session.signing import sign_turns

THUMBNAILS, THUMBNAIL_BYTES = 512, 64 * 2**20  # in-memory cache
WEBP_SIDE = 16383  # pixels, by the format
CHANGE_TRIES = 5  # for a change that conflicts with concurrent changes

router = APIRouter(prefix="/api/sessions", tags=["own"], responses=FAILURES)

Format = Literal["png", "jpeg", "webp"]
Width = Annotated[int | None, Query(ge=16, le=2048)]


class NewSession(Body):
    """A new session with an upload, an example, or no picture yet."""

    model_config = with_example(example="library", name="A reader")
    picture: Sha256 | None = None
    example: Text | None = None
    name: Name = ""


class Rename(Body):
    model_config = with_example(name="With a hat")
    name: Name


class Head(Body):
    model_config = with_example(move="undo")
    turn: Text | None = None
    move: Literal["undo", "redo"] | None = None


NEW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": NewSession.model_json_schema()},
            "multipart/form-data": PICTURE_BODY["requestBody"]["content"]["multipart/form-data"],
        },
    }
}
FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post("", status_code=201, openapi_extra=NEW_BODY)
async def create_session(key: EditKey, request: Request) -> SessionView:
    """Create a session with a picture, with an example, or empty."""
    service, inputs = service_of(request), inputs_of(request)
    stored = None
    if is_form(request):
        form = await form_of(request)
        fields = _checked(
            {"name": next((text for text in form.get("name", []) if isinstance(text, str)), "")}
        )
        stored = await inputs.keep(file_of(form, "picture"))
        sha256: str | None = stored.sha256
    else:
        fields = _checked(await json_of(request))
        sha256 = fields.picture
        if fields.example:
            stored = await inputs.keep(await asyncio.to_thread(example_bytes, fields.example))
            sha256 = stored.sha256
        elif sha256:
            await asyncio.to_thread(service.queue.upload, key.id, sha256)
    if sha256:
        await service.prefills.prefill(sha256)

    def make() -> SessionView:
        picture = service.store.blobs.get(sha256) if sha256 else None
        session = service.store.create(picture, name=fields.name or (fields.example or ""), owner=key.id)
        return current_view(service, session)

    return await asyncio.to_thread(make)


def _checked(body: dict[str, Any]) -> NewSession:
    try:
        return NewSession.model_validate(body)
    except ValidationError as error:
        where, words = first_problem(error.errors(), model=NewSession)
        raise BadRequest(f"{where}: {words}" if where else words) from None


@router.get("")
def list_sessions(key: ReadKey, request: Request) -> dict[str, list[SessionLine]]:
    """Sessions of the caller, most recently used first."""
    service = service_of(request)
    base_path = service.settings.base_path
    return {"sessions": [line_view(info, base_path) for info in service.store.sessions(owner=key.id)]}


@router.post("/import", status_code=201, openapi_extra=FILE_BODY)
async def import_session(key: EditKey, request: Request) -> SessionView:
    """Import a session from an exported zip, or restore one from a PNG with an embedded history."""
    service = service_of(request)
    if not is_form(request):
        raise BadRequest("send the file in the part 'file' of a form")
    data = file_of(await form_of(request), "file")
    limit = service.settings.picture_pixels

    await asyncio.to_thread(service.quotas.check, key.id)

    def make() -> SessionView:
        if data.startswith(b"PK"):
            limits = archive.Limits.for_upload(len(data), limit)
            session = archive.load(service.store, data, owner=key.id, limits=limits)
        else:
            _check_pixels(data, limit)
            session = service.store.restore(data, owner=key.id)
        blobs = {name for turn in session.turns for names in turn.blobs.values() for name in names}
        service.quotas.add(key.id, *blobs)
        return current_view(service, session)

    return await service.decoders.run_import(key.id, make)


def _check_pixels(data: bytes, limit: int) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            width, height = image.size
    except Exception:
        raise BadRequest("this is neither a session file (zip) nor a PNG") from None
    if width * height > limit:
        raise TooLarge(
            f"the picture must have at most {limit / 1e6:.0f} million pixels, got {width}x{height}"
        )


@router.get("/{session}")
def get_session(key: ReadKey, request: Request, session: str) -> SessionView:
    """A session with its turns and active jobs."""
    service = service_of(request)
    return current_view(service, open_session(service, key, session))


@router.patch("/{session}")
async def rename_session(key: EditKey, request: Request, session: str, body: Rename) -> SessionView:
    """Rename a session."""
    return await _change(request, key, session, lambda found: found.rename(body.name))


@router.delete("/{session}", status_code=204)
async def delete_session(key: EditKey, request: Request, session: str) -> None:
    """Delete a session and cancel its jobs."""
    service = service_of(request)
    found = await asyncio.to_thread(open_session, service, key, session)
    for job in await asyncio.to_thread(service.queue.active, found.id):
        await service.cancel(job)
    await asyncio.to_thread(service.store.delete, found.id)
    service.event_bus.publish(f"session:{found.id}", "gone", session=found.id)


@router.post("/{session}/head")
async def set_head(key: EditKey, request: Request, session: str, body: Head) -> SessionView:
    """Go to a turn, or undo or redo. Nothing is lost: the next edit creates a branch."""
    if (body.turn is None) == (body.move is None):
        raise BadRequest("give either 'turn' or 'move'")

    def move(found: Session) -> None:
        if body.move == "undo":
            found.undo()
        elif body.move == "redo":
            found.redo()
        else:
            found.goto(body.turn or "")

    return await _change(request, key, session, move, retry=body.move is None)


@router.patch("/{session}/turns/{turn}")
async def rename_turn(key: EditKey, request: Request, session: str, turn: str, body: Rename) -> SessionView:
    """Rename a turn."""
    return await _change(request, key, session, lambda found: found.rename(body.name, found.tree.find(turn)))


@router.delete("/{session}/turns/{turn}")
async def delete_turn(key: EditKey, request: Request, session: str, turn: str) -> SessionView:
    """Delete a turn and all its descendants."""
    return await _change(request, key, session, lambda found: found.delete(turn))


async def _change(
    request: Request, key: Key, session_id: str, change: Any, retry: bool = True
) -> SessionView:
    """Apply a change; `retry` repeats it after a concurrent change, if its meaning does not depend on it."""
    service = service_of(request)

    def apply() -> tuple[Session, SessionView]:
        for tries_left in reversed(range(CHANGE_TRIES if retry else 1)):
            session = open_session(service, key, session_id)
            try:
                change(session)
                break
            except Conflict:
                if not tries_left:
                    raise
        return session, current_view(service, session)

    session, view = await asyncio.to_thread(apply)
    changed(service, session)
    return view


# Bytes


@router.get("/{session}/thumbnail", response_class=Response)
async def session_thumbnail(key: ReadKey, request: Request, session: str) -> Response:
    """The current picture of a session, 256 pixels wide."""
    service = service_of(request)
    current = (await asyncio.to_thread(open_session, service, key, session)).current
    sha256 = _blob(current, "picture")
    response = png(request, await _thumbnail(service, sha256, 256), f"{sha256}-256", "image/webp")
    response.headers["cache-control"] = "private, no-cache"
    return response


@router.get("/{session}/turns/{turn}/picture", response_class=Response)
async def turn_picture(
    key: ReadKey,
    request: Request,
    session: str,
    turn: str,
    width: Width = None,
    format: Format = "png",
    download: bool = False,
    metadata: bool = True,
) -> Response:
    """The picture of a turn: lossless, scaled down, or as a file with its embedded history."""
    service = service_of(request)
    found = await asyncio.to_thread(open_session, service, key, session)
    selected = found.tree.find(turn)
    sha256 = _blob(selected, "picture")
    if width is not None and width < selected.size[0] and not download:
        return png(request, await _thumbnail(service, sha256, width), f"{sha256}-{width}", "image/webp")
    stored = await asyncio.to_thread(service.store.blobs.get, sha256)
    if format == "png" and not download:
        return png(request, stored, sha256)
    if format == "webp" and max(selected.size) > WEBP_SIDE:
        raise BadRequest(
            f"WebP sides must be at most {WEBP_SIDE} pixels, got {max(selected.size)}; use png or jpeg"
        )
    history = found.tree.path(selected)

    def encode() -> bytes:
        if service.identity is not None and download and format == "png" and selected.kind != "source":
            return sign_turns(history, service.identity, strip=not metadata)
        chain = provenance.chain_of(history) if metadata else ()
        return provenance.encode(selected.picture, chain, FORMATS[format])

    data = await service.decoders.run(_pixels(stored), encode)
    response = Response(data, media_type=TYPES[format], headers={"cache-control": "private, no-cache"})
    if download:
        name = (selected.name or selected.prompt or found.name).lower()
        number = f"{selected.number:02d}-"
        response.headers["content-disposition"] = disposition(name, format, "picture", number)
    return response


@router.get("/{session}/turns/{turn}/{role}", response_class=Response)
def turn_file(
    key: ReadKey, request: Request, session: str, turn: str, role: Literal["region", "mask", "markup"]
) -> Response:
    """The changed region of an edit (white), or its mask or markup."""
    service = service_of(request)
    sha256 = _blob(open_session(service, key, session).tree.find(turn), role)
    return png(request, service.store.blobs.get(sha256), sha256)


@router.get("/{session}/turns/{turn}/references/{place}", response_class=Response)
def turn_reference(key: ReadKey, request: Request, session: str, turn: str, place: int) -> Response:
    """A reference picture of an edit, counted from 0."""
    service = service_of(request)
    sha256 = _blob(open_session(service, key, session).tree.find(turn), "reference", place)
    return png(request, service.store.blobs.get(sha256), sha256)


@router.get("/{session}/export", response_class=Response)
def export_session(key: ReadKey, request: Request, session: str) -> Response:
    """The whole session as one file (zip)."""
    found = open_session(service_of(request), key, session)
    folder = tempfile.TemporaryDirectory(prefix="kontext-export-")
    try:
        path = archive.save(found, Path(folder.name) / "session.zip")
    except BaseException as error:
        folder.cleanup()
        if isinstance(error.__context__, OSError):  # its message contains the folder
            raise Unavailable("the server cannot write the export now") from error
        raise
    headers = {"content-disposition": disposition(found.name, "zip", "session")}
    return FileResponse(
        path, media_type="application/zip", headers=headers, background=BackgroundTask(folder.cleanup)
    )


def _blob(turn: Turn, role: str, place: int = 0) -> str:
    names = turn.blobs.get(role, ())
    if not 0 <= place < len(names):
        raise NotFound(f"turn {turn.number} has no such picture ({role})")
    return names[place]


def _pixels(data: bytes) -> int:
    width, height = png_size(data[:HEADER_BYTES])
    return width * height


async def _thumbnail(service: Service, sha256: str, width: int) -> bytes:
    """A WebP of this width, from an in-memory cache."""
    cache = service.thumbnails
    if (sha256, width) not in cache:
        stored = await asyncio.to_thread(service.store.blobs.get, sha256)

        def encode() -> bytes:
            image = from_png(stored)
            size = width, max(1, round(image.height * width / image.width))
            small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
            file = io.BytesIO()
            small.save(file, "WEBP", quality=85)
            return file.getvalue()

        cache[sha256, width] = await service.decoders.run(_pixels(stored), encode)
    data = cache[sha256, width]
    size = sum(map(len, cache.values()))
    while len(cache) > 1 and (len(cache) > THUMBNAILS or size > THUMBNAIL_BYTES):
        size -= len(cache.pop(next(iter(cache))))
    return data
