"""The request of a job: what every dialect is translated into, as it is stored and as workers receive it.

Stored as JSON: `edit` (prompt, options that were given), `pictures` (sha256 of blobs by role) and `output`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from kontext.engine.expand import expanded_size
from kontext.engine.requests import EditRequest
from kontext.engine.sizes import Box, Size
from kontext.errors import BadRequest
from kontext.options import offered
from kontext.server.jobs.batching import JobShape

OPTIONS = tuple(option.name for option in offered("python") if option.kind != "picture")


@dataclass(frozen=True, kw_only=True)
class Output:
    """How the result of a job without a session is delivered."""

    format: str = "png"
    seed: str | None = None
    """The seed as the client gave it; None: that of the result."""
    origin: str = ""
    """Scheme and host by which the client reached the server, for URLs in webhooks."""
    safety_tolerance: int = 2

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if data.get(name) is not None})

    def to_json(self) -> dict[str, Any]:
        changed = {name: value for name, value in vars(self).items() if value != getattr(Output, name)}
        return {"format": self.format, **changed}


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One edit with its pictures in the store; options that are None take the editor's default."""

    prompt: str
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    context_refresh: int | None = None
    step_cache: float | None = None
    canvas: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    true_guidance: float | None = None
    nag: float | None = None
    guidance_steps: str | None = None
    strength: float | None = None
    size: str | Size | None = None
    box: Box | None = None
    expand: str | None = None
    reference_layout: str | None = None
    loras: Sequence[Mapping[str, Any]] | None = None
    """As `kontext.loras.parse` reads them."""
    lock: bool | None = None
    regions: bool | None = None
    model: str | None = None
    """Name of one of the models of the service; None: the first."""
    picture: str | None = None
    """sha256 of the picture to edit; None: generate one."""
    references: tuple[str, ...] = ()
    mask: str | None = None
    markup: str | None = None
    output: Output = field(default_factory=Output)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Options in the database that another version wrote: kept, and refused by the worker."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A stored request."""
        edit, pictures = dict(data["edit"]), data.get("pictures", {})
        options = {name: edit.pop(name) for name in ("prompt", "model", *OPTIONS) if name in edit}
        for name in ("box", "size"):
            if isinstance(options.get(name), list):
                options[name] = tuple(options[name])
        files = {role: hashes[0] for role, hashes in pictures.items() if hashes and role != "references"}
        return cls(
            **options,
            **files,
            references=tuple(pictures.get("references", ())),
            output=Output.from_json(data.get("output", {})),
            unknown=edit,
        )

    def to_json(self) -> dict[str, Any]:
        edit = {"prompt": self.prompt, **self.options, **self.unknown}
        if self.model is not None:
            edit["model"] = self.model
        return {"edit": edit, "pictures": self.pictures, "output": self.output.to_json()}

    @property
    def kind(self) -> str:
        return "generate" if self.picture is None else "edit"

    @property
    def options(self) -> dict[str, Any]:
        """The options that were given, as plain data."""
        options = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}

    @property
    def pictures(self) -> dict[str, list[str]]:
        """sha256 of the input pictures by role."""
        single = {"picture": self.picture, "mask": self.mask, "markup": self.markup}
        files = {role: [sha256] for role, sha256 in single.items() if sha256}
        return {**files, **({"references": list(self.references)} if self.references else {})}

    @property
    def blobs(self) -> list[str]:
        """sha256 of all input pictures."""
        return [sha256 for hashes in self.pictures.values() for sha256 in hashes]

    def shape(self, picture: Size | None, references: Sequence[Size] = ()) -> JobShape:
        """The shape for batching, from the sizes of the pictures in pixels."""
        size = f"{self.size[0]}x{self.size[1]}" if isinstance(self.size, tuple) else self.size or ""
        if picture is not None:
            picture = expanded_size(picture, self.expand)
        return JobShape(picture, size, tuple(references), self.steps, self.guidance, self.model)

    def edit_request(self, files: Mapping[str, Sequence[bytes]]) -> EditRequest:
        """The request to the editor; `files` are encoded pictures by role. Raises BadRequest."""
        if self.unknown:
            raise BadRequest(f"this version has no option {sorted(self.unknown)[0]!r}; submit the edit again")
        single: dict[str, Any] = {
            role: hashes[0] for role, hashes in files.items() if hashes and role != "references"
        }
        return EditRequest(
            prompt=self.prompt, **self.options, **single, references=tuple(files.get("references", ()))
        )
