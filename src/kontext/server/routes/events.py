"""Server-sent events of jobs and sessions.

The current state is sent first, so clients recover from a lost connection by reconnecting. Streams also poll
the database to see changes by other servers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from kontext.errors import KontextError
from kontext.server.auth.access import ReadKey, service_of
from kontext.server.auth.keys import Key
from kontext.server.http.answers import FAILURES
from kontext.server.jobs.queue import Job
from kontext.server.routes.common import find_job, job_views, open_session
from kontext.server.service.service import Service

router = APIRouter(prefix="/api", tags=["own"], responses=FAILURES)

ALIVE_SECONDS = 15.0
POLL_SECONDS = 1.0
KEY_SECONDS = 2.0  # between two checks that the key and the login of a stream are still valid
ENDS = ("done", "failed")
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events"}
}


@router.get("/jobs/{job}/events", responses=STREAM, response_class=StreamingResponse)
async def job_events(key: ReadKey, request: Request, job: str) -> StreamingResponse:
    """Events of one job, until its terminal event."""
    service = service_of(request)
    found = await asyncio.to_thread(find_job, service, key, job)
    return stream(_job_events(service, found), request, key)


@router.get("/sessions/{session}/events", responses=STREAM, response_class=StreamingResponse)
async def session_events(key: ReadKey, request: Request, session: str) -> StreamingResponse:
    """Events of a session, until the client disconnects."""
    service = service_of(request)
    found = await asyncio.to_thread(open_session, service, key, session)
    return stream(_session_events(service, found.id, found.revision), request, key)


async def _job_events(service: Service, job: Job) -> AsyncGenerator[str, None]:
    with service.event_bus.subscribe(f"job:{job.id}", previews=True) as inbox:
        job = await asyncio.to_thread(service.queue.get, job.id)
        for text in await _current_state(service, [job]):
            yield text
        quiet = time.monotonic()
        while job.active:
            try:
                event = await asyncio.wait_for(inbox.get(), POLL_SECONDS)
                if event is None:
                    return
                yield sse_message(event.kind, event.data)
                quiet = time.monotonic()
                if event.kind in ENDS:
                    return
            except TimeoutError:
                if not service.active_here(job.id):
                    job = await asyncio.to_thread(service.queue.get, job.id)
                if time.monotonic() - quiet > ALIVE_SECONDS:
                    quiet = time.monotonic()
                    yield ": alive\n\n"
        await asyncio.sleep(0.1)  # its terminal event may be on the way
        while not inbox.empty() and (event := inbox.get_nowait()) is not None:
            yield sse_message(event.kind, event.data)
            if event.kind in ENDS:
                return
        yield sse_message(*await service.results.terminal_event(job))


async def _session_events(service: Service, session_id: str, revision: int) -> AsyncGenerator[str, None]:
    with service.event_bus.subscribe(f"session:{session_id}", previews=True) as inbox:
        yield ": open\n\n"
        # The state that the client loaded before it subscribed may be older.
        yield sse_message("changed", {"session": session_id, "revision": revision})
        for text in await _current_state(service, await asyncio.to_thread(service.queue.active, session_id)):
            yield text
        quiet = time.monotonic()
        while True:
            try:
                event = await asyncio.wait_for(inbox.get(), POLL_SECONDS)
                if event is None:
                    return
                revision = max(revision, event.data.get("revision", 0))
                yield sse_message(event.kind, event.data)
                quiet = time.monotonic()
                if event.kind == "gone":
                    return
            except TimeoutError:
                newer = await asyncio.to_thread(service.store.revision, session_id)
                if newer is None:
                    yield sse_message("gone", {"session": session_id})
                    return
                if newer > revision:
                    revision = newer
                    yield sse_message("changed", {"session": session_id, "revision": revision})
                elif time.monotonic() - quiet > ALIVE_SECONDS:
                    quiet = time.monotonic()
                    yield ": alive\n\n"


async def _current_state(service: Service, jobs: list[Job]) -> list[str]:
    events = []
    for job in await asyncio.to_thread(job_views, service, [job for job in jobs if job.active]):
        if job["state"] == "queued":
            events.append(sse_message("queued", {"job": job["id"], "position": job["position"]}))
        else:
            events.append(
                sse_message(
                    "step", {"job": job["id"], "step": job["step"], "steps": job["steps"], "preview": None}
                )
            )
    return events


def sse_message(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def stream(events: AsyncGenerator[str, None], request: Request, key: Key) -> StreamingResponse:
    """A streaming response of events, which ends with the key, or with the login that opened it."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    keys, logins = request.app.state.keys, request.app.state.logins
    login = getattr(request.state, "login", None)

    def is_good() -> bool:
        return keys.is_good(key) and not (login and logins.is_ended(login))

    if key.id:
        events = _while_valid(events, is_good)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _while_valid(
    events: AsyncGenerator[str, None], is_good: Callable[[], bool]
) -> AsyncGenerator[str, None]:
    checked = time.monotonic()
    coming: asyncio.Future[str] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            await asyncio.wait([coming], timeout=max(0.0, checked + KEY_SECONDS - time.monotonic()))
            if time.monotonic() - checked >= KEY_SECONDS:
                if not await asyncio.to_thread(is_good):
                    return
                checked = time.monotonic()
            if coming.done():
                done, coming = coming, None
                try:
                    event = done.result()
                except StopAsyncIteration:
                    return
                yield event
    except KontextError:
        return  # the database cannot confirm that the key and the login are valid
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()
