"""LoRAs as requests name them: files, or names in a folder of the operator, each with a scale."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kontext.errors import BadRequest, NotFound
from kontext.home import loras_folder
from kontext.options import MAX_LORAS
from kontext.values import real_number, short_repr

SCALES = (-16.0, 16.0)
EXTENSIONS = (".safetensors", ".sft")
KEYS = ("name", "path", "scale", "sha256")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A LoRA of a request. Either `name` or `path` is set."""

    name: str | None = None
    """Path within the folder of LoRAs without the ending, such as "styles/knit"."""
    path: str | None = None
    """A file, or a folder of PEFT or diffusers."""
    scale: float = 1.0
    sha256: str | None = None
    """The file's digest in an earlier edit."""

    @property
    def label(self) -> str:
        return self.name or Path(self.path or "").name.removesuffix(".safetensors")

    def to_json(self) -> dict[str, Any]:
        """Plain data that `parse` reads; a path is absolute."""
        place = {"name": self.name} if self.path is None else {"path": os.path.abspath(self.path)}
        digest = {} if self.sha256 is None else {"sha256": self.sha256}
        return {**place, "scale": self.scale, **digest}

    def embedded(self) -> dict[str, Any]:
        """Plain data for the file of a picture, without paths."""
        digest = {} if self.sha256 is None else {"sha256": self.sha256}
        return {"name": self.label[:200], "scale": self.scale, **digest}


def parse(value: Any, *, paths: bool = True) -> tuple[Lora, ...]:
    """LoRAs from one value or several: FILE, NAME, FILE:SCALE, a mapping, or a pair of file and scale.

    paths: whether a string may be a file; otherwise it is a name. Raises BadRequest.
    """
    if value is None:
        return ()
    if isinstance(value, str | os.PathLike | Lora | Mapping):
        value = (value,)
    if not isinstance(value, Iterable):
        raise BadRequest(f"loras must be a list, got {short_repr(value)}")
    loras = tuple(_parse_lora(item, paths) for item in value)
    if len(loras) > MAX_LORAS:
        raise BadRequest(f"loras must be 0 to {MAX_LORAS}, got {len(loras)}")
    return loras


def _parse_lora(value: Any, paths: bool) -> Lora:
    if isinstance(value, Lora):
        return Lora(**{**vars(value), "scale": _scale(value.scale)})
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str | os.PathLike):
        return _located(os.fspath(value[0]), _scale(value[1]), paths)
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise BadRequest(
            f"a LoRA must be FILE, FILE:SCALE or an object with name and scale, got {short_repr(value)}"
        )
    text = os.fspath(value)
    place, colon, scale = text.rpartition(":")
    if not colon or (paths and _exists(text)):
        return _located(text, 1.0, paths)
    try:
        number = float(scale)
    except ValueError:
        raise BadRequest(f"LoRA '{text}': give FILE or FILE:SCALE, such as knit.safetensors:0.8") from None
    return _located(place, _scale(number), paths)


def _from_mapping(value: Mapping[str, Any]) -> Lora:
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise BadRequest(f"a LoRA has no field {unknown[0]!r}; it has {', '.join(KEYS[:3])}")
    places = [value.get(key) for key in ("name", "path") if value.get(key) is not None]
    if len(places) != 1 or not isinstance(places[0], str) or not places[0]:
        raise BadRequest("a LoRA needs either a name or a path, as a string")
    scale = _scale(value.get("scale", 1.0))
    return Lora(name=value.get("name"), path=value.get("path"), scale=scale, sha256=value.get("sha256"))


def _located(text: str, scale: float, paths: bool) -> Lora:
    is_path = paths and (
        text.lower().endswith(EXTENSIONS) or text.startswith(("/", ".", "~")) or _exists(text)
    )
    return Lora(path=text, scale=scale) if is_path else Lora(name=text, scale=scale)


def _scale(value: Any) -> float:
    return real_number("the scale of a LoRA", value, *SCALES)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class LoraAccess:
    """The LoRAs that requests may use."""

    folder: Path | None = None
    """Requests may name the files in this folder; None: no names."""
    paths: bool = True
    """Whether requests may use any file by its path."""
    always: tuple[Lora, ...] = ()
    """LoRAs of every request, before its own."""

    @classmethod
    def of_account(cls) -> LoraAccess:
        """Any file, and the names of this account's folder."""
        return cls(loras_folder())

    def to_text(self) -> str:
        folder = None if self.folder is None else str(self.folder)
        always = [lora.to_json() for lora in self.always]
        return json.dumps({"folder": folder, "paths": self.paths, "always": always})

    @classmethod
    def from_text(cls, text: str) -> LoraAccess:
        data = json.loads(text)
        folder = None if data["folder"] is None else Path(data["folder"])
        return cls(folder, data["paths"], parse(data["always"]))

    def names(self) -> list[str]:
        """The names in the folder."""
        if self.folder is None or not self.folder.is_dir():
            return []
        files = [file.relative_to(self.folder) for file in sorted(self.folder.rglob("*")) if file.is_file()]
        return [
            file.with_suffix("").as_posix()
            for file in files
            if file.suffix.lower() in EXTENSIONS and not any(part.startswith(".") for part in file.parts)
        ]

    def find(self, lora: Lora) -> Path:
        """The file of a LoRA. Raises BadRequest for a path where only names are allowed, NotFound."""
        if lora.path is not None:
            if not self.paths:
                raise BadRequest("LoRAs cannot be given by path here; use a name")
            path = Path(lora.path).expanduser()
            if not _exists(str(path)):
                raise NotFound(f"LoRA {lora.path}: no such file")
            return path
        name = lora.name or ""
        if self.folder is not None and all(part and part[0] != "." for part in name.split("/")):
            files = [self.folder / f"{name}{ending}" for ending in EXTENSIONS]
            if found := next((file for file in files if _is_file(file)), None):
                return found
        names = self.names()
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        known = f"; known are {', '.join(names[:10])}{more}" if names else ""
        raise NotFound(f"no LoRA named {name[:80]!r}{known}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
