"""Requests, results and progress of edits, as plain data that is checked when it is created."""

from __future__ import annotations

import operator
import os
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, SupportsIndex, TypedDict

import numpy as np
from PIL import Image

from kontext.engine.expand import check_expand
from kontext.engine.guidance import step_range
from kontext.engine.sizes import Box, Size
from kontext.errors import BadRequest
from kontext.loras import Lora
from kontext.loras import parse as parse_loras
from kontext.options import MAX_CONTEXTS, offered, option
from kontext.pictures import Picture, PictureLike, check_writable, encode, format_for, write
from kontext.values import flag, is_bool, one_of, real_number, short_repr, whole_number

MAX_BATCH = option("variants").whole_range[1]
MAX_STEPS = option("steps").whole_range[1]
MAX_SEED = option("seed").whole_range[1]
MAX_PIXELS = 2**31 - 1  # pixels that a number of a size or box can mean
CANVAS = option("canvas").whole_range
GUIDANCE = option("guidance").range
CONTEXT_REFRESH = option("context_refresh").whole_range


LorasLike = str | os.PathLike[str] | Lora | Mapping[str, object] | Sequence[object] | None
"""What `kontext.loras.parse` accepts."""


class GenerateOptions(TypedDict, total=False):
    """The options of a generated picture; see the fields of `EditRequest`."""

    references: PictureLike | Sequence[PictureLike] | None
    seed: int | None
    steps: int | None
    sampler: str | None
    context_refresh: int | None
    step_cache: float | None
    canvas: int | None
    guidance: float | None
    negative_prompt: str | None
    true_guidance: float | None
    nag: float | None
    guidance_steps: str | None
    size: str | Size | None
    loras: LorasLike
    reference_layout: str | None


class EditOptions(GenerateOptions, total=False):
    """The options of an edit; see the fields of `EditRequest`."""

    box: Box | None
    mask: PictureLike | None
    markup: PictureLike | None
    lock: bool
    regions: bool | None
    strength: float | None
    expand: str | tuple[int, int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit, or without a picture, one picture generated from text.

    Raises BadRequest for a field of the wrong type or outside of its range. Whole numbers may be of any type
    that Python can index with, such as numpy's, but not floats, strings or bools.
    """

    prompt: str
    picture: PictureLike | None = None
    """The picture to edit; the first context."""
    references: PictureLike | Sequence[PictureLike] | None = ()
    """More contexts (a garment, a style, a character), one or several; with the picture at most 4."""
    seed: int | None = None
    """0 to 2^53 - 1; None: random. The result has the seed that was used."""
    steps: int | None = None
    """1 to 200; None: the model's default."""
    sampler: str | None = None
    """How to integrate: "euler" (None), "ab2" (second-order Adams-Bashforth, one evaluation per step) or
    "midpoint" (second order, two evaluations per step).
    """
    context_refresh: int | None = None
    """1 to 100: in models with full attention, the number of evaluations that share one computation of the
    input pictures' keys and values. None: 1, exact.
    """
    step_cache: float | None = None
    """0 to 1, usually 0.02: extrapolate the velocity instead of evaluating the model while the predicted
    relative error is below this. None: 0, exact.
    """
    guidance: float | None = None
    """1 to 30; None: the model's default. Above 1, models without a guidance input are evaluated twice per
    step.
    """
    negative_prompt: str | None = None
    """What the picture should not show. Blank means None."""
    true_guidance: float | None = None
    """1 to 30: classifier-free guidance away from the negative prompt, or from no prompt; the same as
    `guidance` for models without a guidance input. None: 2 with a negative prompt, else 1, which is off.
    """
    nag: float | None = None
    """1 to 30: normalized attention guidance away from the negative prompt, in place of true guidance."""
    guidance_steps: str | None = None
    """FIRST-LAST, counted from 1: the steps that use the negative prompt; None: all."""
    strength: float | None = None
    """0.01 to 1: the share of the schedule to run. Below 1, the edit starts from the picture with the noise
    of that time; None: 1, from pure noise.
    """
    canvas: int | None = None
    """64 to 2048: work at about the area of a square with this side in pixels; default: the model's own."""
    size: str | Size | None = None
    """match (the default of edits), WxH or W:H."""
    box: Box | None = None
    """(x, y, width, height) in pixels of the picture: the edit acts only there."""
    mask: PictureLike | None = None
    """A picture of the same size; white where the edit may act."""
    markup: PictureLike | None = None
    """A transparent overlay of the same size; the model sees it, and the edit acts within the strokes."""
    expand: str | tuple[int, int, int, int] | None = None
    """A border for the edit to fill; the picture itself is locked.

    "left,top,right,bottom" in pixels, four numbers, or an aspect ratio "W:H".
    """
    reference_layout: str | None = None
    """How the model sees several contexts: each with its own index (None, "index"), all with index 1 on one
    plane ("offset"), or side by side as one picture ("stitch").
    """
    loras: LorasLike = ()
    """LoRAs of this request, up to 8: files ("knit.safetensors"), names in the editor's folder of LoRAs
    ("knit"), with a scale ("knit:0.8"), `Lora` objects, or mappings with name or path and scale.
    """
    lock: bool = True
    """Keep the original pixels wherever nothing changed."""
    regions: bool | None = None
    """Skip the computation of what the edit does not touch, if that makes the model faster. None: True, but
    False in models with full attention, where it is an approximation.
    """

    def __post_init__(self) -> None:
        references = picture_list(self.references)
        count = len(references) + (self.picture is not None)
        if count > MAX_CONTEXTS:
            raise BadRequest(
                f"{count} pictures given; at most {MAX_CONTEXTS} are accepted, the edited one included"
            )
        checked = {
            "prompt": check_prompt(self.prompt),
            "references": references,
            "seed": None if self.seed is None else whole_number("seed", self.seed, 0, MAX_SEED),
            "steps": None if self.steps is None else whole_number("steps", self.steps, 1, MAX_STEPS),
            "sampler": _choice("sampler", self.sampler),
            "context_refresh": None
            if self.context_refresh is None
            else whole_number("context_refresh", self.context_refresh, *CONTEXT_REFRESH),
            "step_cache": _scale("step_cache", self.step_cache),
            "canvas": None if self.canvas is None else whole_number("canvas", self.canvas, *CANVAS),
            "guidance": _scale("guidance", self.guidance),
            "negative_prompt": _optional_prompt(self.negative_prompt),
            "true_guidance": _scale("true_guidance", self.true_guidance),
            "nag": _scale("nag", self.nag),
            "guidance_steps": _guidance_steps(self.guidance_steps),
            "expand": None if self.expand is None else check_expand(self.expand),
            "strength": _scale("strength", self.strength),
            "size": _size(self.size),
            "box": None if self.box is None else _box(self.box),
            "loras": parse_loras(self.loras),
            "reference_layout": _choice("reference_layout", self.reference_layout),
            "lock": flag("lock", self.lock),
            "regions": None if self.regions is None else flag("regions", self.regions),
        }
        check_expands_alone(self)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, repr=False)
