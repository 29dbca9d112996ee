"""Settings of a turn: the arguments of its edit as plain data, and its input pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from kontext.errors import BadRequest
from kontext.loras import parse as parse_loras
from kontext.session.pixels import as_picture

PICTURES = {"references": "reference", "mask": "mask", "markup": "markup"}
"""Picture arguments of `edit` and their roles."""
NOT_KEPT = ("on_step", "cancel")


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Image.Image]]]:
    """Arguments of an edit -> (plain values for the settings column, pictures by role)."""
    plain: dict[str, Any] = {}
    pictures: dict[str, list[Image.Image]] = {}
    for key, value in settings.items():
        if key in PICTURES:
            listed = [] if value is None else list(value) if key == "references" else [value]
            pictures |= {PICTURES[key]: [as_picture(picture) for picture in listed]} if listed else {}
        elif key == "loras":
            if loras := parse_loras(value):
                plain[key] = [lora.to_json() for lora in loras]
        elif key not in NOT_KEPT and value is not None:
            plain[key] = plain_value(value)
    return plain, pictures


def plain_value(value: Any) -> Any:
    """Convert tuples and numpy numbers to JSON data. Raises BadRequest for values that cannot be stored."""
    try:
        return json.loads(json.dumps(value, default=lambda number: number.item(), allow_nan=False))
    except (TypeError, ValueError, AttributeError):
        raise BadRequest(
            f"the setting {str(value)[:80]!r} cannot be stored with a turn; it must be plain JSON data"
        ) from None


def add_lora_digests(plain: dict[str, Any], result: Any) -> None:
    """Add to the LoRAs of a turn the digests of the files that its result was made with."""
    used = getattr(result, "settings", None) or {}
    for lora, made_with in zip(plain.get("loras", ()), used.get("loras", ())):
        lora["sha256"] = made_with["sha256"]
