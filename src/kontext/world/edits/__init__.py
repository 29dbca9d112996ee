"""The table of edit kinds; edits that take others back, two edits in one, the edit that changes nothing."""

import random

from ..scene import Pool, Scene, settle
from .character import CHARACTER_KINDS
from .foreign import FOREIGN_KINDS
from .kind import EditKind, Said, Value, value_label
from .objects import OBJECT_KINDS
from .picture import PICTURE_KINDS
from .text import TEXT_KINDS

__all__ = ["JOINABLE", "KINDS", "EditKind", "Value", "inverse", "value_label"]


def inverse(kind: EditKind, before: Scene, value: Value) -> tuple[EditKind, Value] | None:
    """The edit that leads from the scene after back to exactly the scene before, where there is one."""
    if kind.undo is None or before["box"]:
        return None
    name, back = kind.undo(before, value)
    return (KINDS[name], back) if KINDS[name].after(kind.after(before, value), back) == before else None


def _clash(one: EditKind, two: EditKind) -> bool:
    """Whether two edits act on the same thing, or one is a style that would hide the other."""
    hidden = "style" in (one.part, two.part) and one.style_hides and two.style_hides
    return one.part == two.part or hidden


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


def _say_compound(scene: Scene, value: Value) -> Said:
    raise TypeError("a compound edit is said by its two parts")


_ALL = (
    *CHARACTER_KINDS,
    *OBJECT_KINDS,
    *PICTURE_KINDS,
    *TEXT_KINDS,
    EditKind(
        name="nothing",
        category="local",
        weight=1.2,
        propose=lambda r, scene, pool: {},
        apply=lambda scene, value: None,
        say=lambda scene, value: ("nothing", {}),
    ),
    EditKind(
        name="compound",
        category="local",
        weight=4,
        propose=_propose_compound,
        apply=_apply_compound,
        say=_say_compound,
        style_hides=True,
    ),
    *FOREIGN_KINDS,
)
KINDS = {kind.name: kind for kind in _ALL}
JOINABLE = tuple(kind.name for kind in _ALL if kind.part)
