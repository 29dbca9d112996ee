"""What a model does well: prompts to suggest, from `skills.json` next to its weights.

{"examples": [{"picture": "library", "prompt": {"en": "Make the hair blue", "zh": "..."}}],
     "suggestions": [{"use": "edit", "label": {"en": "Hair"}, "prompt": {"en": "Make the hair [green]"}}]}

`picture` names one of `kontext/examples`. `use` is `edit`, `box` (a box marks something) or `generate`. Texts
are by language code, English always there; brackets in a prompt mark the part to replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kontext.checkpoint.tensors import read_json
from kontext.errors import BadCheckpoint

FILE = "skills.json"
Use = Literal["edit", "box", "generate"]
Texts = Mapping[str, str]


@dataclass(frozen=True)
class Example:
    """A prompt that works on an example picture."""

    picture: str
    prompt: Texts


@dataclass(frozen=True)
class Suggestion:
    """A prompt to suggest for a use."""

    use: Use
    label: Texts
    prompt: Texts


@dataclass(frozen=True)
class Skills:
    """The suggestions for a model."""

    examples: tuple[Example, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()


def read_skills(folder: Path) -> Skills | None:
    """The skills of the model in a folder; None without the file. Raises BadCheckpoint."""
    file = folder / FILE
    if not file.is_file():
        return None
    data = read_json(file)
    try:
        examples = tuple(
            Example(_text(entry["picture"]), _texts(entry["prompt"])) for entry in data.get("examples", [])
        )
        suggestions = tuple(
            Suggestion(_use(entry["use"]), _texts(entry["label"]), _texts(entry["prompt"]))
            for entry in data.get("suggestions", [])
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadCheckpoint(f"{file}: {error!r}; each entry needs the fields of {__name__}") from None
    return Skills(examples, suggestions)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected text, got {value!r}")
    return value


def _texts(value: Any) -> dict[str, str]:
    texts = {_text(language): _text(text) for language, text in value.items()}
    if "en" not in texts:
        raise ValueError(f"expected English among {sorted(texts)}")
    return texts


def _use(value: Any) -> Use:
    if value not in get_args(Use):
        raise ValueError(f"use must be one of {', '.join(get_args(Use))}, got {value!r}")
    return value
