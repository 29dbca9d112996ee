"""A kind of edit: proposes a value, applies it, phrases it as an instruction, and may have an inverse.

A value is plain data, so that the same kind with other values yields the distractors of an edit, and edits
can be stored, repeated and undone.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..drawing.characters import FAMILIES
from ..language.sentences import Phrase
from ..language.vocabulary import Words
from ..scenes.scene import Pool, Scene, copied, settle

T = TypeVar("T")

Value = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EditKind:
    """One kind of edit."""

    name: str
    category: str
    weight: float
    """How often it is drawn, against the other kinds."""
    propose: Callable[[random.Random, Scene, Pool], Value | None]
    """A value by chance; None where the scene does not allow this edit."""
    apply: Callable[[Scene, Value], Any]
    """Changes a scene in place."""
    phrase: Callable[[Scene, Value], Phrase]
    """The edit in words, given the scene before."""
    undo: Callable[[Scene, Value], tuple[str, Value]] | None = None
    """Kind and value that might take it back, given the scene before."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """What to ask of `sample_scene`, so that a proposal is likely."""
    part: str = ""
    """Kinds of different parts can be joined in one instruction and follow each other; "" excludes both."""
    style_hides: bool = False
    """Meaningless inside a style that has no colors or letters."""
    out_of_domain: bool = False

    def after(self, before: Scene, value: Value) -> Scene:
        """The scene that the edit makes; `before` stays as it is."""
        scene = copied(before)
        scene["box"] = None
        self.apply(scene, value)
        return scene if self.out_of_domain else settle(scene)


def value_label(value: Value) -> str:
    """A value in few words: "red", "cat, blue"; equal for equal answers wherever they are given."""
    if "background" in value:
        shown = [value["background"][key] for key in ("place", "color", "time", "season")]
        return " ".join(part for part in shown if part)
    if "edits" in value:
        return " + ".join(f"{name}: {value_label(part)}" for name, part in value["edits"])
    hidden = ["index", "box"]
    if "style" in value:
        hidden.append("phrase")
    said = {**value, **(value.get("object") or {}), **(value.get("held") or {})}
    if "name" in said:
        hidden += ["x", "y", "size", "ground"]
    parts = [part for key, part in said.items() if key not in hidden and not isinstance(part, dict)]
    return ", ".join(str(part) for part in parts if part is not None) or "none"


def other(r: random.Random, values: Iterable[T], current: object) -> T | None:
    """One of `values` that is not the current one; None where there is none."""
    others = [value for value in values if value != current]
    return r.choice(others) if others else None


def who(scene: Scene) -> Words:
    """Either "the kid", or "everything" when the picture has no character."""
    if "foreign" in scene or not scene["character"]:
        return "everything", "所有东西"
    return FAMILIES[scene["character"]["family"]].noun
