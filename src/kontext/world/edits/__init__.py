"""The table of edit kinds, with inverse edits, compound edits and the edit that changes nothing."""

import random

from ..scenes.scene import Pool, Scene, settle
from .character import CHARACTER_KINDS
from .kind import EditKind, Phrase, Value, value_label, who
from .objects import OBJECT_KINDS
from .out_of_domain import OUT_OF_DOMAIN_KINDS
from .picture import PICTURE_KINDS
from .text import TEXT_KINDS

__all__ = ["JOINABLE", "KINDS", "EditKind", "Value", "inverse", "value_label"]


def inverse(kind: EditKind, before: Scene, value: Value) -> tuple[EditKind, Value] | None:
    """The edit that restores exactly the scene before; None when there is none."""
    if kind.undo is None or before["box"]:
        return None
    name, back = kind.undo(before, value)
    return (KINDS[name], back) if KINDS[name].after(kind.after(before, value), back) == before else None


def _clash(first: EditKind, second: EditKind) -> bool:
    """Whether two edits act on the same thing, or one is a style that would hide the other."""
    hidden = "style" in (first.part, second.part) and first.style_hides and second.style_hides
    return first.part == second.part or hidden


def _propose_compound(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    """Two edits of different parts, the second on the result of the first."""
    allowed = {name for name, _ in pool.kinds}
    names = [name for name in JOINABLE if name in allowed] or list(JOINABLE)
    done: list[tuple[EditKind, Value]] = []
    for name in r.sample(names, len(names)):
        kind = KINDS[name]
        if any(_clash(kind, earlier) for earlier, _ in done):
            continue
        value = kind.propose(r, scene, pool)
        if value is None:
            continue
        done.append((kind, value))
        scene = kind.after(scene, value)
        if len(done) == 2:
            return {"edits": [[kind.name, value] for kind, value in done]}
    return None


def _apply_compound(scene: Scene, value: Value) -> None:
    for name, part in value["edits"]:
        KINDS[name].apply(scene, part)
        settle(scene)


def _phrase_compound(scene: Scene, value: Value) -> Phrase:
    raise TypeError("a compound edit is phrased by its two parts")


def _phrase_nothing(scene: Scene, value: Value) -> Phrase:
    return ("nothing/unsupported" if value else "nothing"), {"who": who(scene)}


_UNSUPPORTED = 0.3  # of the requests after which nothing changes ask for what the world does not have
_ALL = (
    *CHARACTER_KINDS,
    *OBJECT_KINDS,
    *PICTURE_KINDS,
    *TEXT_KINDS,
    EditKind(
        name="nothing",
        category="local",
        weight=1.2,
        propose=lambda r, scene, pool: {"request": "unsupported"} if r.random() < _UNSUPPORTED else {},
        apply=lambda scene, value: None,
        phrase=_phrase_nothing,
    ),
    EditKind(
        name="compound",
        category="local",
        weight=4,
        propose=_propose_compound,
        apply=_apply_compound,
        phrase=_phrase_compound,
        style_hides=True,
    ),
    *OUT_OF_DOMAIN_KINDS,
)
KINDS = {kind.name: kind for kind in _ALL}
JOINABLE = tuple(kind.name for kind in _ALL if kind.part)
