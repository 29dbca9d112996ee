"""Tasks before they are drawn: scenes, value and sentences of one kind, admitted by a split."""

import random
from dataclasses import dataclass

from .compositions import COMPOSITIONS
from .edits import KINDS, EditKind, Value, value_label
from .foreign import sample_foreign
from .references import BY_REFERENCE
from .references import CATEGORY as SEVERAL_REFERENCES
from .scene import Pool, Scene, sample_scene
from .sentences import joined, request, sentence
from .splits import admits, admits_reference, admits_start
from .vocabulary import Words

CATEGORIES = (
    *("local", "global", "text", "style_reference", "character_reference", "generate"),
    SEVERAL_REFERENCES,
)
_COMPOSED = COMPOSITIONS | BY_REFERENCE
WEIGHTS = {name: kind.weight for name, kind in (KINDS | _COMPOSED).items()}
CATEGORY = {name: kind.category for name, kind in (KINDS | _COMPOSED).items()}
_STYLED_SHARE = 0.08  # of edits happen inside a style


@dataclass(frozen=True)
class Draft:
    """A task without its pictures. `labels` says what was asked for: kind of edit -> value."""

    kind: str
    category: str
    before: Scene | None
    after: Scene
    words: Words
    value: Value
    labels: dict[str, str]
    reference: Scene | None = None


def draft(r: random.Random, name: str, pool: Pool, split: str) -> Draft | None:
    """A task of a kind; None where this draw gives none."""
    return (_composed if name in _COMPOSED else _edited)(r, name, pool, split)


def _composed(r: random.Random, name: str, pool: Pool, split: str) -> Draft | None:
    made = _COMPOSED[name].compose(r, pool)
    if made is None or not admits(split, made.before, made.after):
        return None
    if made.reference is not None and not admits_reference(split, made.reference):
        return None
    words = request(r, made.variant, made.slots, split)
    labels = {name: made.label}
    return Draft(name, CATEGORY[name], made.before, made.after, words, {}, labels, made.reference)


def _edited(r: random.Random, name: str, pool: Pool, split: str) -> Draft | None:
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
        labels = {part: value_label(said) for part, said in value["edits"]}
        category = "global" if any(CATEGORY[part] == "global" for part in labels) else "local"
    return Draft(name, category, before, after, say(r, kind, before, value, split), value, labels)


def _start(r: random.Random, kind: EditKind, pool: Pool) -> Scene:
    """A picture on which a kind of edit can probably be done."""
    if kind.on_foreign:
        return foreign_scene(r, pool, kind.needs.get("banner"))
    needs = dict(kind.needs)
    empty_sign = needs.pop("empty_sign", False)
    if needs.get("family") not in pool.families:
        needs.pop("family", None)
    scene = sample_scene(r, pool, **needs)
    if empty_sign:
        scene["sign"]["word"] = ""
    return scene


def foreign_scene(r: random.Random, pool: Pool, banner: bool | None = None) -> Scene:
    """A picture foreign to the world, some with a banner."""
    if banner is None:
        banner = pool.always_sign or r.random() < 0.1
    return {"foreign": sample_foreign(r, pool.words, banner), "style": None, "box": None, "sheet": None}


def say(r: random.Random, kind: EditKind, before: Scene, value: Value, split: str) -> Words:
    """An edit in words, in the phrasing of its split."""
    if kind.name != "compound":
        return request(r, *kind.say(before, value), split)
    (first, first_value), (second, second_value) = value["edits"]
    between = KINDS[first].after(before, first_value)
    one = sentence(r, *KINDS[first].say(before, first_value), split)
    return joined(r, one, sentence(r, *KINDS[second].say(between, second_value), split), split)
