"""Shared by the native routes: validated text types, session and job lookup, job views."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from kontext.engine.requests import check_prompt
from kontext.engine.sizes import plan_edit, plan_generate
from kontext.errors import BadRequest, NotFound
from kontext.loras import SCALES
from kontext.loras import parse as parse_loras
from kontext.options import MAX_LORAS
from kontext.server.auth.keys import Key
from kontext.server.jobs.queue import Job
from kontext.server.jobs.views import JobView, SessionView, job_view, session_view
from kontext.server.service.service import Service
from kontext.session import Session

ID = re.compile(r"[0-9a-f]{1,64}")
EXAMPLE_PNG = (  # 16x16 pixels in base64: the examples of the OpenAPI document work as they are
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGklEQVR42mOM6jnBQApgYiARjGoY1TB0NAAAVXEBzuQQlN0AAAAASUVORK5CYII="
)


def db_safe_text(text: str) -> str:
    """Reject NUL characters and halves of characters, which databases cannot store. Raises ValueError."""
    if "\x00" in text:
        raise ValueError("the text must not contain NUL characters")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        non_blank(text)
    return text


def printable_name(text: str) -> str:
    """Reject control characters, which terminals and logs obey. Raises ValueError."""
    for position, letter in enumerate(db_safe_text(text), start=1):
        if unicodedata.category(letter) == "Cc":
            raise ValueError(f"the name has a control character: U+{ord(letter):04X} at position {position}")
    return text


def non_blank(text: str) -> str:
    """Validate a prompt. Raises ValueError."""
    try:
        return check_prompt(text)
    except BadRequest as error:
        raise ValueError(str(error)) from None


def no_boolean(value: Any) -> Any:
    """Reject true and false where a number is expected. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


Integer = Annotated[int, BeforeValidator(no_boolean)]
Number = Annotated[float, BeforeValidator(no_boolean)]
Text = Annotated[str, AfterValidator(db_safe_text)]
Name = Annotated[str, Field(max_length=200), AfterValidator(printable_name)]
Prompt = Annotated[
    str, Field(max_length=10_000, json_schema_extra={"minLength": 1}), AfterValidator(non_blank)
]
NegativePrompt = Annotated[
    str | None,
    Field(max_length=10_000),
    AfterValidator(lambda text: non_blank(text) if text and text.strip() else None),
]
Model = Annotated[str, Field(min_length=1, max_length=80), AfterValidator(db_safe_text)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Body(BaseModel):
    """A JSON body of the native routes; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid")


def with_example(**fields: Any) -> ConfigDict:
    """The model_config of a body with an example in the OpenAPI document."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


class LoraField(BaseModel):
    """A LoRA: its name in the server's folder, or, if the server allows it, the path of a file."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "knit", "scale": 0.8}]}
    )
    name: Annotated[Text, Field(max_length=200)] | None = None
    path: Annotated[Text, Field(max_length=1000)] | None = None
    scale: Number = Field(1.0, ge=SCALES[0], le=SCALES[1])
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


def plain_loras(fields: list[LoraField | str] | None) -> list[dict[str, Any]] | None:
    """LoRAs as plain data; None for no LoRAs. A string is a name with its scale. Raises ValueError."""
    try:
        values = [
            field if isinstance(field, str) else field.model_dump(exclude_none=True) for field in fields or ()
        ]
        return [lora.to_json() for lora in parse_loras(values, paths=False)] or None
    except BadRequest as error:
        raise ValueError(str(error)) from None


def from_form_text(value: Any) -> Any:
    """A list that a form field holds as JSON. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        raise ValueError('must be a JSON list, such as [{"name": "knit", "scale": 0.8}]') from None


Loras = Annotated[
    list[LoraField | Annotated[Text, Field(max_length=220)]] | None,
    Field(max_length=MAX_LORAS),
    BeforeValidator(from_form_text),
    AfterValidator(plain_loras),
]


def lora_settings(field: Loras) -> list[dict[str, Any]] | None:
    """The field of a validated body, which `plain_loras` has replaced by plain data."""
    return cast("list[dict[str, Any]] | None", field)


def open_session(service: Service, key: Key, session_id: str) -> Session:
    """A session of the caller. Raises NotFound, also for sessions of other keys."""
    if ID.fullmatch(session_id):
        session = service.store.open(session_id)
        if session.owner == key.id:
            return session
    raise NotFound("no such session; it was deleted or the address is wrong")


def find_job(service: Service, key: Key, job_id: str) -> Job:
    """A job of the caller. Raises NotFound, also for jobs of other keys."""
    if not ID.fullmatch(job_id):
        raise NotFound("no such job")
    return service.queue.get(job_id, key.id)


def job_views(service: Service, jobs: Iterable[Job]) -> list[JobView]:
    """Views of jobs with their queue positions and steps."""
    last = len(service.positions.by_job) + 1  # for a job that was just submitted
    return [
        job_view(job, service.positions.by_job.get(job.id, last), service.event_bus.steps.get(job.id))
        for job in jobs
    ]


def check_size(
    service: Service, size: str | None, picture: tuple[int, int] | None, model: str | None = None
) -> None:
    """Check a size (None: default) before the job runs. Raises BadRequest."""
    model_info = service.model_named(model)
    if model_info is None:
        return  # the model is still loading
    if picture is None:
        plan_generate(size, model_info.sizes)
    else:
        plan_edit(picture, size or "match", model_info.sizes)


def current_view(service: Service, session: Session) -> SessionView:
    jobs = job_views(service, service.queue.active(session.id))
    return session_view(session, jobs, service.settings.base_path)


def changed(service: Service, session: Session) -> None:
    """Notify other clients of a change; call it on the event loop."""
    service.event_bus.publish(
        f"session:{session.id}", "changed", session=session.id, revision=session.revision
    )
