"""Training from orbits of the world: one scene, several edits of it, many exact pairs between the pictures.

A picture is rendered and encoded once and serves as source and target of several pairs; several targets of
one source are adjacent in a batch and share its prefix. Both make a sample cheaper, see `docs/training.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kontext.model.autoencoder import Autoencoder
from kontext.train.device import to_device
from kontext.train.letters import COLUMNS, letter_grid
from kontext.train.pairs import (
    cached_tokenizer,
    edit_label,
    shrink,
    text_ids,
    token_mask,
)
from kontext.train.ring import Examples, Ring, changed_tokens
from kontext.world import World
from kontext.world.language.captions import caption
from kontext.world.tasks.orbits import Orbit

PICTURES = 10
"""Maximum number of pictures of an orbit; the base comes first."""

EDITS = 40
"""Maximum number of edits of an orbit."""

STORED = ("caption", "captioned", "source", "target", "text", "label", "mask", "letters", "weight")
"""Fields of an orbit that are kept as they are."""


@dataclass(frozen=True)
class Orbits:
    """Producer: seed -> one orbit at `size` pixels, padded to `PICTURES` pictures and `EDITS` edits.

    `weight` is an edit's sampling weight: that of its kind, divided by the orbit's edits of that kind; 0 for
    padding.
    """

    worlds: tuple[tuple[int, World], ...]
    """Curriculum: (first seed, world), in rising order."""
    size: int
    token_pixels: int
    tokenizer: str
    """The tokenizer as JSON text, so that workers need no file."""
    text_length: int
    chinese_share: float
    kinds: int = 4
    values: int = 3
    split: str = "train"

    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        world = [world for first, world in self.worlds if seed >= first][-1]
        orbit, random = world.orbit(seed, self.kinds, self.values, self.split), np.random.default_rng(seed)
        shown = min(len(orbit.pictures), PICTURES)
        edits = [edit for edit in orbit.edits if max(edit.source, edit.target) < shown]
        if len(edits) > EDITS:
            edits = [edits[i] for i in sorted(random.choice(len(edits), EDITS, replace=False))]
        tokens, length = self.size // self.token_pixels, self.text_length
        example: dict[str, np.ndarray] = {
            "pictures": np.zeros((PICTURES, self.size, self.size, 3), np.uint8),
            "shown": np.arange(PICTURES) < shown,
            "caption": np.zeros((PICTURES, length), np.int32),
            "captioned": np.zeros(PICTURES, np.float32),
            "source": np.zeros(EDITS, np.int64),
            "target": np.zeros(EDITS, np.int64),
            "text": np.zeros((EDITS, length), np.int32),
            "label": np.zeros(EDITS, np.int64),
            "mask": np.zeros((EDITS, tokens * tokens), np.uint8),
            "letters": np.zeros((PICTURES, tokens * tokens, COLUMNS), np.int8),
            "weight": np.zeros(EDITS, np.float32),
        }
        tokenizer = cached_tokenizer(self.tokenizer)
        for i in range(shown):
            example["pictures"][i] = shrink(orbit.pictures[i], self.size)
            words = scene_caption(orbit, i)[int(random.random() < self.chinese_share)]
            example["caption"][i] = text_ids(tokenizer, words, length)
            example["captioned"][i] = bool(words)
            example["letters"][i] = letter_grid(orbit.scenes[i], tokens)
        weights, kinds = dict(world.weights), [edit.kind for edit in edits]
        for i, edit in enumerate(edits):
            words = edit.words[int(random.random() < self.chinese_share)]
            example["source"][i], example["target"][i] = edit.source, edit.target
            example["text"][i] = text_ids(tokenizer, words, length)
            example["label"][i] = edit_label(edit.kind, edit.value, edit.labels.get(edit.kind, ""))
            example["mask"][i] = token_mask(edit.mask, tokens)
            example["weight"][i] = weights.get(edit.kind, 1.0) / kinds.count(edit.kind)
        return example


def scene_caption(orbit: Orbit, index: int) -> tuple[str, str]:
    """Caption of an orbit's picture in English and Chinese; empty when it would be incomplete."""
    scene = orbit.scenes[index]
    plain = "foreign" not in scene and not scene["style"] and not scene["sheet"]
    return caption(scene) if plain and (scene["character"] or scene["objects"]) else ("", "")


