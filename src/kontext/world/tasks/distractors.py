"""Distractors for the forced choice: rendered pictures that a wrong edit would have produced.

A distractor differs visibly from the target and from the other distractors. Labels name the mistake:

    unchanged                  the source unmodified
    value hair_color: red      the right kind of edit with another value
    edit glasses: sunglasses   another kind of edit
"""

import random
from collections.abc import Iterator

import numpy as np

from ..drawing.changes import visible
from ..drawing.colors import CLOTH_COLORS, HAIR_COLORS
from ..drawing.styles import STYLES
from ..edits import JOINABLE, KINDS, EditKind, value_label
from ..scenes.render import render
from ..scenes.scene import Pool, Scene, copied
from ..seeds import generator
from .samples import Sample, World, pool_of

_IDENTITY = ("hair_color", "hair_style", "cloth_color", "clothes", "glasses", "hat", "beard", "horns")
_SETTING = ("background", "time", "expression", "object_replace", "object_color", "hold", "pose", "text")
_ELSEWHERE = {  # the same color on the wrong thing
    "hair_color": ("cloth_color", CLOTH_COLORS),
    "cloth_color": ("hair_color", tuple(HAIR_COLORS)),
}
_OUT_OF_DOMAIN = tuple(name for name, kind in KINDS.items() if kind.out_of_domain)


