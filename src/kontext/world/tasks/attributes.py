"""What an instruction says, as labels, the same in both languages.

Its kind and the words that fill its slots.

"Put a red beanie on the kid" and its Chinese twin both say {"kind:hat/on", "hat:red", "hat:beanie"}. Only
slots that every sentence of a variant has are counted, so that nothing is asked for that was not said.
"""

import functools
import re
from collections.abc import Iterable
from string import Formatter

from ..drawing.objects import CONCEPTS
from ..edits import KINDS, Value
from ..language.forms import FORMS
from ..language.phrasings import HELD_OUT
from ..language.templates import TEMPLATES
from ..scenes.scene import Scene
from .samples import Sample

_FREE = ("word", "caption", "doing", "first", "second", "who", "noun")  # free text, and pronouns
_FREE_OLD = ("text", "text_color", "text_remove")  # there the old one is a word too
_PARTS = {"colored_cloth": ("color", "cloth")}  # slots that a slot contains
_SKIPPED = frozenset("a an the of with in on at and its his her their".split())


def attributes(sample: Sample) -> frozenset[str]:
    """Labels of a sample's instruction; kinds that are composed have their kind alone."""
    if sample.kind not in KINDS or sample.before is None:
        return frozenset({f"kind:{sample.kind}"})
    return frozenset(_of_edit(sample.kind, sample.before, sample.value))


def words_to_write(kind: str, value: Value) -> tuple[str, ...]:
    """The words that an edit writes in the picture."""
    edits = value["edits"] if kind == "compound" else [(kind, value)]
    words = [part.get(name) for _, part in edits for name in ("word", "banner")]
    return tuple(word for word in words if word)


def _of_edit(kind: str, before: Scene, value: Value) -> set[str]:
    if kind == "compound":
        (first, first_value), (second, second_value) = value["edits"]
        between = KINDS[first].after(before, first_value)
        return _of_edit(first, before, first_value) | _of_edit(second, between, second_value)
    variant, slots = KINDS[kind].phrase(before, value)
    labels = {f"kind:{variant}"}
    for slot in _always_said(variant):
        said = value["style"] if slot == "style" else slots[slot][0]  # each style has two names
        labels |= {f"{slot}:{word}" for word in _words(said)}
    return labels


def all_labels(samples: Iterable[Sample]) -> list[str]:
    """The labels of samples, and those of every thing in the two roles it can have, sorted."""
    words = {word for name in CONCEPTS for word in _words(name)}
    roles = {f"{role}:{word}" for role in ("thing", "old") for word in words}
    return sorted(roles.union(*map(attributes, samples)))


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[\w-]+", text.lower()) if word not in _SKIPPED]


@functools.cache
def _always_said(variant: str) -> tuple[str, ...]:
    """Slots that every sentence of a variant has, in either language."""
    texts = [text for table in (TEMPLATES, HELD_OUT) for texts in table[variant] for text in texts]
    for forms in FORMS.get(variant, ()):
        texts += [*forms.do, *forms.be, *forms.have, *forms.say]
        texts += [forms.topic + request for request in forms.it]
    said = set.intersection(*map(_slots, texts))
    free = _FREE + (("old",) if variant in _FREE_OLD else ())
    return tuple(sorted(slot for slot in said if slot not in free))


def _slots(text: str) -> set[str]:
    names = {name for _, name, _, _ in Formatter().parse(text) if name}
    return names | {part for name in names for part in _PARTS.get(name, ())}
