"""Attribute prediction: linear heads on both text encoders predict the attributes of an instruction.

A sentence costs a hundredth of a pair of pictures. The labels are the attributes of the sentence
(`kontext.world.tasks.attributes`), the same in both languages, as independent binary targets. One head reads
the pooled vector of CLIP, the other attends to the states of T5 with a few queries. A third one reads each
state of T5: which letter of a word to be written its token is, the first, the second, ..., or none.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
from kontext.world.tasks.attributes import all_labels, attributes, words_to_write

LABEL_SAMPLES = 6000
"""Number of samples whose attributes are the labels."""

QUERIES = 8
"""Number of queries, each a weighted mean of T5's states."""

MAX_LETTERS = 12
"""Positions of a word's letters that are distinguished; from the thirteenth on, letters count as the last."""

IGNORED = -100
"""Target of padding, which cross-entropy leaves out."""

LANGUAGES = ("english", "chinese")


@dataclass(frozen=True)
class Sentence:
    """One instruction in both languages with its attribute labels."""

    english: str
    chinese: str
    labels: frozenset[str]
    words: tuple[str, ...] = ()
    """Words that are to be written in the picture."""


def sentence_of(sample: Sample) -> Sentence:
    return Sentence(
        sample.english, sample.chinese, attributes(sample), words_to_write(sample.kind, sample.value)
    )


def draw(world: World, seed: int, split: str = "train") -> Sentence:
    """The sentence of a seed."""
    return sentence_of(world.sample(seed, split, pictures=False))


def broad_world() -> World:
    """The world with made-up words, and rare kinds, compounds and words more often than in the pictures."""
    weights = {name: weight**0.5 for name, weight in World().weights}
    factors = {"compound": 4, "nothing": 3, "text": 3, "text_write": 3}
    often = {name: factor * weights[name] for name, factor in factors.items()}
    return World(kinds=weights | often, made_up_words=2000)


def labels_of(world: World) -> list[str]:
    """The labels that the sentences of a world have, sorted."""
    return all_labels(world.sample(seed, pictures=False) for seed in range(LABEL_SAMPLES))


class Predictions(NamedTuple):
    """Logits of the heads."""

    t5: Tensor
    """(b, labels)."""
    clip: Tensor
    """(b, labels)."""
    letters: Tensor
    """(b, m, 1 + MAX_LETTERS): none, first letter, second letter, ..."""


class Targets(NamedTuple):
    """What is to be predicted."""

    labels: Tensor
    """(b, labels) float32, 0 or 1."""
    letters: Tensor
    """(b, m) int64: 0 for none, 1 for the first letter of a word to be written, ...; -100 for padding."""


class AttributeHeads(nn.Module):
    """Linear heads: two over the labels, one over the positions of letters.

    The labels are predicted from CLIP's pooled vector and from queried means of T5's states, the positions
    from each of T5's states.
    """

    def __init__(self, preset: Preset, labels: int):
        super().__init__()
        width = preset.t5.width
        self.queries = nn.Linear(width, QUERIES, bias=False)
        self.t5_head = nn.Linear(QUERIES * width, labels)
        self.clip_head = nn.Linear(preset.clip.width, labels)
        self.letter_head = nn.Linear(width, 1 + MAX_LETTERS)
        with torch.no_grad():  # begin with "none", so that a new head does not outweigh the labels
            self.letter_head.weight.zero_()
            self.letter_head.bias.zero_()[0] = 5.0

    def forward(self, ids: Tensor, states: Tensor, pooled: Tensor) -> Predictions:
        """Predictions from T5's states (b, m, width) and from CLIP's vector (b, width)."""
        scores = self.queries(states).float().masked_fill((ids == 0)[..., None], -torch.inf)
        found = scores.softmax(1).mT @ states.float()  # (b, queries, width)
        return Predictions(
            self.t5_head(found.flatten(1)), self.clip_head(pooled), self.letter_head(states.float())
        )

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
            if name == "queries.weight" or name.startswith("letter_head"):
                parameter.copy_(saved[name])
            else:
                parameter[to] = saved[name][of].to(parameter)


