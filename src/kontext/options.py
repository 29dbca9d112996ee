"""The options of an edit, defined once: type, range, default, help, and the surfaces that take them.

`EditRequest`, the command line, the HTTP bodies, batch tables, MCP tools, provenance and `docs/options.md`
take ranges and texts from here, or are compared with it by `tests/test_options.py`. The dialects of other
services (`DIALECTS`) have the fields of those services, with these ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MAX_LORAS = 8
MAX_CONTEXTS = 4  # pictures that the model is shown, the edited one included

Kind = Literal["plain", "picture", "flag"]
Type = Literal["integer", "number", "text", "choice", "box", "picture", "pictures", "boolean", "loras"]
Surface = Literal[
    "python", "edit", "generate", "batch", "chat", "table", "http", "mcp edit", "mcp generate", "provenance"
]
SURFACES: Mapping[Surface, str] = {
    "python": "`EditRequest`, `Editor.edit`",
    "edit": "`kontext edit`",
    "generate": "`kontext generate`",
    "batch": "`kontext batch`",
    "chat": "`kontext chat`",
    "table": "columns of a batch table",
    "http": "`POST /api/sessions/{session}/edits`",
    "mcp edit": "MCP tool `edit`",
    "mcp generate": "MCP tool `generate`",
    "provenance": "settings of a turn in a saved PNG",
}
DASHED = ("edit", "generate", "batch", "chat")
"""Surfaces that write names with dashes."""


@dataclass(frozen=True)
class Option:
    """One option of an edit."""

    name: str
    kind: Kind
    type: Type
    default: object
    help: str
    low: float | None = None
    high: float | None = None
    """Smallest and largest value; of `pictures` and `loras`, how many."""
    choices: tuple[str, ...] = ()
    """The values of a "choice"."""
    example: str = ""
    """An example value, as users write it."""
    names: Mapping[Surface, str] = field(default_factory=dict)
    """Names on surfaces that use another name."""
    exempt: Mapping[Surface, str] = field(default_factory=dict)
    """Surfaces without the option, and why."""

    def name_on(self, surface: Surface) -> str:
        name = self.name.replace("_", "-") if surface in DASHED else self.name
        return self.names.get(surface, name)

    @property
    def whole_range(self) -> tuple[int, int]:
        """(low, high) of whole numbers. Raises ValueError for an option without them."""
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name} has no range")
        return int(self.low), int(self.high)

    @property
    def range(self) -> tuple[float, float]:
        """(low, high). Raises ValueError for an option without them."""
        low, high = self.low, self.high
        if low is None or high is None:
            raise ValueError(f"{self.name} has no range")
        return low, high

    def json_schema(self) -> dict[str, Any]:
        """The option as JSON schema; a picture is the path of a file."""
        path = {"type": "string", "description": "Path of a picture on this machine."}
        lora = {"type": "string", "description": "FILE, NAME, FILE:SCALE or NAME:SCALE."}
        schemas: dict[str, dict[str, Any]] = {
            "integer": {"type": "integer", "minimum": self.low, "maximum": self.high},
            "number": {"type": "number", "minimum": self.low, "maximum": self.high},
            "text": {"type": "string"},
            "choice": {"type": "string", "enum": list(self.choices)},
            "box": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
            "picture": {"type": "string"},
            "pictures": {"type": "array", "items": path, "maxItems": self.high},
            "boolean": {"type": "boolean"},
            "loras": {"type": "array", "items": lora, "maxItems": self.high},
        }
        return {**schemas[self.type], "description": self.help}


_NO_PICTURE = "there is no picture yet"
_WITHOUT_PICTURE: dict[Surface, str] = {"generate": _NO_PICTURE, "mcp generate": _NO_PICTURE}
_PER_PICTURE: dict[Surface, str] = {
    **_WITHOUT_PICTURE,
    "batch": "belongs to one picture; a table has a column for it",
}
_NOT_IN_FILES: dict[Surface, str] = {"provenance": "a saved picture carries no other pictures"}

TABLE: tuple[Option, ...] = (
    Option(
        "seed",
        "plain",
        "integer",
        None,
        "The same seed gives the same picture; default: drawn at random.",
        example="7",
        low=0,
        high=2**53 - 1,  # the largest whole number that survives JSON in a browser
        exempt={"provenance": "a field of the turn itself"},
    ),
    Option(
        "steps",
        "plain",
        "integer",
        None,
        "Sampling steps, 1 to 200; default: the model's own.",
        example="8",
        low=1,
        high=200,
    ),
    Option(
        "sampler",
        "plain",
        "choice",
        None,
        "Sampling method: euler (the default), ab2 (second order, still one evaluation per step) or midpoint "
        "(second order, two evaluations per step).",
        choices=("euler", "ab2", "midpoint"),
        example="ab2",
    ),
    Option(
        "context_refresh",
        "plain",
        "integer",
        None,
        "Models with full attention, such as [dev]: evaluations that share one computation of the input "
        "pictures, 1 to 100; above 1 is faster and approximate; default: 1, exact.",
        example="4",
        low=1,
        high=100,
    ),
    Option(
        "step_cache",
        "plain",
        "number",
        None,
        "Skip evaluations of the model that can be extrapolated with a relative error below this, 0 to 1, "
        "usually 0.02: faster with many steps, approximate; default: 0, exact.",
        example="0.02",
        low=0,
        high=1,
    ),
    Option(
        "guidance",
        "plain",
        "number",
        None,
        "How strictly to follow the prompt, 1 to 30; default: the model's own.",
        example="2.5",
        low=1,
        high=30,
    ),
    Option(
        "negative_prompt",
        "plain",
        "text",
        None,
        "What the picture should not show; needs two evaluations per step.",
        example="blurry",
    ),
    Option(
        "true_guidance",
        "plain",
        "number",
        None,
        "How far to move away from the negative prompt, or from an empty prompt, 1 to 30; default: off "
        "(1), or 2 with a negative prompt.",
        example="2",
        low=1,
        high=30,
    ),
    Option(
        "nag",
        "plain",
        "number",
        None,
        "Normalized attention guidance in place of true guidance, 1 to 30, usually 5: the negative prompt "
        "acts inside the model, which suits few steps.",
        example="5",
        low=1,
        high=30,
    ),
    Option(
        "guidance_steps",
        "plain",
        "text",
        None,
        "Steps that use the negative prompt, as FIRST-LAST from 1; default: all.",
        example="1-8",
    ),
    Option(
        "strength",
        "plain",
        "number",
        None,
        "Share of the sampling schedule to run, 0.01 to 1: below 1, the edit starts from the picture with "
        "noise added; default: 1, from noise alone.",
        example="0.6",
        low=0.01,
        high=1,
        exempt=_WITHOUT_PICTURE,
    ),
    Option(
        "canvas",
        "plain",
        "integer",
        None,
        "Working resolution: the side, in pixels, of a square with the same area, 64 to 2048; a smaller "
        "canvas takes less time and memory; default: the model's own.",
        example="512",
        low=64,
        high=2048,
    ),
    Option(
        "size",
        "plain",
        "text",
        "match",
        "match, WxH or W:H.",
        example="1024x768",
    ),
    Option(
        "box",
        "plain",
        "box",
        None,
        "Edit only here: X,Y,W,H in pixels.",
        example="10,20,64,64",
        exempt=_PER_PICTURE,
    ),
    Option(
        "mask",
        "picture",
        "picture",
        None,
        "Edit only where this mask, of the picture's size, is white.",
        example="mask.png",
        exempt={**_PER_PICTURE, **_NOT_IN_FILES},
    ),
    Option(
        "markup",
        "picture",
        "picture",
        None,
        "Transparent overlay drawn over the picture; the edit acts within what is drawn.",
        example="overlay.png",
        exempt={**_PER_PICTURE, **_NOT_IN_FILES},
    ),
    Option(
        "references",
        "picture",
        "pictures",
        (),
        "More pictures, which the prompt calls image 2 to 4; up to 3.",
        example="hat.png",
        low=0,
        high=MAX_CONTEXTS - 1,
        names={"edit": "ref", "generate": "ref", "batch": "ref", "chat": "ref"},
        exempt=_NOT_IN_FILES,
    ),
    Option(
        "expand",
        "plain",
        "text",
        None,
        "Add a border that the edit fills, LEFT,TOP,RIGHT,BOTTOM in pixels, or up to an aspect ratio W:H; "
        "the picture itself is kept, unless a size crops or scales it.",
        example="16:9",
        exempt=_WITHOUT_PICTURE,
    ),
    Option(
        "reference_layout",
        "plain",
        "choice",
        None,
        "How the model sees several pictures: each with its own index (index, the default), laid out on one "
        "plane (offset), or as one picture, side by side (stitch).",
        choices=("index", "offset", "stitch"),
        example="offset",
    ),
    Option(
        "loras",
        "plain",
        "loras",
        (),
        "LoRAs of this request with their scales, up to 8: files, or names in the folder of LoRAs.",
        example="knit.safetensors:0.8",
        low=0,
        high=MAX_LORAS,
        names={"edit": "lora", "generate": "lora", "batch": "lora", "chat": "lora"},
    ),
    Option(
        "lock",
        "flag",
        "boolean",
        True,
        "Keep the original pixels where nothing changed.",
        example="off",
        exempt=_WITHOUT_PICTURE,
    ),
    Option(
        "regions",
        "flag",
        "boolean",
        None,
        "Compute only where something changes; default: on, but off in models with full attention, such as "
        "[dev], where it is an approximation.",
        example="off",
        exempt=_WITHOUT_PICTURE,
    ),
    Option(
        "variants",
        "plain",
        "integer",
        1,
        "Number of results, 1 to 16, with consecutive seeds.",
        example="4",
        low=1,
        high=16,
        names={"http": "count"},
        exempt={
            "python": "`Editor.variants` makes several requests of one",
            "batch": "one result for each picture",
            "table": "one result for each row",
            "mcp edit": "the tool `vary` makes variants of a turn",
            "mcp generate": "the tool `vary` makes variants of a turn",
            "provenance": "each variant is a turn of its own",
        },
    ),
)

DIALECTS: Mapping[str, Mapping[str, str]] = {
    "BFL": {
        **{"seed": "seed", "steps": "steps", "guidance": "guidance", "size": "aspect_ratio"},
        **{"references": "input_image_2", "loras": "loras"},
    },
    "OpenAI": {
        **{"seed": "seed", "steps": "num_inference_steps", "guidance": "guidance_scale", "size": "size"},
        **{"mask": "mask", "markup": "markup", "references": "image", "loras": "loras", "variants": "n"},
    },
    "Hugging Face": {
        **{"seed": "seed", "steps": "num_inference_steps", "guidance": "guidance_scale"},
        **{"negative_prompt": "negative_prompt", "size": "target_size", "loras": "loras"},
    },
}
"""For each HTTP dialect of another service, its fields for our options."""
NOT_IN_DIALECTS = frozenset(
    {
        *(
            "sampler",
            "context_refresh",
            "step_cache",
            "true_guidance",
            "nag",
            "guidance_steps",
            "strength",
            "canvas",
            "box",
            "expand",
        ),
        *("reference_layout", "lock", "regions"),
    }
)
"""Options that no dialect has."""


def option(name: str) -> Option:
    """An option by its name. Raises KeyError."""
    return {option.name: option for option in TABLE}[name]


def offered(surface: Surface) -> tuple[Option, ...]:
    """The options that a surface takes."""
    return tuple(option for option in TABLE if surface not in option.exempt)


def limit_text(value: float | None) -> str:
    """A limit in words and tables: 150, 1.5, 9007199254740991."""
    return "" if value is None else f"{value:.0f}" if value == int(value) else f"{value:g}"


def markdown() -> str:
    """The table as `docs/options.md` shows it."""
    lines = ["| option | type | values | default | description |", "| --- | --- | --- | --- | --- |"]
    for option in TABLE:
        values = "" if option.low is None else f"{option.low:g} to {limit_text(option.high)}"
        values = ", ".join(f"`{choice}`" for choice in option.choices) or values
        default = "on" if option.default is True else f"`{option.default}`" if option.default else ""
        lines.append(f"| `{option.name}` | {option.type} | {values} | {default} | {option.help} |")
    lines += ["", "| surface | other names | without |", "| --- | --- | --- |"]
    for surface, words in SURFACES.items():
        others = [option for option in offered(surface) if option.name_on(surface) != option.name]
        names = ", ".join(f"`{option.name}` is `{option.name_on(surface)}`" for option in others)
        reasons: dict[str, list[str]] = {}
        for option in TABLE:
            if surface in option.exempt:
                reasons.setdefault(option.exempt[surface], []).append(f"`{option.name}`")
        absent = "; ".join(f"{', '.join(names_exempt)}: {reason}" for reason, names_exempt in reasons.items())
        lines.append(f"| {words} | {names} | {absent} |")
    lines += ["", "| HTTP dialect | fields |", "| --- | --- |"]
    for dialect, named in DIALECTS.items():
        pairs = ", ".join(
            f"`{name}` is `{field}`" if name != field else f"`{name}`" for name, field in named.items()
        )
        lines.append(f"| {dialect} | {pairs} |")
    return "\n".join(lines) + "\n"
