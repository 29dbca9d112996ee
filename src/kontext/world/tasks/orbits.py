"""Orbits: one scene edited in several ways, so that few pictures give many exact pairs.

From a base scene, several kinds of edits with several values each are applied. The pairs are base to result,
result back to base where the edit can be undone, and result to result of the same kind where the second
value, applied to the first result, gives exactly the second result. Eight pictures give about twenty pairs.
"""

import random
from dataclasses import dataclass

import numpy as np

from ..drawing.changes import change_mask, visible
from ..drawing.raster import SIZE
from ..edits import KINDS, EditKind, Value, inverse, value_label
from ..language.vocabulary import Words
from ..scenes.render import render
from ..scenes.scene import Pool, Scene
from .references import CATEGORY as SEVERAL_REFERENCES
from .splits import admits
from .task_specs import CATEGORY, TaskSpec, draw_task, phrase

_ALONE = ("nothing", "compound", "character_remove", "object_box")  # one value of these says it all
_UNCHANGED = ("nothing", "style", "foreign_style")  # kept even where hardly a pixel differs
_WHOLE_PICTURE = ("style", "foreign_style")
_TRIES = 3  # draws per value that is wanted


@dataclass(frozen=True)
class OrbitEdit:
    """One exact pair of an orbit: `source` and `target` count its pictures, the rest is as in `Sample`."""

    source: int
    target: int
    kind: str
    value: Value
    words: Words
    """English and Chinese."""
    labels: dict[str, str]
    mask: np.ndarray


@dataclass(frozen=True)
class Orbit:
    """Pictures (uint8, 256 x 256 x 3; the first is the base), their scenes, and the edits between them."""

    pictures: tuple[np.ndarray, ...]
    scenes: tuple[Scene, ...]
    edits: tuple[OrbitEdit, ...]


class _Orbit:
    """An orbit under construction."""

    def __init__(self, r: random.Random, pool: Pool, split: str, base: Scene):
        self.r, self.pool, self.split = r, pool, split
        self.scenes: list[Scene] = [base]
        self.origins: list[tuple[EditKind, Value] | None] = [None]
        self.edits: list[tuple[int, int, str, Value, Words, dict[str, str]]] = []

    def add(self, kind: EditKind, value: Value, words: Words, after: Scene, labels: dict[str, str]) -> None:
        if after in self.scenes:
            target = self.scenes.index(after)
        else:
            target = len(self.scenes)
            self.scenes.append(after)
            self.origins.append((kind, value))
        self.edits.append((0, target, kind.name, value, words, labels))

    def propose(self, kind: EditKind, values: int) -> None:
        """Apply up to `values` values of a kind to the base."""
        base = {**self.scenes[0], "box": None}
        if kind.out_of_domain != ("foreign" in base) or kind.name == "object_box":
            return
        if base.get("style") and (kind.style_hides or kind.part == "style"):
            return
        labels: set[str] = set()
        for _ in range(_TRIES * values):
            if len(labels) == values:
                return
            value = kind.propose(self.r, base, self.pool)
            if value is None or value.get("box") or value_label(value) in labels:
                continue
            after = kind.after(base, value)
            if admits(self.split, base, after):
                labels.add(value_label(value))
                words = phrase(self.r, kind, base, value, self.split)
                self.add(kind, value, words, after, labels_of(kind.name, value))

    def connect(self) -> None:
        """Add the edits from result to base and between results of one kind."""
        base, origins = {**self.scenes[0], "box": None}, list(enumerate(self.origins))
        if self.scenes[0].get("box"):
            return
        for i, origin in origins:
            if origin is None:
                continue
            kind, value = origin
            back = inverse(kind, base, value)
            if back is None:
                continue
            self._step(i, 0, *back)
            if back[0] is not kind:  # removing a thing is not undone by removing another
                continue
            for j, other in origins:
                if other is not None and i != j and other[0] is kind:
                    self._step(i, j, kind, other[1])

    def _step(self, i: int, j: int, kind: EditKind, value: Value) -> None:
        before, after = self.scenes[i], self.scenes[j]
        if kind.after(before, value) == after and admits(self.split, before, after):
            try:
                words = phrase(self.r, kind, before, value, self.split)
            except KeyError:  # scenes begin with values that no words ask for, such as a thing's own colors
                return
            self.edits.append((i, j, kind.name, value, words, labels_of(kind.name, value)))

    def drawn(self) -> Orbit | None:
        """With pictures; edits that cannot be seen are left out. None where no edit is left."""
        pictures = tuple(render(scene) for scene in self.scenes)
        edits = []
        for source, target, kind, value, words, labels in self.edits:
            before, after = pictures[source], pictures[target]
            if kind in KINDS and kind not in _UNCHANGED and not visible(before, after):
                continue
            full_mask = kind in _WHOLE_PICTURE or kind not in KINDS
            mask = np.ones((SIZE, SIZE), bool) if full_mask else change_mask(before, after)
            edits.append(OrbitEdit(source, target, kind, value, words, labels, mask))
        return Orbit(pictures, tuple(self.scenes), tuple(edits)) if edits else None


def draw_orbit(
    r: random.Random, weights: dict[str, float], pool: Pool, split: str, kinds: int, values: int
) -> Orbit | None:
    """An orbit of at most `kinds` kinds with `values` values each; None where this draw gives none.

    The first kind is drawn by the weights and decides the scene; kinds that cannot share a scene
    (compositions, boxes) make an orbit of one edit. Kinds with a second picture or without a source are not
    drawn.
    """
    left_out = (SEVERAL_REFERENCES, "generate")
    weights = {name: w for name, w in weights.items() if w > 0 and CATEGORY[name] not in left_out}
    if not weights:
        return None
    first: TaskSpec | None = draw_task(r, r.choices(list(weights), list(weights.values()))[0], pool, split)
    if first is None or first.before is None or first.reference is not None:
        return None
    orbit = _Orbit(r, pool, split, first.before)
    if first.kind not in KINDS:
        orbit.scenes.append(first.after)
        orbit.edits.append((0, 1, first.kind, first.value, first.words, first.labels))
        return orbit.drawn()
    orbit.add(KINDS[first.kind], first.value, first.words, first.after, first.labels)
    if first.before.get("box"):
        return orbit.drawn()
    others = [name for name in weights if name in KINDS and name != first.kind]
    chosen = [first.kind, *_weighted_order(r, others, weights)]
    tried = 0
    for name in chosen:
        if tried == kinds:
            break
        before = len(orbit.edits)
        orbit.propose(KINDS[name], 1 if name in _ALONE else values)
        tried += len(orbit.edits) > before or name == first.kind
    orbit.connect()
    return orbit.drawn()


def labels_of(kind: str, value: Value) -> dict[str, str]:
    """What an edit asks for, in words: kind of edit -> value."""
    if kind == "compound":
        return {part: value_label(said) for part, said in value["edits"]}
    return {kind: value_label(value)}


def _weighted_order(r: random.Random, names: list[str], weights: dict[str, float]) -> list[str]:
    """Names in random order, likelier ones first (exponential races)."""
    return sorted(names, key=lambda name: r.expovariate(weights[name]))
