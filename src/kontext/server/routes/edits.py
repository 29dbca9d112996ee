"""Edits and their jobs: submit, inspect, cancel, retry."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from kontext.engine.checks import check_seed
from kontext.engine.expand import check_expand, expanded_size
from kontext.engine.pointing import check_box
from kontext.engine.requests import (
    CANVAS,
    GUIDANCE,
    MAX_BATCH,
    MAX_CONTEXTS,
    MAX_SEED,
    MAX_STEPS,
    check_expands_alone,
    check_needs_picture,
)
from kontext.engine.sizes import plan_edit, plan_generate
from kontext.errors import BadRequest
from kontext.options import option
from kontext.server.auth.access import EditKey, ReadKey, service_of
from kontext.server.auth.keys import Key
from kontext.server.http.answers import FAILURES
from kontext.server.jobs.batching import JobShape
from kontext.server.jobs.queue import Job, Submission
from kontext.server.jobs.requests import JobRequest
from kontext.server.jobs.views import JobView
from kontext.server.routes.common import (
    Body,
    Integer,
    Loras,
    Model,
    NegativePrompt,
    Number,
    Prompt,
    Sha256,
    Text,
    find_job,
    job_views,
    open_session,
    with_example,
)
from kontext.server.service.service import Service
from kontext.session import Session, Turn
from kontext.session.provenance import SETTINGS
from kontext.session.settings import PICTURES

router = APIRouter(prefix="/api", tags=["own"], responses=FAILURES)

MAX_VARIANTS = MAX_BATCH
STRENGTH = option("strength").range
CONTEXT_REFRESH = option("context_refresh").whole_range
STEP_CACHE = option("step_cache").range
Guidance = Annotated[Number | None, Field(ge=GUIDANCE[0], le=GUIDANCE[1])]
Seed = Annotated[Integer | None, Field(ge=0, le=MAX_SEED)]


def _check_expand(text: str) -> str:
    try:
        return check_expand(text)
    except BadRequest as error:
        raise ValueError(str(error)) from None


Expand = Annotated[Annotated[Text, AfterValidator(_check_expand)] | None, Field(max_length=32)]


class Edit(Body):
    """An edit request: prompt, parent turn and settings."""

    prompt: Prompt
    parent: Text | None = None
    count: Integer = Field(1, ge=1, le=MAX_VARIANTS)
    seed: Seed = None
    steps: Integer | None = Field(None, ge=1, le=MAX_STEPS)
    sampler: Literal["euler", "ab2", "midpoint"] | None = None
    context_refresh: Integer | None = Field(None, ge=CONTEXT_REFRESH[0], le=CONTEXT_REFRESH[1])
    step_cache: Number | None = Field(None, ge=STEP_CACHE[0], le=STEP_CACHE[1])
    canvas: Annotated[int | None, Field(ge=CANVAS[0], le=CANVAS[1])] = None
    guidance: Guidance = None
    negative_prompt: NegativePrompt = None
    true_guidance: Guidance = None
    nag: Guidance = None
    guidance_steps: Annotated[Text | None, Field(max_length=16)] = None
    strength: Annotated[Number | None, Field(ge=STRENGTH[0], le=STRENGTH[1])] = None
    size: Annotated[Text, Field(max_length=32)] = "match"
    box: tuple[Integer, Integer, Integer, Integer] | None = None
    mask: Sha256 | None = None
    markup: Sha256 | None = None
    references: list[Sha256] = Field([], max_length=MAX_CONTEXTS - 1)
    expand: Expand = None
    reference_layout: Literal["index", "offset", "stitch"] | None = None
    expand_prompt: bool = False
    model: Model | None = None
    loras: Loras = None
    lock: bool = True
    regions: bool | None = None

    model_config = with_example(prompt="Make the hair blue", seed=7, count=2)


class Variants(Body):
    model_config = with_example(count=4)
    count: Integer = Field(4, ge=1, le=MAX_VARIANTS)
    seed: Seed = None


class Jobs(TypedDict):
    jobs: list[JobView]


@router.post("/sessions/{session}/edits", status_code=202)
async def edit(key: EditKey, request: Request, session: str, body: Edit) -> Jobs:
    """Create turns under a turn (default: the head); in an empty session, generate its first picture."""
    service = service_of(request)
    if body.expand_prompt:
        service.expansion.check()

    def prepare() -> tuple[Session, Turn | None, JobRequest, JobShape]:
        found = open_session(service, key, session)
        parent = found.tree.find(body.parent) if body.parent else found.tree.current
        return found, parent, *_job_request(service, key, body, parent)

    found, parent, job, shape = await asyncio.to_thread(prepare)
    return await _submit(
        service, key, found, parent, job, shape, body.count, body.seed, expand=body.expand_prompt
    )


@router.post("/sessions/{session}/turns/{turn}/variants", status_code=202)
async def make_variants(key: EditKey, request: Request, session: str, turn: str, body: Variants) -> Jobs:
    """Create variants of an edit: same parent, prompt and settings, other seeds."""
    service = service_of(request)

    def prepare() -> tuple[Session, Turn, JobRequest, JobShape]:
        found = open_session(service, key, session)
        original = found.tree.find(turn)
        if original.kind != "edit" or original.parent_id is None:
            raise BadRequest("this turn is not an edit, so it has no variants; submit an edit of it")
        parent = found.tree.turns[original.parent_id]
        settings = {
            name: original.settings[name] for name in SETTINGS if original.settings.get(name) is not None
        }
        pictures = {
            name: list(original.blobs[role]) for name, role in PICTURES.items() if original.blobs.get(role)
        }
        job = JobRequest.from_json(
            {
                "edit": {"prompt": original.prompt, **settings},
                "pictures": {"picture": [_picture(parent)], **pictures},
            }
        )
        job = replace(job, model=_still_served(service, original))
        return (
            found,
            parent,
            job,
            job.shape(parent.size, [reference.size for reference in original.references]),
        )

    found, parent, job, shape = await asyncio.to_thread(prepare)
    return await _submit(service, key, found, parent, job, shape, body.count, body.seed)


@router.get("/jobs/{job}")
def get_job(key: ReadKey, request: Request, job: str) -> JobView:
    """The current state of a job."""
    service = service_of(request)
    return job_views(service, [find_job(service, key, job)])[0]


@router.post("/jobs/{job}/cancel")
async def cancel_job(key: EditKey, request: Request, job: str) -> JobView:
    """Cancel a job; a job that has ended is not changed."""
    service = service_of(request)
    found = await asyncio.to_thread(find_job, service, key, job)
    return (await asyncio.to_thread(job_views, service, [await service.cancel(found)]))[0]


@router.post("/jobs/{job}/retry", status_code=202)
async def retry_job(key: EditKey, request: Request, job: str) -> Jobs:
    """Submit the same request again as a new job."""
    service = service_of(request)
    found = await asyncio.to_thread(find_job, service, key, job)
    if found.state not in ("failed", "cancelled", "refused") or not found.session_id:
        raise BadRequest(f"this job is {found.state}; only failed, cancelled or refused jobs can be retried")
    session = await asyncio.to_thread(open_session, service, key, found.session_id)
    if found.parent_id:
        session.tree.find(found.parent_id)
    submission = _submission(service, key, session.id, found.parent_id, JobShape.parse(found.shape))
    return await _shown(service, await service.submit([found.request], submission))


def _job_request(service: Service, key: Key, body: Edit, parent: Turn | None) -> tuple[JobRequest, JobShape]:
    """The job request and its shape, validated before the job runs. Raises BadRequest."""
    job = JobRequest(prompt=body.prompt, **{name: getattr(body, name) for name in SETTINGS})
    job = replace(job, references=tuple(body.references), model=body.model)
    references = [service.queue.upload(key.id, sha256) for sha256 in body.references]
    model_info = service.model_named(body.model)
    sizes = model_info.sizes if model_info else ((256, 256),)
    if parent is None:
        check_needs_picture(replace(job, mask=body.mask, markup=body.markup))
        if body.count != 1:
            raise BadRequest(f"count must be 1 for the first picture of a session, got {body.count}")
        job = replace(job, size=None if body.size == "match" else body.size, lock=False)
        plan_generate(job.size, sizes)
    else:
        plan_edit(expanded_size(parent.size, body.expand), body.size, sizes)
        box = check_box(body.box, parent.size) if body.box else None
        job = replace(job, picture=_picture(parent), box=box, mask=body.mask, markup=body.markup)
        check_expands_alone(job)
        for role, sha256 in (("mask", body.mask), ("markup", body.markup)):
            if sha256:
                size = service.queue.upload(key.id, sha256)
                if size != parent.size:
                    expected = f"{parent.size[0]}x{parent.size[1]} pixels as the picture"
                    raise BadRequest(f"the {role} must be {expected}, got {size[0]}x{size[1]}")
    return job, job.shape(parent.size if parent else None, references)


def _still_served(service: Service, turn: Turn) -> str | None:
    """The model that made a turn, if it is not the default and served here."""
    others = service.model_info.others if service.model_info else ()
    made_by = turn.result_info.get("model")
    return made_by if made_by in [model_info.name for model_info in others] else None


def _picture(turn: Turn) -> str:
    if not turn.has_picture:
        raise BadRequest(f"turn {turn.number} comes from a file's history; its picture is not available")
    return turn.blobs["picture"][0]


async def _submit(
    service: Service,
    key: Key,
    session: Session,
    parent: Turn | None,
    job: JobRequest,
    shape: JobShape,
    count: int,
    seed: int | None,
    expand: bool = False,
) -> Jobs:
    # Drawn here, so that a requeued job gives the same picture.
    first = secrets.randbelow(2**32) if seed is None else check_seed(seed, count)
    requests = [replace(job, seed=first + place) for place in range(count)]
    submission = _submission(service, key, session.id, parent.id if parent else None, shape)
    return await _shown(service, await service.submit(requests, submission, expand=expand))


def _submission(
    service: Service, key: Key, session_id: str, parent_id: str | None, shape: JobShape
) -> Submission:
    return Submission(
        owner=key.id,
        origin="own",
        shape=shape,
        session_id=session_id,
        parent_id=parent_id,
        active_jobs=key.active_jobs or service.settings.active_jobs,
        cost=service.settings.cost,
    )


async def _shown(service: Service, jobs: list[Job]) -> Jobs:
    return {"jobs": await asyncio.to_thread(job_views, service, jobs)}