class OrbitPool(Ring):
    """A ring of encoded orbits, with targets of one source adjacent in a batch."""

    HOST_FIELDS = Ring.HOST_FIELDS | {"weight", "source", "captioned"}

    def __init__(
        self,
        capacity: int,
        targets: int,
        autoencoder: Autoencoder,
        device: torch.device,
        padded_length: Callable[[int], int],
        bfloat16: bool = False,
    ) -> None:
        """targets: number of adjacent targets per source in a batch."""
        super().__init__(capacity, autoencoder, device, padded_length, bfloat16)
        self.targets = targets

    @torch.no_grad()
    def encode(self, examples: Examples) -> dict[str, Tensor]:
        fields = {name: torch.from_numpy(examples[name]) for name in STORED}
        fields["changed"] = changed_tokens(fields["mask"])
        fields |= {f"{texts}_length": self._lengths(examples[texts]) for texts in ("text", "caption")}
        pictures, shown = examples["pictures"], examples["shown"].astype(bool)
        latents = self._encode(pictures[shown])
        padded = latents.new_zeros((*shown.shape, *latents.shape[1:]))
        padded[to_device(torch.from_numpy(shown), self.device)] = latents
        return fields | {"latents": padded}

    def draw(self, count: int, generator: torch.Generator, largest: int | None = None) -> dict[str, Tensor]:
        """A batch of `count` targets of count / targets sources; targets of one source are adjacent.

        largest: number of tokens that an edit may change, if there are such; None: any.
        A source is drawn by the root of its edits' weights, so that the base, which has most edits, does
        not dominate; its edits by their weights, without repetition where possible. All texts of the batch
        have the padded length of one edit drawn first. Returns source (count / targets, c, h, w), target
        (count, ...), text, label, letters, and, in host memory, mask and text_length (1,).
        """
        groups = count // self.targets
        candidates = self._candidates(generator)
        weight = self.fields["weight"]
        weights, length = self._of_one_length("text", candidates, weight, generator, largest)
        drawn = torch.multinomial((weights.sum(1) > 0).float(), groups, replacement=True, generator=generator)
        orbits, weight = candidates[drawn], weights[drawn]
        source = self.fields["source"][orbits]
        by_source = torch.zeros(groups, PICTURES).scatter_add_(1, source, weight).sqrt()
        chosen = torch.multinomial(by_source, 1, generator=generator)
        weight = weight * (source == chosen)
        race = -torch.log(torch.rand(weight.shape, generator=generator).clamp_min(1e-12)) / weight
        order = race.argsort(dim=1)  # weight 0: infinite, last
        distinct = (weight > 0).sum(1, keepdim=True)
        edits = order.gather(1, torch.arange(self.targets)[None] % distinct)  # (groups, targets)
        rows, columns = orbits[:, None].expand_as(edits).reshape(-1), edits.reshape(-1)
        mask = self.fields["mask"][rows, columns]
        rows, columns = to_device(rows, self.device), to_device(columns, self.device)
        batch = {name: self.fields[name][rows, columns] for name in ("text", "label")}
        pictures = self.fields["target"][rows, columns]
        batch["target"] = self.fields["latents"][rows, pictures].float()
        batch["letters"] = self.fields["letters"][rows, pictures]
        places = to_device(orbits, self.device), to_device(chosen[:, 0], self.device)
        batch["source"] = self.fields["latents"][places].float()
        return batch | {"mask": mask, "text_length": length}

    def draw_captions(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A batch of pictures with their captions: target (count, c, h, w), text and its length (1,)."""
        candidates = self._candidates(generator)
        share, length = self._of_one_length("caption", candidates, self.fields["captioned"], generator)
        places = torch.multinomial(share.flatten(), count, replacement=True, generator=generator)
        rows = to_device(candidates[places // PICTURES], self.device)
        columns = to_device(places % PICTURES, self.device)
        return {
            "target": self.fields["latents"][rows, columns].float(),
            "text": self.fields["caption"][rows, columns],
            "label": torch.zeros(count, dtype=torch.int64, device=self.device),
            "text_length": length,
        }