def saved_heads(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The heads of a folder of `kontext train words` and their labels; both are empty if it has none."""
    if not (folder / "heads.safetensors").exists():
        return {}, []
    return load_file(folder / "heads.safetensors"), json.loads((folder / "labels.json").read_text("utf-8"))


Predictor = Callable[[Tensor], Predictions]
"""Text ids (b, m) -> the logits of all heads."""


def predictor(t5: T5Encoder, clip: ClipText, heads: AttributeHeads) -> Predictor:
    return lambda ids: heads(ids, t5(ids), clip(ids))


class SentenceEncoder:
    """A sentence as arrays: token ids and letters in both languages, and labels."""

    def __init__(self, labels: list[str], tokenizer: Tokenizer, length: int, token_dropout: float = 0.0):
        """length: number of ids.

        token_dropout: probability with which a merge of the tokenizer is skipped in broken sentences, to
        learn words in other pieces.
        """
        self.tokenizer, self.length = tokenizer, length
        self.index = {label: i for i, label in enumerate(labels)}
        self.letter_ids = {tokenizer.token_to_id(c) for c in string.ascii_lowercase + string.digits}
        self.broken = tokenizer
        if token_dropout:
            self.broken = Tokenizer.from_str(tokenizer.to_str())
            self.broken.model.dropout = token_dropout

    def __call__(self, sentence: Sentence, broken: bool) -> dict[str, np.ndarray]:
        """ids (languages, length) int32, letters (languages, length) int8, targets (labels,) bool."""
        tokenizer = self.broken if broken else self.tokenizer
        spelled = [[tokenizer.token_to_id(c) for c in word.lower()] for word in sentence.words]
        ids = np.stack([text_ids(tokenizer, getattr(sentence, name), self.length) for name in LANGUAGES])
        letters = np.stack([letter_positions(row, spelled, self.letter_ids) for row in ids])
        targets = np.zeros(len(self.index), bool)
        targets[[self.index[label] for label in sentence.labels if label in self.index]] = True
        return {"ids": ids, "letters": letters, "targets": targets}


@dataclass(frozen=True)
class Sentences:
    """Producer: seed -> an encoded sentence of a world, every second one broken."""

    world: World
    encoder: SentenceEncoder

    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        return self.encoder(draw(self.world, seed), seed % 2 > 0)


class SentencePool:
    """A ring buffer of sentences as token ids and labels.

    padded_length: token count -> padded length. token_dropout: that of the encoder, in every second sentence.
    """

    def __init__(
        self,
        capacity: int,
        labels: list[str],
        tokenizer: Tokenizer,
        preset: Preset,
        token_dropout: float = 0.0,
    ):
        self.capacity, self.padded_length = capacity, preset.padded_length
        self.encoder = SentenceEncoder(labels, tokenizer, preset.text_length, token_dropout)
        self.index = self.encoder.index
        self.ids = np.zeros((capacity, len(LANGUAGES), preset.text_length), np.int32)
        self.lengths = np.zeros((capacity, len(LANGUAGES)), np.int32)
        self.targets = np.zeros((capacity, len(labels)), bool)
        self.letters = np.zeros((capacity, len(LANGUAGES), preset.text_length), np.int8)
        self.added = 0

    @property
    def filled(self) -> int:
        return min(self.added, self.capacity)

    def add(self, sentence: Sentence) -> None:
        encoded = self.encoder(sentence, self.added % 2 > 0)
        self.store({name: value[None] for name, value in encoded.items()})

    def store(self, sentences: Mapping[str, np.ndarray]) -> None:
        """Store encoded sentences, (n, ...) each field, in place of the oldest."""
        counts = (sentences["ids"] != 0).sum(-1)
        places = (np.arange(len(counts)) + self.added) % self.capacity
        self.ids[places], self.letters[places] = sentences["ids"], sentences["letters"]
        self.targets[places] = sentences["targets"]
        self.lengths[places] = np.vectorize(self.padded_length, otypes=[np.int32])(counts)
        self.added += len(counts)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Targets]:
        """Ids (count, m) and targets of sentences of one padded length, that of a random one."""
        lengths = self.lengths[: self.filled].reshape(-1)
        length = int(lengths[int(torch.randint(len(lengths), (1,), generator=generator))])
        fitting = np.flatnonzero(lengths == length)
        chosen = fitting[torch.randint(len(fitting), (count,), generator=generator).numpy()]
        places, languages = np.divmod(chosen, len(LANGUAGES))
        ids = torch.from_numpy(self.ids[places, languages, :length])
        return ids, self.targets_of(places, languages, length)

    def targets_of(self, places: np.ndarray, languages: np.ndarray | int, length: int) -> Targets:
        """The targets of some sentences in some language, their tokens cut to a length."""
        letters = torch.from_numpy(self.letters[places, languages, :length]).long()
        padding = torch.from_numpy(self.ids[places, languages, :length] == 0)
        letters = letters.masked_fill(padding, IGNORED)
        return Targets(torch.from_numpy(self.targets[places]).float(), letters)


def letter_positions(
    ids: np.ndarray, words: list[list[int | None]], letters: Container[int | None]
) -> np.ndarray:
    """Which letter of one of the words each token is, int8 (m,), counted from 1; 0 for none.

    ids (m,); words: the ids of their letters, None for an unknown one; letters: ids, none of which precedes
    or follows a word. Of a word that is there several times, the last one counts.
    """
    positions = np.zeros(len(ids), np.int8)
    for word in words:
        for start in range(len(ids) - len(word), -1, -1):
            end = start + len(word)
            if ids[start:end].tolist() != word:
                continue
            around = [*ids[max(0, start - 1) : start], *ids[end : end + 1]]
            if not any(int(i) in letters for i in around):
                positions[start:end] = np.arange(1, len(word) + 1).clip(max=MAX_LETTERS)
                break
    return positions


def attribute_loss(predictions: Predictions, targets: Targets) -> Tensor:
    """Binary cross-entropy of the labels and cross-entropy of the letters, summed, mean over sentences."""
    total = F.cross_entropy(
        predictions.letters.float().flatten(0, 1), targets.letters.flatten(), reduction="sum"
    )
    for logits in predictions[:2]:
        total = total + F.binary_cross_entropy_with_logits(logits.float(), targets.labels, reduction="sum")
    return total / len(targets.labels)


class Correct(NamedTuple):
    """What is predicted right in the sentences of a pool."""

    labels: np.ndarray
    """Whether all labels are, bool (T5, CLIP, the mean of both heads; languages; sentences)."""
    letters: np.ndarray
    """Whether the positions of all letters are, bool (languages, sentences that spell a word)."""


@torch.no_grad()
def correct(read: Predictor, pool: SentencePool, device: str | torch.device = "cpu") -> Correct:
    """What is predicted right in the sentences of a pool."""
    right = np.zeros((3, len(LANGUAGES), pool.filled), bool)
    letters = np.zeros((len(LANGUAGES), pool.filled), bool)
    for language in range(len(LANGUAGES)):
        lengths = pool.lengths[: pool.filled, language]
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            ids = torch.from_numpy(pool.ids[places, language, :length]).to(device)
            targets = pool.targets_of(places, language, length)
            predictions = read(ids)
            for encoder, logits in enumerate((*predictions[:2], predictions.t5 + predictions.clip)):
                right[encoder, language, places] = ((logits.cpu() > 0) == (targets.labels > 0)).all(1).numpy()
            predicted = predictions.letters.argmax(-1).cpu()
            same = (predicted == targets.letters) | (targets.letters == IGNORED)
            letters[language, places] = same.all(1).numpy()
    return Correct(right, letters[:, pool.letters[: pool.filled].any(-1).all(-1)])


def accuracy(right: Correct) -> dict[str, float]:
    """Shares of sentences with all labels predicted, "clip_english", or all letters, "letters_english".

    "both_english" is by the mean of the heads of both encoders. Without letters if no sentence spells a word.
    """
    parts = dict(zip(("t5", "clip", "both"), right.labels))
    if right.letters.size:
        parts["letters"] = right.letters
    return {
        f"{name}_{language}": float(share)
        for name, part in parts.items()
        for language, share in zip(LANGUAGES, part.mean(-1))
    }


def by_kind(right: Correct, pool: SentencePool) -> dict[str, list[float]]:
    """Share of sentences with all labels predicted by both, English and Chinese, by kind of edit."""
    shares: dict[str, list[float]] = {}
    for label, index in pool.index.items():
        chosen = pool.targets[: pool.filled, index]
        if label.startswith("kind:") and chosen.any():
            shares[label.removeprefix("kind:")] = [
                round(float(part[chosen].mean()), 3) for part in right.labels[2]
            ]
    return shares
