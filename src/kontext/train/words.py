"""Pretraining of both text encoders on sentences, without pictures.

A sentence costs a hundredth of a pair of pictures. A linear head on the pooled vector of CLIP and one on the
mean state of T5 predict the attributes of the sentence (`world/tasks/attributes.py`), in both languages, as
independent binary labels. The flow run starts from the resulting encoders and tokenizer.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from kontext.model.presets import PRESETS, Preset
from kontext.model.text import ClipText, T5Encoder
from kontext.train.autoencoder import HELD_OUT
from kontext.train.config import WordsTraining
from kontext.train.distributed import require_single_process
from kontext.train.optimizer import MuonAdamW, split_parameters
from kontext.train.pairs import target_caption, text_ids
from kontext.train.run import Ema, Run
from kontext.train.tokenizer import train_tokenizer
from kontext.world import World
from kontext.world.tasks.attributes import attributes

log = logging.getLogger(__name__)

TOKENIZER_SAMPLES = 6000
"""Number of samples whose sentences train the tokenizer."""


@dataclass(frozen=True)
class Sentence:
    """One instruction in both languages with its attribute labels."""

    english: str
    chinese: str
    labels: frozenset[str]


def draw(world: World, seed: int, split: str = "train") -> Sentence:
    sample = world.sample(seed, split, pictures=False)
    return Sentence(sample.english, sample.chinese, attributes(sample))


class Readers(nn.Module):
    """Both encoders, each with a linear head over the labels."""

    def __init__(self, preset: Preset, labels: int):
        super().__init__()
        self.t5, self.clip = T5Encoder(preset.t5), ClipText(preset.clip)
        self.t5_head = nn.Linear(preset.t5.width, labels)
        self.clip_head = nn.Linear(preset.clip.width, labels)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (b, m) -> logits (b, labels) of T5 and of CLIP."""
        words = (ids != 0).float()[..., None]
        mean = (self.t5(ids) * words).sum(1) / words.sum(1)
        return self.t5_head(mean), self.clip_head(self.clip(ids))


class SentencePool:
    """A ring buffer of sentences as token ids and labels."""

    def __init__(self, capacity: int, labels: list[str], tokenizer: Tokenizer, length: int):
        self.capacity, self.length, self.tokenizer = capacity, length, tokenizer
        self.index = {label: i for i, label in enumerate(labels)}
        self.ids = np.zeros((capacity, 2, length), np.int32)
        self.targets = np.zeros((capacity, len(labels)), bool)
        self.added = 0

    def add(self, sentence: Sentence) -> None:
        place = self.added % self.capacity
        for language, text in enumerate((sentence.english, sentence.chinese)):
            self.ids[place, language] = text_ids(self.tokenizer, text, self.length)
        self.targets[place] = False
        known = [self.index[label] for label in sentence.labels if label in self.index]
        self.targets[place, known] = True
        self.added += 1

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids (count, m), half of them English, without common padding, and labels (count, n)."""
        places = torch.randint(min(self.added, self.capacity), (count,), generator=generator).numpy()
        ids = self.ids[places, np.arange(count) % 2]
        longest = int((ids != 0).sum(1).max())
        return torch.from_numpy(ids[:, :longest]), torch.from_numpy(self.targets[places]).float()


@torch.no_grad()
def accuracy(readers: Readers, pool: SentencePool) -> dict[str, float]:
    """Share of sentences with all labels predicted correctly, by encoder and language."""
    figures, true = {}, torch.from_numpy(pool.targets[: pool.added])
    for language, name in enumerate(("english", "chinese")):
        ids = torch.from_numpy(pool.ids[: pool.added, language])
        for encoder, logits in zip(("t5", "clip"), readers(ids)):
            figures[f"{encoder}_{name}"] = float(((logits > 0) == true).all(1).float().mean())
    return figures


def train(config: WordsTraining, folder: Path, resume: bool = False) -> Path:
    """Train; writes `words.safetensors` (averaged encoders) and `tokenizer.json` to the folder."""
    require_single_process("the text encoder pretraining")
    torch.manual_seed(config.seed)
    preset, world = PRESETS[config.preset], World(**config.world)
    run = Run(
        folder,
        steps=config.steps,
        seconds=config.seconds,
        warmup=config.warmup,
        decay_share=config.decay_share,
        call_seconds=config.call_seconds,
    )
    state = run.load() if resume else None
    if state is None:
        tokenizer, labels = _prepare(world, preset.t5.vocab, folder)
    else:
        tokenizer, labels = Tokenizer.from_str(state["tokenizer"]), state["labels"]
    readers = Readers(preset, len(labels))
    muon, adamw = split_parameters([readers], ("embed", "shared", "bias", "head"))
    optimizer = MuonAdamW(
        muon, adamw, muon_rate=config.muon_rate, adamw_rate=config.adamw_rate, weight_decay=0.01
    )
    ema = Ema([readers], config.ema)
    if state is not None:
        readers.load_state_dict(state["readers"])
        optimizer.load_state_dict(state["optimizer"])
        ema.average = state["ema"]
    generator = torch.Generator().manual_seed(config.seed + run.step)
    seed = state["seed"] if state else config.seed
    pool = SentencePool(config.pool, labels, tokenizer, preset.text_length)
    held_out = {}
    for split in ("test", "phrasing"):
        held_out[split] = SentencePool(config.validation_sentences, labels, tokenizer, preset.text_length)
        for i in range(config.validation_sentences):
            held_out[split].add(draw(world, HELD_OUT + i, split))

    def save() -> None:
        run.save(
            {
                "readers": readers.state_dict(),
                "optimizer": optimizer.state_dict(),
                "ema": ema.average,
                "seed": seed,
                "labels": labels,
                "tokenizer": tokenizer.to_str(),
            }
        )

    last_save = run.elapsed
    while not run.finished:
        run.pause_if_due(save)
        for _ in range(config.fresh if pool.added else config.first_fill):
            pool.add(draw(world, seed))
            seed += 1
        ids, targets = pool.draw(config.batch, generator)
        losses = [
            F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(ids)
            for logits in readers(ids)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(readers.parameters(), 1.0)
        optimizer.scale_rates(run.lr_factor())
        optimizer.step()
        run.step += 1
        ema.update(run.step)
        if run.logs(config.log_every):
            run.record(loss=loss.item(), sentences=2 * pool.added, **run.pace(torch.device("cpu")))
        if run.step % config.validate_every == 0 or run.finished:
            with ema:
                figures = {split: accuracy(readers, held_out[split]) for split in held_out}
            run.record(**{f"{split}_{k}": v for split, part in figures.items() for k, v in part.items()})
        if run.elapsed - last_save > config.save_seconds or run.finished:
            save()
            last_save = run.elapsed
    with ema:
        parts = {"t5": readers.t5, "clip": readers.clip}
        weights = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / "words.safetensors")
    return folder / "words.safetensors"


def _prepare(world: World, vocab: int, folder: Path) -> tuple[Tokenizer, list[str]]:
    """The tokenizer and the sorted labels, from sentences of the world."""
    texts: list[str] = []
    labels: set[str] = set()
    for seed in range(TOKENIZER_SAMPLES):
        sample = world.sample(seed, pictures=False)
        texts += [sample.english, sample.chinese]
        if seed % 3 == 0:
            texts += target_caption(sample)
        labels |= attributes(sample)
    tokenizer = train_tokenizer(texts, vocab)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "labels.json").write_text(json.dumps(sorted(labels)))
    log.info("%d labels", len(labels))
    return tokenizer, sorted(labels)
