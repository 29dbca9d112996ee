"""The Hugging Face dialect: one POST with JSON; the response is the picture."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kontext.engine.requests import GUIDANCE, MAX_SEED, MAX_STEPS
from kontext.errors import BadRequest
from kontext.server.auth.access import EditKey, service_of
from kontext.server.http.answers import FAILURES
from kontext.server.http.problems import first_problem
from kontext.server.jobs.queue import Submission
from kontext.server.jobs.requests import JobRequest
from kontext.server.routes.common import (
    EXAMPLE_PNG,
    Integer,
    Loras,
    NegativePrompt,
    Number,
    Prompt,
    lora_settings,
)
from kontext.server.routes.openai import ended_jobs, sample_bytes
from kontext.server.routes.pictures import inputs_of, json_of
from kontext.server.service.outputs import TYPES

router = APIRouter(prefix="/hf", tags=["Hugging Face"], responses=FAILURES)


class Size(BaseModel):
    width: Integer = Field(ge=16, le=16384)
    height: Integer = Field(ge=16, le=16384)


class Parameters(BaseModel):
    """Parameters of the image-to-image task."""

    model_config = ConfigDict(extra="ignore")
    prompt: Prompt
    negative_prompt: NegativePrompt = None
    guidance_scale: Number | None = Field(None, ge=GUIDANCE[0], le=GUIDANCE[1])
    num_inference_steps: Integer | None = Field(None, ge=1, le=MAX_STEPS)
    seed: Integer | None = Field(None, ge=0, le=MAX_SEED)
    target_size: Size | None = None
    loras: Loras = None


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs", "parameters"],
                    "properties": {"inputs": {"type": "string"}, "parameters": {"type": "object"}},
                },
                "example": {"inputs": EXAMPLE_PNG, "parameters": {"prompt": "Make it night"}},
            }
        },
    }
}


@router.post("/{model:path}", openapi_extra=BODY, response_class=Response)
async def image_to_image(key: EditKey, request: Request, model: str) -> Response:
    """Edit the picture in `inputs` (base64) by `parameters.prompt`; `model` is ignored."""
    service, inputs = service_of(request), inputs_of(request)
    body = await json_of(request)
    try:
        parameters = Parameters.model_validate(body.get("parameters") or {})
    except ValidationError as error:
        where, words = first_problem(error.errors(), model=Parameters)
        raise BadRequest(f"parameters.{where}: {words}" if where else f"parameters: {words}") from None
    if not isinstance(body.get("inputs"), str):
        raise BadRequest("inputs must be a base64 picture")
    stored = await inputs.keep(await inputs.read(body["inputs"], "inputs"), "inputs")
    size = parameters.target_size
    edit = JobRequest(
        prompt=parameters.prompt,
        seed=secrets.randbelow(2**32) if parameters.seed is None else parameters.seed,
        steps=parameters.num_inference_steps,
        guidance=parameters.guidance_scale,
        negative_prompt=parameters.negative_prompt,
        loras=lora_settings(parameters.loras),
        size=f"{size.width}x{size.height}" if size else "match",
        picture=stored.sha256,
    )
    submission = Submission(
        owner=key.id,
        origin="hf",
        shape=edit.shape(stored.size),
        active_jobs=key.active_jobs or service.settings.active_jobs,
        cost=service.settings.cost,
    )
    jobs = await service.submit([edit], submission)
    (job,) = await ended_jobs(request, jobs)
    return Response(await asyncio.to_thread(sample_bytes, service, job), media_type=TYPES["png"])
