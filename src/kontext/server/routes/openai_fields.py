"""The fields of OpenAI's Images API: values, and pictures as files, data URLs or URLs.

Errors name the invalid field in `param`, such as "prompt" or "images[0].file_id".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kontext.engine.requests import GUIDANCE, MAX_CONTEXTS, MAX_SEED, MAX_STEPS
from kontext.errors import BadRequest, KontextError
from kontext.server.http.problems import first_problem
from kontext.server.routes.common import EXAMPLE_PNG, Integer, Loras, Number, Prompt, db_safe_text

IMAGE_PART = re.compile(r"images?(\[\d*\])?")  # image, image[], image[0]; images, as in JSON
ROLES = ("mask", "markup")  # pictures in addition to the images; mutually exclusive

NO_FILES = "file_id is not supported: this server has no Files API; send image_url with a data URL"


def size_of(text: str | None) -> str | None:
    """auto or WxH, both divisible by 16 and within 1:3 to 3:1."""
    if text in (None, "auto"):
        return None
    found = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", text or "", re.ASCII)
    if not found:
        raise ValueError("size must be auto or WIDTHxHEIGHT, such as 1024x1024")
    width, height = int(found[1]), int(found[2])
    if width % 16 or height % 16 or not 1 / 3 <= width / height <= 3:
        raise ValueError("width and height of size must be divisible by 16, their ratio between 1:3 and 3:1")
    return f"{width}x{height}"


Model = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(db_safe_text)]


class ImageRequest(BaseModel):
    """Fields of generations and edits; unknown ones are ignored.

    The last six are validated but have no effect.
    """

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"prompt": "A kid on a beach", "n": 1}]}
    )
    prompt: Prompt
    model: Model | None = None
    n: Integer | None = Field(1, ge=1, le=10)
    size: Annotated[str | None, Field(max_length=32), AfterValidator(size_of)] = None
    output_format: Literal["png", "jpeg", "webp"] | None = "png"
    response_format: Literal["url", "b64_json"] | None = "b64_json"
    stream: bool | None = False
    partial_images: Integer | None = Field(0, ge=0, le=3)
    seed: Integer | None = Field(None, ge=0, le=MAX_SEED - 10)
    num_inference_steps: Integer | None = Field(None, ge=1, le=MAX_STEPS)
    guidance_scale: Number | None = Field(None, ge=GUIDANCE[0], le=GUIDANCE[1])
    loras: Loras = None

    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = None
    background: Literal["auto", "opaque", "transparent"] | None = None
    moderation: Literal["auto", "low"] | None = None
    input_fidelity: Literal["high", "low"] | None = None
    style: Literal["vivid", "natural"] | None = None
    output_compression: Integer | None = Field(None, ge=0, le=100)


def parse(fields: Mapping[str, Any]) -> ImageRequest:
    """Raises BadRequest with the field as `param`."""
    try:
        return ImageRequest.model_validate(fields)
    except ValidationError as error:
        where, words = first_problem(error.errors(), model=ImageRequest)
        raise refusal(where, f"{where}: {words}") from None


def refusal(param: str | None, message: str) -> BadRequest:
    error = BadRequest(message)
    error.param = param
    return error


@contextmanager
def naming(param: str) -> Iterator[None]:
    """Set `param` of errors raised inside."""
    try:
        yield
    except KontextError as error:
        error.param = error.param or param
        raise


@dataclass(frozen=True)
class ImageField:
    """An input picture: its field (for errors), and a file or a text (base64, data URL or URL)."""

    param: str
    source: bytes | str


@dataclass(frozen=True)
class EditFields:
    """An edit request, from a form or a JSON body."""

    body: ImageRequest
    images: list[ImageField]
    roles: dict[str, ImageField]


def from_form(form: Mapping[str, list[bytes | str]]) -> EditFields:
    """The fields of a multipart body. Raises BadRequest."""
    images: list[ImageField] = []
    roles: dict[str, ImageField] = {}
    texts: dict[str, str] = {}
    for field, values in form.items():
        if IMAGE_PART.fullmatch(field):
            images += [ImageField("image", value) for value in values]
        elif field in ROLES:
            roles[field] = ImageField(field, values[-1])
        elif isinstance(values[-1], str):
            texts[field] = values[-1]
        elif field in ImageRequest.model_fields:
            raise refusal(field, f"{field} must be text, not a file")
    return _complete(parse(texts), images, roles, "image")


def from_json(body: Mapping[str, Any]) -> EditFields:
    """The fields of a JSON body; `images`, `mask` and `markup` have an `image_url`. Raises BadRequest."""
    field = "image" if body.get("images") is None and body.get("image") is not None else "images"
    value = body.get(field)
    several = value if isinstance(value, list) else [] if value is None else [value]
    images = [_reference(f"{field}[{place}]", image) for place, image in enumerate(several)]
    roles = {role: _reference(role, body[role]) for role in ROLES if body.get(role) is not None}
    return _complete(parse(body), images, roles, field)


def _complete(
    body: ImageRequest, images: list[ImageField], roles: dict[str, ImageField], field: str
) -> EditFields:
    if not 1 <= len(images) <= MAX_CONTEXTS:
        count = f"images must be 1 to {MAX_CONTEXTS}, got {len(images)}; the first one is edited"
        raise refusal(field, count)
    if len(roles) == len(ROLES):
        raise refusal("mask", "give either mask or markup, not both")
    return EditFields(body, images, roles)


def _reference(param: str, value: Any) -> ImageField:
    """An image reference: {"image_url": "..."}, or the text itself."""
    if isinstance(value, str):
        return ImageField(param, value)
    if not isinstance(value, dict):
        raise refusal(
            param, f'{param} must be an object such as {{"image_url": "data:image/png;base64,..."}}'
        )
    if value.get("file_id") is not None:
        raise refusal(f"{param}.file_id", NO_FILES)
    url = value.get("image_url", value.get("url"))
    if isinstance(url, dict):  # as in chat messages
        url = url.get("url")
    if not isinstance(url, str):
        raise refusal(f"{param}.image_url", f"{param}.image_url must be a data URL or a URL of a picture")
    return ImageField(f"{param}.image_url", url)


_TEXT_FIELDS = ImageRequest.model_json_schema()["properties"]
_REFERENCE = {
    "type": "object",
    "properties": {
        "image_url": {"type": "string", "description": "A data URL, or a URL if the server allows it."}
    },
    "required": ["image_url"],
}
EDIT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["prompt", "image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "image[]": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        **{role: {"type": "string", "format": "binary"} for role in ROLES},
                        **_TEXT_FIELDS,
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["prompt", "images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": _REFERENCE,
                            "minItems": 1,
                            "maxItems": MAX_CONTEXTS,
                        },
                        **dict.fromkeys(ROLES, _REFERENCE),
                        **_TEXT_FIELDS,
                    },
                },
                "example": {
                    "prompt": "Make the hair blue",
                    "images": [{"image_url": f"data:image/png;base64,{EXAMPLE_PNG}"}],
                },
            },
        },
    }
}
