"""Items: world samples by seed and split, with their rivals, at the size of the model, and their manifest.

The same version, split, category and number give the same bytes everywhere; the manifest (one line of
SHA-256 sums an item) says so, and its own sum names the benchmark that a figure was measured on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from kontext import world
from kontext.bench.metrics import Case, Picture
from kontext.errors import BadRequest
from kontext.world.samples import CATEGORIES

VERSION = 1  # of the items; a change to the world or to this file that changes them needs a new one
SPLITS = ("test", "pairs", "phrasing", "words", "chinese")  # chinese: the items of test, asked for in Chinese
RIVALS = 15
WORLD_PIXELS = 256

_WORLD = world.World(kinds=tuple(name for name in world.kind_names() if name != "nothing"))


@dataclass(frozen=True, eq=False)
class Item:
    """One task with its exact answer. ``scene`` names what it shares with items of other languages."""

    key: str
    split: str
    category: str
    scene: str
    prompt: str
    seed: int
    sample: Any
    size: int

    @property
    def given(self) -> Picture:
        """What is shown first: the source, or grey where there is none."""
        source = self.sample.source
        return np.full_like(self.sample.target, 128) if source is None else source

    @cached_property
    def rivals(self) -> tuple[Picture, ...]:
        """The wrong answers, rendered."""
        return tuple(at_size(r, self.size) for r in _WORLD.rivals(self._full, RIVALS))

    @cached_property
    def case(self) -> Case:
        return Case.of(self.sample, self.rivals)

    @property
    def _full(self) -> Any:
        return _WORLD.sample(self.sample.seed, self.sample.split, self.category)


def item(split: str, category: str, index: int, size: int = WORLD_PIXELS) -> Item:
    """The item of a number. Raises BadRequest for a split or category that does not exist."""
    if split not in SPLITS or category not in CATEGORIES:
        known = f"splits are {', '.join(SPLITS)}, categories {', '.join(CATEGORIES)}"
        raise BadRequest(f"no items '{split}/{category}'; {known}")
    drawn = "test" if split == "chinese" else split
    name = f"bench {VERSION}/{index}"
    sample = sized(_WORLD.sample(name, drawn, category), size)
    return Item(
        key=f"{split}/{category}/{index:04d}",
        split=split,
        category=category,
        scene=f"{drawn}/{category}/{index:04d}",
        prompt=sample.chinese if split == "chinese" else sample.english,
        seed=index,
        sample=sample,
        size=size,
    )


def sized(sample: Any, size: int) -> Any:
    """A sample with its pictures at ``size`` pixels a side, a divisor of 256."""
    if size == WORLD_PIXELS:
        return sample
    mask = at_size(sample.mask.astype(np.uint8) * 255, size) > 0
    source = None if sample.source is None else at_size(sample.source, size)
    references = tuple(at_size(r, size) for r in sample.references)
    return replace(
        sample, source=source, references=references, target=at_size(sample.target, size), mask=mask
    )


def at_size(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture of the world, averaged down by a whole factor."""
    factor = picture.shape[0] // size
    return picture if factor <= 1 else np.asarray(Image.fromarray(picture).reduce(factor))


def size_for(editor: Any) -> int:
    """The largest of 256, 128 and 64 pixels that the editor's canvas holds."""
    if editor is None:
        return WORLD_PIXELS
    side = max(min(width, height) for width, height in editor.model.preset.sizes)
    return next((size for size in (256, 128, 64) if size <= side), 64)


def manifest(items: Iterable[Item]) -> str:
    """One JSON line an item: key, prompt and the SHA-256 of what is given, the target and the rivals."""
    lines = []
    for one in items:
        sums = {"given": _sum([one.given]), "target": _sum([one.sample.target]), "rivals": _sum(one.rivals)}
        entry = {"key": one.key, "kind": one.sample.kind, "prompt": one.prompt, "seed": one.seed, **sums}
        lines.append(json.dumps(entry, ensure_ascii=False, sort_keys=True))
    return "".join(line + "\n" for line in lines)


def _sum(pictures: Sequence[Picture]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.shape}:".encode())
        digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()
