"""The BFL dialect: submit, poll, download the sample from a signed URL; also under ComfyUI's proxy paths.

Fields, defaults and responses follow BFL's published OpenAPI document. Beyond it: unknown tasks are 404 with
the body of get_result, unknown fields are ignored, `steps` and `guidance` are accepted (ComfyUI sends them).
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kontext.engine.requests import GUIDANCE, MAX_SEED, MAX_STEPS
from kontext.errors import NotFound
from kontext.server import fetching
from kontext.server.auth.access import EditKey, ReadKey, service_of
from kontext.server.auth.keys import Key
from kontext.server.errors import ModerationBlocked
from kontext.server.http.answers import FAILURES
from kontext.server.jobs.queue import Submission
from kontext.server.jobs.requests import JobRequest, Output
from kontext.server.jobs.views import task_view
from kontext.server.routes.common import (
    EXAMPLE_PNG,
    ID,
    Integer,
    Loras,
    Number,
    db_safe_text,
    lora_settings,
    non_blank,
)
from kontext.server.routes.pictures import inputs_of
from kontext.server.service.outputs import TYPES, check_sample

router = APIRouter(tags=["BFL"], responses=FAILURES)

Format = Literal["jpeg", "png", "webp"]
ASPECT = 21 / 9  # widest; its inverse is the narrowest
CREDIT_PIXELS = 1e6


def aspect(text: str | None) -> str | None:
    if text is None:
        return None
    if text == "match_input_image":
        raise ValueError("omit aspect_ratio to keep that of the input image")
    width, colon, height = text.partition(":")
    if (
        not (colon and width.isascii() and width.isdigit() and height.isascii() and height.isdigit())
        or len(text) > 11
    ):
        raise ValueError("aspect_ratio must be W:H, such as 16:9")
    if not (int(width) and int(height) and 1 / ASPECT - 1e-9 <= int(width) / int(height) <= ASPECT + 1e-9):
        raise ValueError("aspect_ratio must be between 21:9 and 9:21")
    return f"{int(width)}:{int(height)}"


Url = Annotated[
    str,
    Field(min_length=1, max_length=2083, json_schema_extra={"format": "uri"}),
    AfterValidator(db_safe_text),
]


class KontextInputs(BaseModel):
    """FluxKontextProInputs, with `steps` and `guidance` as an extension."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"prompt": "Make the hair blue", "input_image": EXAMPLE_PNG, "seed": 42}]
        },
    )
    prompt: Annotated[str, Field(max_length=10_000), AfterValidator(non_blank)]
    input_image: str | None = None
    input_image_2: str | None = None
    input_image_3: str | None = None
    input_image_4: str | None = None
    seed: Integer | None = Field(None, ge=0, lt=2**64)
    aspect_ratio: Annotated[str | None, AfterValidator(aspect)] = None
    output_format: Format | None = "png"
    webhook_url: Url | None = None
    webhook_secret: Annotated[
        str | None, Field(max_length=1000), AfterValidator(lambda text: text and db_safe_text(text))
    ] = None
    prompt_upsampling: bool = False
    safety_tolerance: Integer = Field(2, ge=0, le=6)
    steps: Integer | None = Field(None, ge=1, le=MAX_STEPS)
    guidance: Number | None = Field(None, ge=GUIDANCE[0], le=GUIDANCE[1])
    loras: Loras = None


class Submitted(BaseModel):
    """AsyncResponse and AsyncWebhookResponse in one; clients read either."""

    id: str
    polling_url: str
    status: str = "Pending"
    webhook_url: str | None = None
    cost: float | None = None
    input_mp: float | None = None
    output_mp: float | None = None


class TaskResult(BaseModel):
    id: str
    status: Literal["Task not found", "Pending", "Request Moderated", "Content Moderated", "Ready", "Error"]
    result: dict[str, Any] | None = None
    progress: float | None = None
    details: dict[str, Any] | None = None
    preview: dict[str, Any] | None = None


def origin_of(request: Request) -> str:
    """Scheme and host by which the client reached the server, for URLs in responses."""
    return service_of(request).settings.public_base or str(request.base_url).rstrip("/")


