"""Where the settings of `kontext serve` come from: its options, the environment, a TOML file, the defaults.

Keys of the file are the fields of `Settings`; the variable of `max_batch` is KONTEXT_MAX_BATCH. An option
overrides a variable, a variable overrides the file. Unknown keys and variables are rejected.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from kontext.errors import BadConfig, KontextError
from kontext.loras import LoraAccess
from kontext.loras import parse as parse_loras
from kontext.server.settings import Settings, check_setting
from kontext.settings_files import read_toml
from kontext.terminal import json_text

PREFIX = "KONTEXT_"
CONFIG_VARIABLE = "KONTEXT_CONFIG"
VARIABLES: Mapping[str, str] = {"data": "KONTEXT_HOME"}
"""Variables that are not named after their setting."""
OTHER_VARIABLES = frozenset(
    PREFIX + name for name in ("CONFIG", "DEBUG", "KERNELS", "PROMPT_KEY", "JUDGE_KEY", "KEY", "COMPLETE")
)
"""Variables with another meaning than a setting of the service."""
LORA_SETTINGS: Mapping[str, Any] = {
    "loras.folder": Path | None,
    "loras.paths": bool,
    "loras.always": tuple[str, ...],
}
"""The fields of `Settings.loras`: a table of the file."""

# What Kubernetes and Docker set for a service of the name kontext: they address it, they do not configure it.
_SERVICE_LINK = re.compile(
    r"KONTEXT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")
_PASSWORD_FIELD = re.compile(r"([?&](?:password|secret|key)=)[^&\s]*")


@dataclass(frozen=True)
class Setting:
    """A value, and what gave it: "default", the name of a file or variable, or an option such as --port."""

    value: Any
    origin: str


@cache
def types() -> dict[str, Any]:
    """Types of all settings by key, in the order of `Settings`."""
    hints = get_type_hints(Settings)
    found: dict[str, Any] = {}
    for field in fields(Settings):
        found |= LORA_SETTINGS if field.name == "loras" else {field.name: hints[field.name]}
    return found


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return VARIABLES.get(key, PREFIX + key.replace(".", "_").upper())


def collect(
    file: Path | None, environment: Mapping[str, str], options: Mapping[str, tuple[str, Any]]
) -> dict[str, Setting]:
    """The settings that hold, in the order of `Settings`.

    options: for the key of a setting, the option that was given, such as "--port", and its value.
    Raises BadConfig, which names the file or variable and the key.
    """
    found = {key: Setting(value, "default") for key, value in _defaults().items()}
    found |= {} if file is None else from_file(file)
    found |= from_environment(environment)
    for key, (name, value) in options.items():
        found[key] = Setting(_in_range(key, value, name), name)
    return found


def build(settings: Mapping[str, Setting]) -> Settings:
    """The settings as the service takes them. Raises BadConfig."""
    values = {key: setting.value for key, setting in settings.items()}
    folder, paths, always = (values.pop(key) for key in LORA_SETTINGS)
    try:
        loras = LoraAccess(folder, paths, parse_loras(always))
    except KontextError as error:
        raise BadConfig(f"{settings['loras.always'].origin}: {error}") from None
    return Settings(loras=loras, **values)


def from_file(path: Path) -> dict[str, Setting]:
    """The settings of a TOML file. Raises BadConfig."""
    data = read_toml(path)
    if isinstance(table := data.pop("loras", {}), dict):
        data |= {f"loras.{key}": value for key, value in table.items()}
    else:
        raise BadConfig(f"{path}: loras must be a table with {_names(key[6:] for key in LORA_SETTINGS)}")
    found = {}
    for key, value in data.items():
        if key not in types():
            raise BadConfig(f"{path}: unknown setting {key!r}{_nearest(key, types())}")
        checked = _converted(key, value, f"{path}: {key}", strict=True)
        found[key] = Setting(_in_range(key, checked, str(path)), str(path))
    return found


def from_environment(environment: Mapping[str, str]) -> dict[str, Setting]:
    """The settings of the environment; variables that are empty are not set. Raises BadConfig.

    Lists are separated by commas.
    """
    keys = {variable(key): key for key in types()}
    found = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES or not text or _is_service_link(name, text):
            continue
        if name not in keys:
            raise BadConfig(f"unknown variable {name}{_nearest(name, keys)}")
        key = keys[name]
        several = get_origin(types()[key]) is tuple
        value = [part.strip() for part in text.split(",")] if several else text
        checked = _converted(key, value, name, strict=False)
        found[key] = Setting(_in_range(key, checked, name), name)
    return found


def to_toml(settings: Mapping[str, Setting]) -> str:
    """The settings as a file that `--config` reads, with their origins as comments; without passwords."""
    rows, table = [], ""
    ordered = sorted(settings.items(), key=lambda item: item[0] in LORA_SETTINGS)  # tables come last
    for key, setting in ordered:
        if key in LORA_SETTINGS and not table:
            table = "loras"
            rows += [("", ""), (f"[{table}]", "")]
        name = key.removeprefix(f"{table}.")
        text = f"# {name} is not set" if setting.value is None else f"{name} = {to_text(setting.value)}"
        rows.append((text, f"# {json_text(setting.origin)[1:-1]}"))
    width = 44  # of the column of values
    return "\n".join(f"{text:{width}}  {origin}".rstrip() for text, origin in rows)


def _defaults() -> dict[str, Any]:
    defaults = Settings()
    found = {key: getattr(defaults, key) for key in types() if key not in LORA_SETTINGS}
    access = {"loras.folder": defaults.loras.folder, "loras.paths": defaults.loras.paths, "loras.always": ()}
    return {key: (found | access)[key] for key in types()}


def _converted(key: str, value: Any, place: str, *, strict: bool) -> Any:
    """A value of a file or variable as the type of its setting. Raises BadConfig that names the place.

    strict: whether text is refused for a number, and a number for text.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter[Any](types()[key])
    try:
        if strict:  # as JSON, in which strict types still take a list for a tuple and text for a path
            return adapter.validate_json(json.dumps(value, default=str), strict=True)
        return adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input ").removeprefix("should ").removeprefix("be ")
        raise BadConfig(f"{place} must be {reason}, got {value!r}") from None


def _in_range(key: str, value: Any, origin: str) -> Any:
    try:
        check_setting(key, value)
    except BadConfig as error:
        raise BadConfig(f"{origin}: {error}") from None
    return value


def _is_service_link(name: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(name)) or (name.endswith("_PORT") and "://" in text)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else "; `kontext serve --show-config` lists all settings"


def _names(keys: Iterable[str]) -> str:
    return ", ".join(keys)


def to_text(value: Any) -> str:
    """A value in TOML, without the password of a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(to_text, value))}]"
    hidden = _PASSWORD.sub(r"\1:***@", str(value))
    return json_text(_PASSWORD_FIELD.sub(r"\1***", hidden))