class Result:
    """A finished picture and everything needed to repeat it. Notebooks display the picture."""

    picture: Image.Image
    """Mode RGB, or RGBA where the original was transparent and nothing changed."""
    region: Image.Image | None
    """Mode L, of the picture's size: where it may differ from the original. None: everywhere."""
    changed_fraction: float
    """Share of the pixels that differ from the original; 1 without an original."""
    seed: int
    steps: int
    guidance: float
    size: Size
    model: str
    evaluations: int
    """How often the transformer ran for this picture."""
    seconds: Mapping[str, float]
    """Times of load, encode, text, sample, decode, total; shared by all results of a batch."""
    warnings: tuple[str, ...]
    prompt: str
    settings: Mapping[str, object] = field(default_factory=dict)
    """The other settings of the edit, as plain data."""
    source: Picture | None = field(default=None, compare=False)
    """The picture that was edited, with the history its file carried; None for a generated one."""

    def save(self, path: str | os.PathLike[str], *, replace: bool = True) -> Path:
        """Write the picture as .png, .jpg or .webp with its provenance; returns the path.

        A PNG carries the whole chain of turns, including the chain of the edited PNG, as the command line
        writes it. The file is written atomically. Raises BadRequest if it cannot be written, and without
        `replace` if it exists.
        """
        from kontext.session import provenance  # only saving needs it

        check_writable(path)
        chain = provenance.extend_history(self.source, self)
        return write(path, provenance.encode(self.picture, chain, format_for(path)), replace)

    def __repr__(self) -> str:
        summary = f"{self.size[0]}x{self.size[1]}, {self.prompt[:40]!r}, seed {self.seed}, {self.model}"
        return f"Result({summary}, {self.changed_fraction:.0%} changed)"

    def _repr_png_(self) -> bytes:
        return encode(self.picture)


@dataclass(frozen=True)
class StepInfo:
    """Progress after each step of a batch. `preview(i)` renders a small preview of its picture i."""

    index: int
    """1 to `steps`."""
    steps: int
    preview: Callable[..., Image.Image]
    indices: Sequence[int] = (0,)
    """The requests of the batch, as indices into the requests of `Editor.edit_batch`."""


OnStep = Callable[[StepInfo], None]


