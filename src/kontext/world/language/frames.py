"""Frames that turn forms into sentences: orders, questions, wishes, asides; see `data/frames.toml`."""

from __future__ import annotations

from typing import NamedTuple

from .forms import data, lines

_Frames = tuple[str, ...]


class Frames(NamedTuple):
    """Frames and asides of one language."""

    do: _Frames
    """Around an imperative {request} or its gerund {doing}."""
    be: _Frames
    """Around a subject {s} (as an object: {o}) and its predicate {p} (third person {p3}, gerund {ping})."""
    have: _Frames
    """Around a noun phrase {wanted}."""
    complaints: _Frames
    """About a {topic}."""
    about: _Frames
    """Introductions of a {topic}."""
    openers: _Frames
    thanks: _Frames
    reasons: _Frames
    keeping: _Frames
    """Wishes that the rest stays."""
    negated_before: _Frames
    """Wishes that a {part} stays."""
    negated_after: _Frames
    joined: _Frames
    """Two requests, {first} and {second}, in one."""
    comma: str
    space: str


def _language(name: str, comma: str, space: str) -> Frames:
    return Frames(
        **{name: lines(text) for name, text in data("frames")[name].items()}, comma=comma, space=space
    )


FRAMES = (_language("english", ", ", " "), _language("chinese", "，", ""))