async def submit(request: Request, key: Key, body: KontextInputs) -> Submitted:
    """Submit an edit, or without input_image a generation. Poll `polling_url` for the result."""
    service, inputs = service_of(request), inputs_of(request)
    if body.prompt_upsampling:
        service.expansion.check()
    if body.webhook_url:
        settings = service.settings
        await fetching.check_host(body.webhook_url, settings.private_addresses, settings.webhook_hosts)
    texts = [body.input_image, body.input_image_2, body.input_image_3, body.input_image_4]
    names = ["input_image", "input_image_2", "input_image_3", "input_image_4"]
    stored, reason = [], None
    try:
        for text, name in zip(texts, names):
            stored.append(
                await inputs.keep(await inputs.read(text, name), name, tolerance=body.safety_tolerance)
                if text
                else None
            )
    except ModerationBlocked as error:
        reason = str(error)
    picture = stored[0] if stored else None
    references = [reference for reference in stored[1:] if reference]
    seed = secrets.randbelow(2**32) if body.seed is None else body.seed
    job = JobRequest(
        prompt=body.prompt,
        seed=seed & MAX_SEED,
        steps=body.steps,
        guidance=body.guidance,
        loras=lora_settings(body.loras),
        size=body.aspect_ratio or ("match" if picture else "1:1"),
        lock=None if picture else False,
        picture=picture.sha256 if picture else None,
        references=tuple(reference.sha256 for reference in references),
        output=Output(
            format=body.output_format or "png",
            seed=str(seed),
            origin=origin_of(request),
            safety_tolerance=body.safety_tolerance,
        ),
    )
    submission = Submission(
        owner=key.id,
        origin="bfl",
        shape=job.shape(picture.size if picture else None, [reference.size for reference in references]),
        active_jobs=key.active_jobs or service.settings.active_jobs,
        cost=service.settings.cost,
        webhook_url=body.webhook_url,
        webhook_secret=body.webhook_secret,
    )
    jobs = await service.submit([job], submission, refused=reason, expand=body.prompt_upsampling)
    pixels = sum(reference.size[0] * reference.size[1] for reference in stored if reference)
    return Submitted(
        id=jobs[0].id,
        polling_url=f"{origin_of(request)}/v1/get_result?id={jobs[0].id}",
        webhook_url=body.webhook_url,
        cost=service.settings.cost,
        input_mp=round(pixels / CREDIT_PIXELS, 2) if pixels else None,
    )


@router.post("/v1/flux-kontext-pro")
async def kontext_pro(key: EditKey, request: Request, body: KontextInputs) -> Submitted:
    """Edit or generate with the loaded model."""
    return await submit(request, key, body)


@router.post("/v1/flux-kontext-max")
async def kontext_max(key: EditKey, request: Request, body: KontextInputs) -> Submitted:
    """The same as flux-kontext-pro."""
    return await submit(request, key, body)


@router.post("/v1/flux-kontext-dev")
async def kontext_dev(key: EditKey, request: Request, body: KontextInputs) -> Submitted:
    """The same as flux-kontext-pro."""
    return await submit(request, key, body)


@router.post("/proxy/bfl/flux-kontext-{size}/generate")
async def comfy(
    key: EditKey, request: Request, size: Literal["pro", "max"], body: KontextInputs
) -> Submitted:
    """The path at which ComfyUI's API nodes expect BFL."""
    return await submit(request, key, body)


@router.get("/v1/get_result", response_model=TaskResult)
async def get_result(request: Request, id: str) -> Any:
    """The state of a task. The unguessable id is the only credential."""
    service = service_of(request)
    try:
        if not ID.fullmatch(id):
            raise NotFound("no such task")
        job = service.active_here(id) or await asyncio.to_thread(service.queue.get, id)
        if job.origin != "bfl":
            raise NotFound("no such task")
    except NotFound:
        words = "no such task; it is unknown or expired"
        unknown = {
            "id": id.encode("utf-8", "replace").decode()[:64],
            "status": "Task not found",
            "result": None,
        }
        return JSONResponse({**unknown, "detail": words, "message": words, "code": "not_found"}, 404)
    sample = service.sample_url(job, origin_of(request)) if job.state == "done" else ""
    return JSONResponse(task_view(job, sample, service.event_bus.steps.get(job.id)))


@router.get("/v1/samples/{name}", response_class=Response)
def sample(request: Request, name: str, expires: int = 0, signature: str = "") -> Response:
    """A finished picture, by the signed URL from get_result, which is valid for some minutes."""
    service = service_of(request)
    job_id, _, ending = name.partition(".")
    words = check_sample(service.secret, job_id, expires, signature)
    if words:
        return JSONResponse({"message": words, "detail": words, "code": "forbidden"}, 403)
    job = service.queue.get(job_id)
    if job.state != "done" or not job.result or ending != job.request.output.format:
        raise NotFound("no such sample")
    headers = {
        "cache-control": f"private, max-age={int(service.settings.sample_seconds)}",
        "access-control-allow-origin": "*",
    }
    return Response(service.store.blobs.get(job.result["picture"]), media_type=TYPES[ending], headers=headers)


@router.get("/v1/credits")
async def credits(key: ReadKey, request: Request) -> dict[str, float]:
    """Remaining credits; a very large number if they are not limited."""
    left = await asyncio.to_thread(request.app.state.keys.credits, key)
    return {"credits": 1e9 if left is None else left}