_WITHOUT_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Joiners, marks and the byte order mark: a prompt needs another character."""
_TURNING = {0x202D: "a left-to-right override", 0x202E: "a right-to-left override"}


class _WithPicture(Protocol):
    @property
    def picture(self) -> object: ...


class _WithExpand(Protocol):
    @property
    def expand(self) -> object: ...


def check_needs_picture(request: _WithPicture) -> None:
    """Raise BadRequest for options that need a picture in a request without one."""
    needing = [
        option.name for option in offered("edit") if "generate" in option.exempt and option.kind != "flag"
    ]
    present = [name for name in needing if getattr(request, name) is not None]
    if present and request.picture is None:
        verb = "needs" if len(present) == 1 else "need"
        raise BadRequest(f"{' and '.join(present)} {verb} a picture; give the picture to edit")


def check_expands_alone(request: _WithExpand) -> None:
    """Raise BadRequest for a request that both expands the picture and points into it."""
    pointing = [name for name in ("box", "mask", "markup") if getattr(request, name) is not None]
    if request.expand is not None and pointing:
        raise BadRequest(f"expand edits the new border; give {' and '.join(pointing)} in another edit")


def check_prompt(prompt: object, name: str = "prompt") -> str:
    """Return the prompt. Raises BadRequest if it is empty or contains characters that are not text.

    Tabs and line ends are text; so are joiners, directional marks and isolates, which emoji and right-to-left
    scripts need. Surrogates, control characters and directional overrides are not.
    """
    if prompt is not None and not isinstance(prompt, str):
        raise BadRequest(f"{name} must be text, got {type(prompt).__name__}")
    if not prompt or all(letter.isspace() or letter in _WITHOUT_WIDTH for letter in prompt):
        raise BadRequest("the prompt is empty; say what to change, such as: Make the hair blue")
    for position, character in enumerate(prompt, start=1):
        kind = unicodedata.category(character)
        if kind == "Cs":
            what = "half of a character (was an emoji cut in two, or is the terminal not set to UTF-8?)"
        elif kind == "Cc" and character not in "\t\n\r\x85":
            what = "a control character"
        elif ord(character) in _TURNING:
            what = f"{_TURNING[ord(character)]}, which shows the text in another order than it is read"
        else:
            continue
        raise BadRequest(
            f"the {name.replace('_', ' ')} has {what}: U+{ord(character):04X} at position {position}; "
            "remove it and try again"
        )
    return str(prompt)


def picture_list(value: object) -> tuple[PictureLike, ...]:
    """One picture, several or None as a tuple. Raises BadRequest."""
    if value is None:
        return ()
    if isinstance(value, bytearray | memoryview):
        return (bytes(value),)
    if isinstance(value, str | os.PathLike | bytes | Image.Image | np.ndarray | Picture):
        return (value,)
    if isinstance(value, Mapping) or not hasattr(value, "__iter__"):
        raise BadRequest(f"references must be a picture or a list of pictures, got {type(value).__name__}")
    return tuple(value)


def _optional_prompt(prompt: object) -> str | None:
    if prompt is None or isinstance(prompt, str) and not prompt.strip():
        return None
    return check_prompt(prompt, "negative_prompt")


def _scale(name: str, value: object) -> float | None:
    return None if value is None else real_number(name, value, *option(name).range)


def _choice(name: str, value: object) -> str | None:
    return None if value is None else one_of(name, value, option(name).choices)


def _guidance_steps(value: object) -> str | None:
    if value is not None:
        step_range(str(value))
    return None if value is None else str(value)


def _pixels(value: object) -> int:
    """A number of pixels, or TypeError."""
    if not isinstance(value, SupportsIndex) or abs(number := operator.index(value)) > MAX_PIXELS:
        raise TypeError
    return number


def _box(box: object) -> Box:
    try:
        if (
            isinstance(box, str | bytes | Mapping)
            or not isinstance(box, Collection)
            or len(box) != 4
            or any(is_bool(edge) for edge in box)
        ):
            raise TypeError
        x, y, width, height = map(_pixels, box)
    except TypeError:
        raise BadRequest(
            f"box {short_repr(box)} is invalid; use X,Y,W,H as four whole numbers of pixels"
        ) from None
    return x, y, width, height


def _size(size: object) -> str | Size | None:
    """Convert numbers to int. Text is parsed later, by the size plan."""
    if size is None or isinstance(size, str):
        return size
    try:
        if (
            isinstance(size, bytes | Mapping)
            or not isinstance(size, Collection)
            or len(size) != 2
            or any(is_bool(edge) for edge in size)
        ):
            raise TypeError
        width, height = map(_pixels, size)
    except TypeError:
        raise BadRequest(
            f"size {short_repr(size)} is invalid; use match, WxH (such as 1024x768) or W:H"
        ) from None
    return width, height


class Cancel(Protocol):
    """A threading.Event, or any object with its `is_set`."""

    def is_set(self) -> bool: ...
