"""Benchmark items: world samples by seed and split at the model's size, with distractors; their manifest.

The same version, split, category and index give the same bytes everywhere. The manifest has one line with a
SHA-256 checksum per item; its own checksum identifies the benchmark that a figure was measured on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kontext import world
from kontext.bench.metrics import Case, Picture
from kontext.errors import BadRequest
from kontext.world.drawing.changes import visible
from kontext.world.edits import JOINABLE, KINDS
from kontext.world.seeds import generator
from kontext.world.tasks.samples import pool_of
from kontext.world.tasks.task_specs import CATEGORIES, SEVERAL_REFERENCES

if TYPE_CHECKING:
    from kontext.engine import Editor
    from kontext.world.scenes.scene import Scene

VERSION = 2  # of the items; must change whenever a change to the world or to this file alters them
SPLITS = ("test", "pairs", "phrasing", "words", "chinese")  # chinese: the items of test with Chinese prompts
WORLD_PIXELS = 256
SIZES = (WORLD_PIXELS, 128, 64)
SINGLE = tuple(name for name in CATEGORIES if name != SEVERAL_REFERENCES)
"""Categories with at most one input picture: measured by default."""

Distractors = tuple[tuple[str, Picture], ...]

_STILL = world.World(kinds=("nothing",))
_WORLD = world.World(kinds=tuple(name for name in world.kind_names() if name != "nothing"))


@dataclass(frozen=True, eq=False)
class Item:
    """One task with its exact answer. ``scene`` is the key it shares with items of other languages."""

    key: str
    split: str
    category: str
    scene: str
    prompt: str
    seed: int
    sample: world.Sample
    full: world.Sample
    """The sample at the world's own size."""
    size: int

    @property
    def input_picture(self) -> Picture:
        """The input picture: the source, or mid-gray when there is none."""
        source = self.sample.source
        return np.full_like(self.sample.target, 128) if source is None else source

    @cached_property
    def distractors(self) -> Distractors:
        """The wrong answers, as (label, picture)."""
        return distractors_of(self.full, self.size)

    @cached_property
    def case(self) -> Case:
        return Case.of(self.sample, self.distractors)

    @cached_property
    def sum(self) -> str:
        """SHA-256 of input, prompt, target and distractors: everything that decides the score."""
        return digest(
            [
                self.input_picture,
                *self.sample.references,
                self.sample.target,
                *(picture for _, picture in self.distractors),
            ],
            self.prompt,
            str(self.seed),
        )


def distractors_of(sample: world.Sample, size: int, count: int = 13, strays: int = 2) -> Distractors:
    """Rendered wrong answers of a world sample, as (label, picture).

    ``count`` are the source, other values and other edits; ``strays`` the right edit and one more.
    """
    wrong = world.distractors(sample, count)
    r, scene, pictures = generator("stray", sample.seed, sample.kind), sample.after, [sample.target]
    if "foreign" not in scene and not scene["sheet"]:
        for _ in range(12):
            if len(pictures) > strays:
                break
            kind = KINDS[r.choice(JOINABLE)]
            value = kind.propose(r, scene, pool_of(_WORLD, "train", every_word=True))
            picture = None if value is None else world.render(kind.after(scene, value))
            if picture is not None and all(visible(p, picture) for p in pictures):
                pictures.append(picture)
                wrong.append((f"stray {kind.name}", picture))
    return tuple((label, at_size(picture, size)) for label, picture in wrong)


def draw_item(
    split: str, category: str, index: int, size: int = WORLD_PIXELS, kinds: tuple[str, ...] | None = None
) -> Item:
    """The item of an index, optionally restricted to ``kinds``.

    Raises BadRequest for an unknown split or category.
    """
    if split not in SPLITS or category not in CATEGORIES:
        known = f"splits are {', '.join(SPLITS)}, categories {', '.join(CATEGORIES)}"
        raise BadRequest(f"no items '{split}/{category}'; {known}")
    drawn = "test" if split == "chinese" else split
    name = f"bench {VERSION}/{index}"
    of = _WORLD if kinds is None else world.World(kinds=kinds)
    full = of.sample(name, drawn, category)
    sample = sized(full, size)
    return Item(
        key=f"{split}/{category}/{index:04d}",
        split=split,
        category=category,
        scene=f"{drawn}/{category}/{index:04d}",
        prompt=sample.chinese if split == "chinese" else sample.english,
        seed=index,
        sample=sample,
        full=full,
        size=size,
    )


