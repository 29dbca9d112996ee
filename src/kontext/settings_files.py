"""Settings files in TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from kontext.errors import BadConfig


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a TOML file. Raises BadConfig if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not TOML: {error}") from None
