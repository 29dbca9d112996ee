"""What is wrong with the fields of a request, in our words instead of pydantic's."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from kontext.engine.requests import check_prompt
from kontext.errors import BadRequest

SHOWN = 60  # characters of a value or field name that are echoed
KINDS = {
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number with fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "missing": "this field is required",
}
RANGES = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
LENGTHS = {
    "too_short": ("at least", "min_length", "entries"),
    "too_long": ("at most", "max_length", "entries"),
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
}
PATTERNS = {
    "^[0-9a-f]{64}$": "must be 64 digits of 0-9 and a-f, as POST /api/pictures answers them",
}

Model = type[BaseModel]


def first_problem(
    errors: Sequence[Mapping[str, Any]], skip: int = 0, model: Model | None = None
) -> tuple[str | None, str]:
    """The field and message of the first pydantic error.

    The field is a path such as "images[0].image_url" without its first `skip` parts, or None if the body
    itself is invalid. `model`: what was validated.
    """
    return words_of(errors[0], skip, model) if errors else (None, "the request is not valid")


def words_of(problem: Mapping[str, Any], skip: int = 0, model: Model | None = None) -> tuple[str | None, str]:
    """The field and message of one pydantic error; see `first_problem`."""
    kind, context, value = problem["type"], problem.get("ctx", {}), problem.get("input")
    if kind == "json_invalid":
        return None, "the body is not valid JSON"
    path, annotation, fields = _place(problem["loc"][skip:], model, kind)
    length = _tuple_length(annotation)
    if length and (kind in ("tuple_type", "too_long", "too_short") or kind == "missing"):
        path, words = path.partition("[")[0], f"must be a list of {length} numbers"
    elif kind == "extra_forbidden":
        words = f"unknown field; the fields are {', '.join(fields)}" if fields else "unknown field"
    elif kind == "string_unicode":
        words = _not_text(value, path.rpartition(".")[2])
    elif kind == "string_pattern_mismatch":
        words = PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
    elif kind == "literal_error":
        words = f"must be {context['expected']}"
    elif kind in RANGES:
        relation, limit = RANGES[kind]
        words = f"must be {relation} {context[limit]}, got {value!r:.{SHOWN}}"
    elif kind in LENGTHS:
        relation, limit, things = LENGTHS[kind]
        count = len(value) if isinstance(value, Sized) else context.get("actual_length")
        words = f"must have {relation} {context[limit]} {things}, got {count}"
    else:
        words = KINDS.get(kind) or problem["msg"].removeprefix("Value error, ")
    return _printable(path) or None, _printable(words)


def detail_of(problem: Mapping[str, Any], model: Model | None) -> dict[str, Any]:
    """A pydantic error of a route as an entry of `detail`, in the shape of FastAPI."""
    where, words = words_of(problem, 1, model)
    origin, *parts = problem["loc"]
    named = [part for part in parts if isinstance(part, int) or str(part) in (where or "")]
    loc = [origin, *(part if isinstance(part, int) else _printable(str(part)) for part in named)]
    return {"loc": loc, "msg": words, "type": problem["type"]}


def body_model(endpoint: Any) -> Model | None:
    """The model of the body of a route; None if it has none."""
    hints = get_type_hints(endpoint) if endpoint else {}
    bodies = (
        hint
        for name, hint in hints.items()
        if name != "return" and isinstance(hint, type) and issubclass(hint, BaseModel)
    )
    return next(bodies, None)


def unreadable(error: BaseException) -> str:
    """Why a body could not be parsed as JSON."""
    if isinstance(error, RecursionError):
        return "the body is nested too deeply"
    if isinstance(error, UnicodeError):
        return "the body is not valid UTF-8"
    if "integer string conversion" in str(error):
        return "the body contains a whole number that is too large"
    return "the body is not valid JSON"


def _place(parts: Sequence[Any], model: Model | None, kind: str) -> tuple[str, Any, list[str]]:
    """The path of a field, its annotation, and the names of the fields next to it.

    Parts that only name a branch of pydantic's validation are left out.
    """
    path, annotation = "", None
    nested = [model] if model else []
    fields = list(model.model_fields) if model else []
    for at, part in enumerate(parts):
        known = next((found for found in nested if part in found.model_fields), None)
        if isinstance(part, int):
            path += f"[{part}]"
        elif known:
            path += f".{part}"
            annotation = known.model_fields[part].annotation
            nested = [*_models(annotation)]
        elif not nested and annotation is None or kind == "extra_forbidden" and at == len(parts) - 1:
            path += f".{part}"
        if nested and annotation is not None:
            fields = list(nested[0].model_fields)
    return path.removeprefix("."), annotation, fields


def _models(annotation: Any) -> Iterator[Model]:
    """The models within an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _tuple_length(annotation: Any) -> int:
    """The length of a tuple, or of the tuple in an optional; 0 for other annotations."""
    if get_origin(annotation) in (Union, types.UnionType):
        return max(map(_tuple_length, get_args(annotation)))
    return len(get_args(annotation)) if get_origin(annotation) is tuple else 0


def _not_text(value: Any, field: str) -> str:
    """What the engine says of a text with half of a character."""
    try:
        check_prompt(value, field or "text")
    except BadRequest as error:
        return str(error)
    return "must be text"


def _printable(text: str) -> str:
    """Text that every encoding of the answer can hold."""
    return text.encode("utf-8", "replace").decode()