@dataclass(frozen=True, eq=False)
class BenchTurn:
    """One turn of a session: the prompt, the exact picture after it and the case to score it by."""

    prompt: str
    seed: int
    kind: str
    target: Picture
    case: Case
    scene: Scene


def draw_session(
    kind: str, index: int, rounds: int, size: int, drawn: world.World = _WORLD
) -> tuple[Picture, tuple[BenchTurn, ...]]:
    """Start and turns of a session: "edits" (all different), "back" (edit, inverse, ...) or "nothing"."""
    name = f"bench {VERSION}/{kind}/{index}"
    if kind == "nothing":
        first = _STILL.sample(name, "test")
        start = first.source
        assert start is not None and first.before is not None  # an edit has a source
        target = at_size(start, size)
        prompts = [_STILL.sample(f"{name}/{k}", "test").english for k in range(rounds)]
        turns = [BenchTurn(p, index, "nothing", target, Case(target, target), first.before) for p in prompts]
        return at_size(start, size), tuple(turns)
    chain = drawn.chain(name, rounds, "test", back=kind == "back")
    before, scene, turns = chain.start, chain.scene, []
    for k, turn in enumerate(chain.turns):
        turn_sample = world.Sample(
            source=before,
            references=(),
            target=turn.picture,
            english=turn.english,
            chinese=turn.chinese,
            mask=turn.mask,
            category="",
            kind=turn.kind,
            value=turn.value,
            before=scene,
            after=turn.scene,
            labels={},
            seed=f"{name}/{k}",
            split="test",
        )
        wrong = tuple(picture for _, picture in distractors_of(turn_sample, size, count=7, strays=1))
        target = at_size(turn.picture, size)
        case = Case(at_size(before, size), target, wrong)
        turns.append(BenchTurn(turn.english, index, turn.kind, target, case, turn.scene))
        before, scene = turn.picture, turn.scene
    return at_size(chain.start, size), tuple(turns)


def sized(sample: world.Sample, size: int) -> world.Sample:
    """A sample with its pictures at ``size`` pixels a side, a divisor of 256."""
    if size == WORLD_PIXELS:
        return sample
    mask = at_size(sample.mask.astype(np.uint8) * 255, size) > 0
    source = None if sample.source is None else at_size(sample.source, size)
    references = tuple(at_size(r, size) for r in sample.references)
    return replace(
        sample, source=source, references=references, target=at_size(sample.target, size), mask=mask
    )


def at_size(picture: Picture, size: int) -> Picture:
    """A picture of the world, averaged down by a whole factor."""
    factor = picture.shape[0] // size
    return picture if factor <= 1 else np.asarray(Image.fromarray(picture).reduce(factor))


def size_for(editor: Editor | None, requested: int | None = None) -> int:
    """Side of the items in pixels: as requested (256, 128, 64), or the largest that fits the editor's canvas.

    Raises BadRequest for an unsupported size.
    """
    if requested is not None:
        if requested not in SIZES:
            raise BadRequest(f"size must be one of {', '.join(map(str, SIZES))}, got {requested}")
        return requested
    if editor is None:
        return WORLD_PIXELS
    side = max(min(width, height) for width, height in editor.model.preset.sizes)
    return next((size for size in SIZES if size <= side), SIZES[-1])


def manifest(items: Iterable[Item]) -> str:
    """One JSON line per item: the prompt and the checksum of everything that decides its score."""
    lines = []
    for item in items:
        entry = {
            "key": item.key,
            "kind": item.sample.kind,
            "prompt": item.prompt,
            "seed": item.seed,
            "sum": item.sum,
        }
        lines.append(json.dumps(entry, ensure_ascii=False, sort_keys=True))
    return "".join(line + "\n" for line in lines)


def digest(pictures: Iterable[Picture], *words: str) -> str:
    """SHA-256 (hex) of pictures, their sizes and words."""
    out = hashlib.sha256()
    for picture in pictures:
        out.update(f"{picture.shape}:".encode())
        out.update(np.ascontiguousarray(picture).tobytes())
    out.update("\n".join(words).encode())
    return out.hexdigest()
