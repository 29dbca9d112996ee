"""Task specifications: scenes, value and sentences of a task, admitted by a split, not yet rendered."""

import random
from dataclasses import dataclass

from ..drawing.out_of_domain import sample_out_of_domain
from ..edits import KINDS, EditKind, Value, value_label
from ..language.sentences import joined, request
from ..language.vocabulary import Words
from ..scenes.scene import Pool, Scene, sample_scene
from .compositions import COMPOSITIONS
from .references import BY_REFERENCE
from .references import CATEGORY as SEVERAL_REFERENCES
from .splits import admits, admits_reference, admits_start

CATEGORIES = (
    *("local", "global", "text", "style_reference", "character_reference", "generate"),
    SEVERAL_REFERENCES,
)
_COMPOSED = COMPOSITIONS | BY_REFERENCE
WEIGHTS = {name: kind.weight for name, kind in (KINDS | _COMPOSED).items()}
CATEGORY = {name: kind.category for name, kind in (KINDS | _COMPOSED).items()}
_STYLED_SHARE = 0.08  # of edits happen inside a style


@dataclass(frozen=True)
class TaskSpec:
    """A task without its pictures. `labels` holds the requested values: kind of edit -> value."""

    kind: str
    category: str
    before: Scene | None
    after: Scene
    words: Words
    value: Value
    labels: dict[str, str]
    reference: Scene | None = None


def draw_task(r: random.Random, name: str, pool: Pool, split: str) -> TaskSpec | None:
    """A task of a kind; None when this draw is not usable."""
    return (_composed if name in _COMPOSED else _edited)(r, name, pool, split)


def _composed(r: random.Random, name: str, pool: Pool, split: str) -> TaskSpec | None:
    composed = _COMPOSED[name].compose(r, pool)
    if composed is None or not admits(split, composed.before, composed.after):
        return None
    if composed.reference is not None and not admits_reference(split, composed.reference):
        return None
    words = request(r, composed.variant, composed.slots, split)
    scenes = composed.before, composed.after
    return TaskSpec(name, CATEGORY[name], *scenes, words, {}, {name: composed.label}, composed.reference)


def _edited(r: random.Random, name: str, pool: Pool, split: str) -> TaskSpec | None:
    kind = KINDS[name]
    before = _start(r, kind, pool)
    if not admits_start(split, before):
        return None
    value = kind.propose(r, before, pool)
    if value is None:
        return None
    after = kind.after(before, value)
    if not kind.style_hides and r.random() < _STYLED_SHARE:
        before["style"] = after["style"] = r.choice(pool.styles)
    before["box"] = value.get("box")
    if not admits(split, before, after):
        return None
    category, labels = kind.category, {name: value_label(value)}
    if name == "compound":
        labels = {part: value_label(part_value) for part, part_value in value["edits"]}
        category = "global" if any(CATEGORY[part] == "global" for part in labels) else "local"
    return TaskSpec(name, category, before, after, phrase(r, kind, before, value, split), value, labels)


def _start(r: random.Random, kind: EditKind, pool: Pool) -> Scene:
    """A source scene on which a kind of edit can probably be done."""
    if kind.out_of_domain:
        return out_of_domain_scene(r, pool, kind.needs.get("banner"))
    needs = dict(kind.needs)
    empty_sign = needs.pop("empty_sign", False)
    if needs.get("family") not in pool.families:
        needs.pop("family", None)
    scene = sample_scene(r, pool, **needs)
    if empty_sign:
        scene["sign"]["word"] = ""
    return scene


def out_of_domain_scene(r: random.Random, pool: Pool, banner: bool | None = None) -> Scene:
    """An out-of-domain scene; one in ten has a banner."""
    if banner is None:
        banner = pool.always_sign or r.random() < 0.1
    return {"foreign": sample_out_of_domain(r, pool.words, banner), "style": None, "box": None, "sheet": None}


def phrase(r: random.Random, kind: EditKind, before: Scene, value: Value, split: str) -> Words:
    """The instruction of an edit, in the phrasing of its split."""
    if kind.name != "compound":
        return request(r, *kind.phrase(before, value), split)
    (first, first_value), (second, second_value) = value["edits"]
    between = KINDS[first].after(before, first_value)
    phrases = KINDS[first].phrase(before, first_value), KINDS[second].phrase(between, second_value)
    return joined(r, *phrases, split)
