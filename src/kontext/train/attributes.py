"""Attribute prediction: linear heads on both text encoders predict the attributes of an instruction.

A sentence costs a hundredth of a pair of pictures. The labels are the attributes of the sentence
(`kontext.world.tasks.attributes`), the same in both languages, as independent binary targets. One head reads
the pooled vector of CLIP, the other attends to the states of T5 with a few queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from kontext.model.presets import Preset
from kontext.model.text import ClipText, T5Encoder
from kontext.train.pairs import text_ids
from kontext.world import Sample, World
from kontext.world.tasks.attributes import all_labels, attributes

LABEL_SAMPLES = 6000
"""Number of samples whose attributes are the labels."""

QUERIES = 8
"""Number of queries, each a weighted mean of T5's states."""

LANGUAGES = ("english", "chinese")


@dataclass(frozen=True)
class Sentence:
    """One instruction in both languages with its attribute labels."""

    english: str
    chinese: str
    labels: frozenset[str]


def sentence_of(sample: Sample) -> Sentence:
    return Sentence(sample.english, sample.chinese, attributes(sample))


def draw(world: World, seed: int, split: str = "train") -> Sentence:
    """The sentence of a seed."""
    return sentence_of(world.sample(seed, split, pictures=False))


def broad_world() -> World:
    """The world with rare kinds of edits and compound edits more often than in the pictures."""
    weights = {name: weight**0.5 for name, weight in World().weights}
    often = {"compound": 4 * weights["compound"], "nothing": 3 * weights["nothing"]}
    return World(kinds=weights | often)


def labels_of(world: World) -> list[str]:
    """The labels that the sentences of a world have, sorted."""
    return all_labels(world.sample(seed, pictures=False) for seed in range(LABEL_SAMPLES))


class AttributeHeads(nn.Module):
    """Linear heads over the labels, on CLIP's pooled vector and on queried means of T5's states."""

    def __init__(self, preset: Preset, labels: int):
        super().__init__()
        width = preset.t5.width
        self.queries = nn.Linear(width, QUERIES, bias=False)
        self.t5_head = nn.Linear(QUERIES * width, labels)
        self.clip_head = nn.Linear(preset.clip.width, labels)

    def forward(self, ids: Tensor, states: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, labels) from T5's states (b, m, width) and from CLIP's vector (b, width)."""
        scores = self.queries(states).float().masked_fill((ids == 0)[..., None], -torch.inf)
        found = scores.softmax(1).mT @ states.float()  # (b, queries, width)
        return self.t5_head(found.flatten(1)), self.clip_head(pooled)

    def load(self, folder: Path, labels: list[str]) -> None:
        """Load the heads of a folder of `kontext train words`, if any, for the known labels."""
        self.copy(*saved_heads(folder), labels)

    def fits(self, saved: dict[str, Tensor], known: list[str], labels: list[str]) -> bool:
        """Whether saved heads have the same kind and the same labels."""
        shapes = {name: tuple(p.shape) for name, p in self.named_parameters()}
        return known == labels and shapes == {name: tuple(p.shape) for name, p in saved.items()}

    @torch.no_grad()
    def copy(self, saved: dict[str, Tensor], known: list[str], labels: list[str]) -> None:
        """Copy saved heads of the labels `known`; heads of other labels stay unchanged."""
        rows = {label: i for i, label in enumerate(known)}
        shared = [label for label in labels if label in rows]
        to, of = [labels.index(label) for label in shared], [rows[label] for label in shared]
        for name, parameter in self.named_parameters():
            if name not in saved or saved[name].shape[1:] != parameter.shape[1:]:
                continue  # of another kind of head
            if name == "queries.weight":
                parameter.copy_(saved[name])
            else:
                parameter[to] = saved[name][of].to(parameter)


def saved_heads(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The heads of a folder of `kontext train words` and their labels; both are empty if it has none."""
    if not (folder / "heads.safetensors").exists():
        return {}, []
    return load_file(folder / "heads.safetensors"), json.loads((folder / "labels.json").read_text("utf-8"))


