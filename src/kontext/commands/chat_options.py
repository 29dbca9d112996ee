"""The options of an edit as chat commands: `/steps 8` sets one, `/steps` alone resets it."""

from __future__ import annotations

from typing import Any

from kontext.commands import options
from kontext.errors import BadRequest
from kontext.options import Option, offered

COMMANDS: dict[str, Option] = {
    option.name_on("chat"): option for option in offered("chat") if option.name != "variants"
}


def help_line(name: str) -> str:
    option = COMMANDS[name]
    return f"/{name} {option.example}".ljust(22) + option.help


def parse(name: str, text: str, current: object, size: tuple[int, int]) -> object:
    """Parse the value of an option; None for an empty text, which means the default.

    current: the current value; references and LoRAs are appended to it. size: of the picture in pixels.
    Raises KontextError.
    """
    from kontext.engine.checks import check_settings
    from kontext.engine.pointing import check_box
    from kontext.engine.requests import EditRequest
    from kontext.engine.sizes import parse as parse_size

    if not text:
        return None
    option = COMMANDS[name]
    if option.type in ("picture", "pictures"):
        path = options.parse_picture(text)
        earlier = current if isinstance(current, list) else []
        value: object = path if option.type == "picture" else [*earlier, path]
    elif option.type == "loras":
        loras = [*(current if isinstance(current, list) else []), text]
        check_settings("any", {"loras": loras})
        value = loras
    elif option.type == "boolean":
        value = options.parse_switch(text, name)
    elif option.type == "box":
        value = box = options.parse_box(text)
        if box is not None:
            check_box(box, size)
    elif option.type in ("integer", "number"):
        try:
            value = int(text) if option.type == "integer" else float(text)
        except ValueError:
            kind = "a whole number" if option.type == "integer" else "a number"
            raise BadRequest(f"{text!r} is not {kind}; such as /{name} {option.example}") from None
    else:
        value = text
    settings: dict[str, Any] = {option.name: value}
    EditRequest(prompt="any", **settings)  # checks the range
    if option.name == "size":
        parse_size(text)
    return value
