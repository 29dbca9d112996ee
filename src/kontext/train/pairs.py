"""Training pairs of the flow model: produced by workers as pictures and token ids, pooled as latents.

A pair is encoded once and used several times with new noise and times. The pool is a ring buffer: new pairs
replace the oldest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from kontext.train.device import to_device
from kontext.train.ring import Examples, Ring, changed_tokens
from kontext.world import Sample, World
from kontext.world.edits import Value, value_label
from kontext.world.language.captions import caption
from kontext.world.tasks.attributes import words_to_write
from kontext.world.tasks.task_specs import SEVERAL_REFERENCES

PICTURES = ("source", "target", "reference")

LABELS = 1024
"""Classes of the label loss: edit kind and value, hashed."""


@dataclass(frozen=True)
class Pairs:
    """Producer: seed -> one pair at `size` pixels, its instruction, and the caption of its target."""

    worlds: tuple[tuple[int, World], ...]
    """Curriculum: (first seed, world), in rising order."""
    size: int
    token_pixels: int
    tokenizer: str
    """The tokenizer as JSON text, so that workers need no file."""
    text_length: int
    chinese_share: float
    split: str = "train"

    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        return self.example(self.world(seed).sample(seed, self.split), seed)

    def world(self, seed: int) -> World:
        """The curriculum's world; text to picture is not drawn but trained on captions of the targets."""
        return [world for first, world in self.worlds if seed >= first][-1]

    def example(self, sample: Sample, seed: int) -> dict[str, np.ndarray]:
        assert sample.source is not None
        chinese = np.random.default_rng(seed).random() < self.chinese_share
        return {
            "source": shrink(sample.source, self.size),
            "target": shrink(sample.target, self.size),
            "mask": token_mask(sample.mask, self.size // self.token_pixels),
            "text": self.ids(sample.chinese if chinese else sample.english),
            "caption": self.ids(target_caption(sample)[1 if chinese else 0]),
            "label": np.array(label(sample), np.int64),
        }

    def ids(self, text: str) -> np.ndarray:
        return text_ids(cached_tokenizer(self.tokenizer), text, self.text_length)


@dataclass(frozen=True)
class Triples(Pairs):
    """Producer of pairs with a second picture, `reference`, which the instruction names."""

    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        sample = self.world(seed).sample(seed, self.split, SEVERAL_REFERENCES)
        reference = shrink(sample.references[0], self.size)
        return self.example(sample, seed) | {"reference": reference}


@dataclass(frozen=True)
class Chains(Pairs):
    """Producer of two turns: start picture, first instruction, and the second turn as a pair without source.

    The model's own result of the first turn becomes the source. In one of three chains the second turn is
    "leave it as it is".
    """

    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        world = self.world(seed)
        language = "chinese" if np.random.default_rng(seed).random() < self.chinese_share else "english"
        chain = world.chain(seed, 2, self.split)
        first, second = chain.turns
        idle = seed % 3 == 0
        kind = "nothing" if idle else second.kind
        words = World(kinds=("nothing",)).sample(seed, self.split) if idle else second
        mask = np.zeros_like(second.mask) if idle else second.mask
        number = edit_label(kind, second.value, "" if idle else value_label(second.value))
        return {
            "start": shrink(chain.start, self.size),
            "first": self.ids(getattr(first, language)),
            "target": shrink(first.picture if idle else second.picture, self.size),
            "mask": token_mask(mask, self.size // self.token_pixels),
            "text": self.ids(getattr(words, language)),
            "caption": self.ids(""),
            "label": np.array(number, np.int64),
        }


def text_ids(tokenizer: Tokenizer, text: str, length: int) -> np.ndarray:
    """Ids (length,) int32, padded with 0; a text that is too long is truncated but keeps its end token."""
    ids = tokenizer.encode(text).ids
    if len(ids) > length:
        ids = ids[: length - 1] + ids[-1:]
    return np.array(ids + [0] * (length - len(ids)), np.int32)


def shrink(picture: np.ndarray, size: int) -> np.ndarray:
    if picture.shape[0] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))


def token_mask(mask: np.ndarray, tokens: int) -> np.ndarray:
    """Bool pixels (h, w) -> uint8 (tokens * tokens,): 1 where any pixel of the token changes."""
    step = mask.shape[0] // tokens
    return mask.reshape(tokens, step, tokens, step).any(axis=(1, 3)).reshape(-1).astype(np.uint8)


def label(sample: Sample) -> int:
    """Class of a sample's edit: its kind and, if the instruction states it, its value."""
    return edit_label(
        sample.kind, sample.value, "" if sample.references else sample.labels.get(sample.kind, "")
    )


def edit_label(kind: str, value: Value, description: str) -> int:
    """Class of an edit: its kind and, unless it is a word to write, which can be any, its value in words."""
    text = f"{kind}={'' if words_to_write(kind, value) else description}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % LABELS


def target_caption(sample: Sample) -> tuple[str, str]:
    """Caption of the target in English and Chinese; empty when captions do not describe all of it."""
    scene = sample.after
    plain = "foreign" not in scene and not scene["style"] and not scene["sheet"]
    shows = plain and (scene["character"] or scene["objects"])
    return caption(scene) if shows else ("", "")


_tokenizers: dict[str, Tokenizer] = {}


def cached_tokenizer(text: str) -> Tokenizer:
    """The tokenizer of a JSON text, parsed once per process."""
    if text not in _tokenizers:
        _tokenizers[text] = Tokenizer.from_str(text)
    return _tokenizers[text]


class PairPool(Ring):
    """A ring of encoded pairs."""

    @torch.no_grad()
    def encode(self, examples: Examples) -> dict[str, Tensor]:
        fields = {name: torch.from_numpy(examples[name]) for name in ("mask", "text", "caption", "label")}
        fields["changed"] = changed_tokens(fields["mask"])
        fields |= {f"{texts}_length": self._lengths(examples[texts]) for texts in ("text", "caption")}
        return fields | {name: self._encode(examples[name]) for name in PICTURES if name in examples}

    def draw(
        self, count: int, generator: torch.Generator, largest: int | None = None, texts: str = "text"
    ) -> dict[str, Tensor]:
        """A batch of pairs, drawn uniformly among those whose texts have one padded length.

        largest: number of tokens that an edit may change, if there are such; None: any.
        texts: "text", the instructions, or "caption", which are then the batch's text. Latents in float32;
        text_length (1,), the padded length, and the masks are in host memory.
        """
        candidates = self._candidates(generator)
        equal = torch.ones(self.capacity, 1)
        weight, length = self._of_one_length(texts, candidates, equal, generator, largest)
        drawn = torch.multinomial(weight[:, 0], count, replacement=True, generator=generator)
        places = candidates[drawn]
        mask, places = self.fields["mask"][places], to_device(places, self.device)
        batch = {name: value[places] for name, value in self.fields.items() if name not in self.HOST_FIELDS}
        batch |= {name: batch[name].float() for name in PICTURES if name in batch}
        return batch | {"text": batch[texts], "text_length": length, "mask": mask}