def distractors(sample: Sample, count: int = 8) -> list[tuple[str, np.ndarray]]:
    """Up to `count` labeled pictures: the source unchanged, other values and other edits about evenly."""
    r = generator("rivals", sample.split, sample.seed, sample.kind, sample.english)
    pool = pool_of(World(), "train", every_word=True)
    found = _Distractors(sample.target)
    if sample.source is not None:
        found.add("unchanged", sample.source)
    for reference in sample.references:
        found.add("edit copied: image 2", reference)
    if sample.references:
        values, edits = _of_references(r, sample, pool)
    elif sample.before is None or sample.kind not in KINDS:
        values, edits = _of_composition(r, sample, pool)
    else:
        values = _other_values(r, sample, sample.before, pool)
        edits = _other_edits(r, sample, sample.before, pool)
    found.take(values, count - len(found.distractors) - (count - 1) // 2)
    found.take(edits, count - len(found.distractors))
    found.take(values, count - len(found.distractors))
    return found.distractors


class _Distractors:
    """Distractors found so far; each must look different from the target and from the others."""

    def __init__(self, target: np.ndarray) -> None:
        self._pictures = [target]
        self._drawn: set[str] = set()
        self.distractors: list[tuple[str, np.ndarray]] = []

    def add(self, label: str, picture: np.ndarray) -> bool:
        if not all(visible(other, picture) for other in self._pictures):
            return False
        self._pictures.append(picture)
        self.distractors.append((label, picture))
        return True

    def take(self, group: Iterator[tuple[str, Scene]], count: int) -> None:
        """Add up to `count` more from a group; the iterator keeps its position."""
        if count <= 0:
            return
        for label, scene in group:
            if repr(scene) in self._drawn:
                continue
            self._drawn.add(repr(scene))
            count -= self.add(label, render(scene))
            if count == 0:
                return


def _misspelled(r: random.Random, word: str) -> str:
    letters, place = list(word), r.randrange(len(word))
    if r.random() < 0.5 and len(word) > 1:
        other = (place + 1) % len(word)
        letters[place], letters[other] = letters[other], letters[place]
    else:
        letters[place] = r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return "".join(letters)


def _other_values(r: random.Random, sample: Sample, before: Scene, pool: Pool) -> Iterator[tuple[str, Scene]]:
    """The same kind of edit: first on the same thing, then on any; a word is also misspelled."""
    kind, true_value = KINDS[sample.kind], sample.value
    if kind.name == "compound":
        yield from _parts(r, sample, before, pool)
    for attempt in range(100):
        value = kind.propose(r, before, pool)
        if value is None:
            continue
        for key in ("index", "corner", "box"):
            if key in true_value and key in value and attempt % 3:
                value[key] = true_value[key]
        for key in ("word", "banner"):
            if key in true_value and key in value and attempt % 2:
                value[key] = _misspelled(r, true_value[key])
        yield f"value {kind.name}: {value_label(value)}", kind.after(before, value)


def _edit(r: random.Random, kind: EditKind, scene: Scene, pool: Pool) -> Iterator[tuple[str, Scene]]:
    value = kind.propose(r, scene, pool)
    if value is not None:
        yield f"edit {kind.name}: {value_label(value)}", kind.after(scene, value)


def _parts(r: random.Random, sample: Sample, before: Scene, pool: Pool) -> Iterator[tuple[str, Scene]]:
    """Two edits in one: only the first, only the second, and either with another value."""
    (first, first_value), (second, second_value) = sample.value["edits"]
    first_kind, second_kind = KINDS[first], KINDS[second]
    between = first_kind.after(before, first_value)
    yield f"value only {first}", between
    yield f"value only {second}", second_kind.after(before, second_value)
    for _ in range(20):
        value = second_kind.propose(r, between, pool)
        if value is not None:
            yield f"value {first} and {second}: {value_label(value)}", second_kind.after(between, value)
        value = first_kind.propose(r, before, pool)
        if value is not None:
            yield (
                f"value {first}: {value_label(value)} and {second}",
                second_kind.after(first_kind.after(before, value), second_value),
            )


def _other_edits(r: random.Random, sample: Sample, before: Scene, pool: Pool) -> Iterator[tuple[str, Scene]]:
    if sample.kind in _ELSEWHERE and before["character"]["family"] != "critter":
        color, (elsewhere, allowed) = sample.value[sample.kind], _ELSEWHERE[sample.kind]
        if color in allowed:
            yield f"edit {elsewhere}: {color}", KINDS[elsewhere].after(before, {elsewhere: color})
    names = [name for name in (_OUT_OF_DOMAIN if "foreign" in before else JOINABLE) if name != sample.kind]
    for _ in range(80):
        yield from _edit(r, KINDS[r.choice(names)], before, pool)


_TAKEN = {  # what a wrong answer may have taken: edits of the scene before (0) or after (1)
    "clothes_from": (1, ("clothes", "cloth_color")),
    "person_from": (1, _IDENTITY),
    "background_from": (0, ("background", "time")),
    "object_from": (1, ("object_replace", "object_color", "object_move")),
}


def _of_references(r: random.Random, sample: Sample, pool: Pool) -> tuple[Iterator, Iterator]:
    """For what is taken from image 2: something else of its kind, and another edit of image 1."""
    before = sample.before
    assert before is not None
    if sample.kind == "style_from":
        values = ((f"value style: {style}", {**copied(before), "style": style}) for style in _shuffled(r))
    else:
        place, names = _TAKEN[sample.kind]
        scene = (before, sample.after)[place]
        tried = (_edit(r, KINDS[r.choice(names)], scene, pool) for _ in range(100))
        values = ((label.replace("edit", "value", 1), scene) for edits in tried for label, scene in edits)
    edits = (found for _ in range(80) for found in _edit(r, KINDS[r.choice(JOINABLE)], before, pool))
    return values, edits


def _shuffled(r: random.Random) -> list[str]:
    return r.sample(list(STYLES), len(STYLES))


def _of_composition(r: random.Random, sample: Sample, pool: Pool) -> tuple[Iterator, Iterator]:
    """For newly composed pictures: wrong identity or style, and wrong setting."""
    after = sample.after

    def changed(names: tuple[str, ...]) -> Iterator[tuple[str, Scene]]:
        for _ in range(100):
            yield from _edit(r, KINDS[r.choice(names)], after, pool)

    def restyled() -> Iterator[tuple[str, Scene]]:
        for style in _shuffled(r):
            yield f"value style: {style}", {**copied(after), "style": style}

    def turned() -> Iterator[tuple[str, Scene]]:
        for view in ("front", "side", "back"):
            scene = copied(after)
            scene["character"]["view"] = view
            yield f"value view: {view}", scene

    if sample.kind == "character_sheet":
        return changed(_IDENTITY), iter(())
    if sample.kind == "character_view":
        return turned(), changed(_IDENTITY)
    if sample.kind == "style_reference":
        return restyled(), changed(_SETTING)
    return changed(_IDENTITY if after["character"] else _SETTING), changed(_SETTING)