LabelPredictor = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Text ids (b, m) -> logits (b, labels) of T5 and of CLIP."""


def label_predictor(t5: T5Encoder, clip: ClipText, heads: AttributeHeads) -> LabelPredictor:
    return lambda ids: heads(ids, t5(ids), clip(ids))


class SentencePool:
    """A ring buffer of sentences as token ids and labels.

    padded_length: token count -> padded length. token_dropout: probability with which a merge of the
    tokenizer is skipped in every second sentence, to learn words in other pieces.
    """

    def __init__(
        self,
        capacity: int,
        labels: list[str],
        tokenizer: Tokenizer,
        preset: Preset,
        token_dropout: float = 0.0,
    ):
        self.capacity, self.length = capacity, preset.text_length
        self.tokenizer, self.padded_length = tokenizer, preset.padded_length
        self.index = {label: i for i, label in enumerate(labels)}
        self.ids = np.zeros((capacity, len(LANGUAGES), self.length), np.int32)
        self.lengths = np.zeros((capacity, len(LANGUAGES)), np.int32)
        self.targets = np.zeros((capacity, len(labels)), bool)
        self.added = 0
        self.broken: Tokenizer | None = None
        if token_dropout:
            self.broken = Tokenizer.from_str(tokenizer.to_str())
            self.broken.model.dropout = token_dropout

    @property
    def filled(self) -> int:
        return min(self.added, self.capacity)

    def add(self, sentence: Sentence) -> None:
        place = self.added % self.capacity
        tokenizer = self.broken if self.broken is not None and self.added % 2 else self.tokenizer
        for language, name in enumerate(LANGUAGES):
            ids = text_ids(tokenizer, getattr(sentence, name), self.length)
            self.ids[place, language] = ids
            self.lengths[place, language] = self.padded_length(int((ids != 0).sum()))
        self.targets[place] = False
        known = [self.index[label] for label in sentence.labels if label in self.index]
        self.targets[place, known] = True
        self.added += 1

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids (count, m) and labels (count, n) of sentences of one padded length, that of a random one."""
        lengths = self.lengths[: self.filled].reshape(-1)
        length = int(lengths[int(torch.randint(len(lengths), (1,), generator=generator))])
        fitting = np.flatnonzero(lengths == length)
        chosen = fitting[torch.randint(len(fitting), (count,), generator=generator).numpy()]
        places, languages = np.divmod(chosen, len(LANGUAGES))
        ids = torch.from_numpy(self.ids[places, languages, :length])
        return ids, torch.from_numpy(self.targets[places]).float()


def attribute_loss(predictions: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Binary cross-entropy of both heads' logits (b, labels), summed over labels, mean over sentences."""
    total = targets.new_zeros(())
    for logits in predictions:
        total = total + F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")
    return total / len(targets)


@torch.no_grad()
def correct(read: LabelPredictor, pool: SentencePool, device: str | torch.device = "cpu") -> np.ndarray:
    """Whether all labels of a sentence are predicted, bool (encoders: T5, CLIP; languages; sentences)."""
    right = np.zeros((2, len(LANGUAGES), pool.filled), bool)
    for language in range(len(LANGUAGES)):
        lengths = pool.lengths[: pool.filled, language]
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            ids = torch.from_numpy(pool.ids[places, language, :length]).to(device)
            targets = torch.from_numpy(pool.targets[places])
            for encoder, logits in enumerate(read(ids)):
                right[encoder, language, places] = ((logits.cpu() > 0) == targets).all(1).numpy()
    return right


def accuracy(right: np.ndarray) -> dict[str, float]:
    """Share of sentences with all labels predicted, by encoder and language: "clip_english"."""
    shares = right.mean(-1)
    return {
        f"{encoder}_{language}": float(shares[i, j])
        for i, encoder in enumerate(("t5", "clip"))
        for j, language in enumerate(LANGUAGES)
    }


def by_kind(right: np.ndarray, pool: SentencePool) -> dict[str, list[float]]:
    """Share of sentences with all labels predicted by CLIP, English and Chinese, by kind of edit."""
    shares: dict[str, list[float]] = {}
    for label, index in pool.index.items():
        chosen = pool.targets[: pool.filled, index]
        if label.startswith("kind:") and chosen.any():
            shares[label.removeprefix("kind:")] = [round(float(part[chosen].mean()), 3) for part in right[1]]
    return shares
