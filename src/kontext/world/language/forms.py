"""The forms of a request by variant and language: imperatives, states and noun phrases.

Each line of `data/forms/*.toml` is a pattern: "(dye|color) the hair {color}" has two alternatives and a slot,
and "<unwanted>" stands for the alternatives of a class.
`grammar.py` expands patterns and puts each form into frames of its own ("could you ...?", "I wish ...").
"""

from __future__ import annotations

import functools
import random
import re
import tomllib
from importlib.resources import files
from typing import Any, NamedTuple

_GROUP = re.compile(r"\(([^()]*)\)")
_CLASS = re.compile(r"<(\w+)>")


class Forms(NamedTuple):
    """Patterns of one variant in one language; any of them may be empty, but not all."""

    do: tuple[str, ...] = ()
    """Imperatives: "dye the hair {color}"."""
    be: tuple[str, ...] = ()
    """Wanted states, as subject ~ predicate with its verb in the base form: "the hair ~ be {color}"."""
    have: tuple[str, ...] = ()
    """Noun phrases of the result: "{color} hair"."""
    it: tuple[str, ...] = ()
    """Requests that refer to the topic by a pronoun: "make it {color}"."""
    say: tuple[str, ...] = ()
    """Sentences of their own, such as facts and complaints: "{thing} is in the way"."""
    topic: str = ""
    """What the request is about, for complaints and asides: "the hair"."""


def data(name: str) -> dict[str, Any]:
    """A table of `data/`."""
    return tomllib.loads((files(__package__) / "data" / f"{name}.toml").read_text("utf-8"))


def lines(text: str) -> tuple[str, ...]:
    """The lines of a multi-line string."""
    return tuple(text.strip("\n").split("\n"))


_CLASSES: dict[str, dict[str, str]] = data("frames")["classes"]


def _forms(table: dict[str, str], language: str) -> Forms:
    def patterns(text: str) -> tuple[str, ...]:
        return lines(_CLASS.sub(lambda name: f"({_CLASSES[language][name.group(1)]})", text))

    patterns_by_form = {name: patterns(text) for name, text in table.items() if name != "topic"}
    return Forms(**patterns_by_form, topic=table.get("topic", ""))


_FILES = ("hair_and_face", "clothes_and_hands", "things", "pictures", "lettering", "whole")
FORMS: dict[str, tuple[Forms, Forms]] = {
    variant: (_forms(table["english"], "english"), _forms(table["chinese"], "chinese"))
    for file in _FILES
    for variant, table in data(f"forms/{file}").items()
}
"""English and Chinese forms of each variant of `templates.py`."""


def expand(r: random.Random, pattern: str) -> str:
    """One of the sentences that a pattern stands for, with slots unfilled."""
    if "(" not in pattern:
        return pattern
    text = _GROUP.sub(lambda group: r.choice(group.group(1).split("|")), pattern)
    return re.sub(" {2,}", " ", text).strip()


@functools.cache
def count(pattern: str) -> int:
    """How many sentences a pattern stands for; groups do not nest."""
    total = 1
    for group in _GROUP.findall(pattern):
        total *= len(group.split("|"))
    return total
