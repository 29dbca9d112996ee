"""The OpenAI dialect: /v1/images/edits (multipart or JSON), /v1/images/generations, /v1/models.

Field names are those of OpenAI's Images API, plus `seed`, `num_inference_steps` and `guidance_scale` as in
vLLM-Omni. `markup` is a transparent overlay of the first image; `mask` is transparent where to edit.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from kontext.errors import BadRequest
from kontext.server.auth.access import EditKey, ReadKey, service_of
from kontext.server.auth.keys import Key
from kontext.server.errors import ModerationBlocked, NotReady
from kontext.server.http.answers import FAILURES
from kontext.server.http.inputs import Inputs, StoredPicture
from kontext.server.jobs.queue import Job, Submission
from kontext.server.jobs.requests import JobRequest, Output
from kontext.server.routes.bfl import origin_of
from kontext.server.routes.common import check_size, lora_settings
from kontext.server.routes.events import stream
from kontext.server.routes.openai_fields import (
    EDIT_BODY,
    EditFields,
    ImageField,
    ImageRequest,
    from_form,
    from_json,
    naming,
    refusal,
)
from kontext.server.routes.pictures import form_of, inputs_of, is_form, is_json, json_of
from kontext.server.service.service import Service

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=FAILURES)

POLL_SECONDS = 1.0  # between two checks that the client is still connected
OPAQUE = {"background": "opaque", "quality": "high"}  # reported in every response, whatever was requested


@router.post("/images/edits", openapi_extra=EDIT_BODY, response_model=None)
async def edits(key: EditKey, request: Request) -> dict[str, Any] | StreamingResponse:
    """Edit the first image; further images are references."""
    if is_form(request):
        fields = from_form(await form_of(request))
    elif is_json(request):
        fields = from_json(await json_of(request))
    else:
        raise BadRequest("images/edits needs a multipart/form-data or application/json body")
    pictures = await _pictures(inputs_of(request), fields)
    return await _make(request, key, fields.body, pictures, "image_edit")


async def _pictures(inputs: Inputs, fields: EditFields) -> dict[str, list[StoredPicture]]:
    """The pictures of an edit by role, stored."""
    images = [
        await _stored(inputs, stored, f"image {place}") for place, stored in enumerate(fields.images, start=1)
    ]
    pictures = {"picture": images[:1], "references": images[1:]}
    for role, image in fields.roles.items():
        stored = await _stored(inputs, image, f"the {role}", mask=role == "mask")
        if stored.size != images[0].size:
            expected = f"{images[0].size[0]}x{images[0].size[1]} pixels"
            raise refusal(role, f"the {role} must be as large as the first image, {expected}")
        pictures[role] = [stored]
    return pictures


async def _stored(inputs: Inputs, image: ImageField, name: str, *, mask: bool = False) -> StoredPicture:
    with naming(image.param):
        data = image.source if isinstance(image.source, bytes) else await inputs.read(image.source, name)
        return await inputs.keep(data, name, mask=mask)


@router.post("/images/generations", response_model=None)
async def generations(
    key: EditKey, request: Request, body: ImageRequest
) -> dict[str, Any] | StreamingResponse:
    """Generate pictures from text."""
    return await _make(request, key, body, {}, "image_generation")


@router.get("/models")
async def models(key: ReadKey, request: Request) -> dict[str, Any]:
    """The loaded models; `flux-kontext` is the first."""
    model_info = service_of(request).model_info
    loaded = [info.name for info in model_info.all] if model_info else [service_of(request).settings.model]
    names = list(dict.fromkeys((*loaded, "flux-kontext")))
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "openkontext"} for name in names],
    }


@router.get("/models/{model:path}")
async def model(key: ReadKey, request: Request, model: str) -> dict[str, Any]:
    """One model; unknown names refer to the first loaded model."""
    return {"id": model[:200], "object": "model", "created": 0, "owned_by": "openkontext"}


async def _make(
    request: Request, key: Key, body: ImageRequest, pictures: Mapping[str, list[StoredPicture]], kind: str
) -> Any:
    service = service_of(request)
    first = secrets.randbelow(2**32) if body.seed is None else body.seed
    picture = pictures["picture"][0] if pictures else None
    files = {role: stored[0].sha256 for role, stored in pictures.items() if stored and role != "references"}
    references = pictures.get("references", [])
    model = _chosen(service, body.model)
    with naming("size"):
        check_size(service, body.size, picture.size if picture else None, model)
    job = JobRequest(
        prompt=body.prompt,
        steps=body.num_inference_steps,
        guidance=body.guidance_scale,
        loras=lora_settings(body.loras),
        size=body.size or ("match" if picture else None),
        lock=None if picture else False,
        model=model,
        picture=files.get("picture"),
        mask=files.get("mask"),
        markup=files.get("markup"),
        references=tuple(reference.sha256 for reference in references),
        output=Output(format=body.output_format or "png"),
    )
    submission = Submission(
        owner=key.id,
        origin="openai",
        shape=job.shape(picture.size if picture else None, [reference.size for reference in references]),
        active_jobs=key.active_jobs or service.settings.active_jobs,
        cost=service.settings.cost,
    )
    jobs = await service.submit([replace(job, seed=first + i) for i in range(body.n or 1)], submission)
    if body.stream:
        return stream(_streamed(service, jobs, body, kind), request, key)
    ended = await ended_jobs(request, jobs)
    data = [await asyncio.to_thread(_datum, service, job, body, origin_of(request)) for job in ended]
    return _answer(ended, data)


def _chosen(service: Service, name: str | None) -> str | None:
    """A loaded model of that name; None for the first, and for the names of other services."""
    others = service.model_info.others if service.model_info else ()
    return name if name in [info.name for info in others] else None


async def ended_jobs(request: Request, jobs: list[Job]) -> list[Job]:
    """Wait until all jobs are done. If one fails or the client disconnects, the others are cancelled.

    Raises ModerationBlocked, NotReady, BadRequest.
    """
    service = service_of(request)
    waiting = asyncio.gather(*(ended_job(service, job) for job in jobs))
    try:
        while not (await asyncio.wait([waiting], timeout=POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise NotReady("the client disconnected")
        return waiting.result()
    except BaseException:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        for job in jobs:
            await service.cancel(job)
        raise


async def ended_job(service: Service, job: Job) -> Job:
    """Wait until a job is done. Raises ModerationBlocked, NotReady, BadRequest."""
    job = await service.wait(job.id, service.settings.job_seconds * 2)
    if job.state == "refused":
        raise ModerationBlocked(job.error or "refused")
    if job.active:
        raise NotReady("the server is stopping; try again in a moment")
    if job.state != "done":
        raise BadRequest(job.error or job.state)
    return job


def _datum(service: Service, job: Job, body: ImageRequest, origin: str) -> dict[str, Any]:
    if body.response_format == "url":
        return {"url": service.sample_url(job, origin)}
    return {"b64_json": base64.b64encode(sample_bytes(service, job)).decode()}


def sample_bytes(service: Service, job: Job) -> bytes:
    return service.store.blobs.get((job.result or {})["picture"])


def _usage(jobs: list[Job]) -> dict[str, Any]:
    """Token usage: words of the prompts, and one token per 16x16 pixels of the results."""
    image_tokens = sum(
        -(-job.result["size"][0] // 16) * -(-job.result["size"][1] // 16) for job in jobs if job.result
    )
    text = sum(len(job.request.prompt.split()) for job in jobs)
    details = {"text_tokens": text, "image_tokens": 0}
    return {
        "input_tokens": text,
        "input_tokens_details": details,
        "output_tokens": image_tokens,
        "total_tokens": text + image_tokens,
    }


def _about(job: Job) -> dict[str, Any]:
    width, height = (job.result or {"size": (0, 0)})["size"]
    return {"size": f"{width}x{height}", "output_format": job.request.output.format, **OPAQUE}


def _answer(jobs: list[Job], data: list[dict[str, Any]]) -> dict[str, Any]:
    return {"created": int(time.time()), "data": data, **_about(jobs[0]), "usage": _usage(jobs)}


async def _streamed(
    service: Service, jobs: list[Job], body: ImageRequest, kind: str
) -> AsyncGenerator[str, None]:
    """Partial images (small previews at even steps), then one completed event for each picture."""
    partial_images = body.partial_images or 0
    sent_partials = {job.id: 0 for job in jobs}
    waiting = {job.id: asyncio.ensure_future(ended_job(service, job)) for job in jobs}
    try:
        with service.event_bus.subscribe(
            *(f"job:{job.id}" for job in jobs), previews=partial_images > 0
        ) as inbox:
            while waiting:
                getting = asyncio.ensure_future(inbox.get())
                await asyncio.wait([getting, *waiting.values()], return_when=asyncio.FIRST_COMPLETED)
                if getting.done() and (event := getting.result()) is not None:
                    if event.kind == "step" and event.data["preview"] and event.data["job"] in waiting:
                        job_id, step, steps = event.data["job"], event.data["step"], event.data["steps"]
                        if (
                            sent_partials[job_id] < partial_images
                            and step < steps
                            and step * (partial_images + 1) >= (sent_partials[job_id] + 1) * steps
                        ):
                            image = event.data["preview"].partition(",")[2]
                            yield _event(
                                f"{kind}.partial_image",
                                image,
                                jobs[0],
                                partial_image_index=sent_partials[job_id],
                                output_format="jpeg",
                            )
                            sent_partials[job_id] += 1
                getting.cancel()
                for job_id in [job_id for job_id, task in waiting.items() if task.done()]:
                    try:
                        job = waiting.pop(job_id).result()
                    except (ModerationBlocked, NotReady, BadRequest) as error:
                        words = {
                            "message": str(error),
                            "type": "image_generation_error",
                            "param": None,
                            "code": "failed",
                        }
                        yield f"event: error\ndata: {json.dumps({'type': 'error', 'error': words})}\n\n"
                        return
                    data = base64.b64encode(await asyncio.to_thread(sample_bytes, service, job)).decode()
                    yield _event(f"{kind}.completed", data, job, usage=_usage([job]))
    finally:
        for job_id, task in waiting.items():  # the client disconnected
            task.cancel()
            await service.cancel(next(job for job in jobs if job.id == job_id))


def _event(kind: str, image: str, job: Job, **more: Any) -> str:
    body = {"type": kind, "b64_json": image, "created_at": int(time.time()), **_about(job), **more}
    return f"event: {kind}\ndata: {json.dumps(body)}\n\n"
