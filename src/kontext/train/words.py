"""Pretraining of both text encoders on sentences, without pictures; see `attributes.py`.

The flow run starts from the resulting encoders, heads and tokenizer.
"""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from kontext.errors import BadCheckpoint, BadConfig
from kontext.model.presets import PRESETS, Preset
from kontext.model.text import ClipText, T5Encoder
from kontext.train.attributes import (
    AttributeHeads,
    Predictions,
    SentencePool,
    Targets,
    accuracy,
    attribute_loss,
    broad_world,
    by_kind,
    correct,
    draw,
    labels_of,
    saved_heads,
)
from kontext.train.autoencoder import HELD_OUT
from kontext.train.config import WordsTraining
from kontext.train.distributed import require_single_process
from kontext.train.optimizer import MuonAdamW, split_parameters
from kontext.train.pairs import target_caption
from kontext.train.rare_words import RareWordSampler
from kontext.train.run import Ema, TrainingRun, averaged_weights, read_state
from kontext.train.tokenizer import train_tokenizer, with_split_quotes
from kontext.world import World

log = logging.getLogger(__name__)

TOKENIZER_SAMPLES = 12000
"""Number of samples whose sentences train the tokenizer."""


class TextEncoders(nn.Module):
    """Both encoders with their heads."""

    def __init__(self, preset: Preset, labels: int):
        super().__init__()
        self.t5, self.clip = T5Encoder(preset.t5), ClipText(preset.clip)
        self.heads = AttributeHeads(preset, labels)

    def forward(self, ids: Tensor) -> Predictions:
        """ids (b, m) -> the logits of all heads."""
        predictions: Predictions = self.heads(ids, *self.outputs(ids))
        return predictions

    def outputs(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (b, m) -> states of T5 (b, m, width) and the vector of CLIP (b, width)."""
        return self.t5(ids), self.clip(ids)


def anchor_loss(
    outputs: tuple[Tensor, Tensor], initial: TextEncoders, ids: Tensor, targets: Targets
) -> Tensor:
    """Squared distance of both outputs from the initial encoders', each relative to their variance.

    Over the sentences (b, m) whose labels the initial heads predict, each head for its encoder; without those
    that spell a word, whose letters the initial encoders need not distinguish.
    """
    with torch.no_grad():
        expected = initial.outputs(ids)
        logits = initial.heads(ids, *expected)
    total = ids.new_zeros((), dtype=torch.float32)
    write = (targets.letters > 0).any(1)
    for output, target, predicted in zip(outputs, expected, logits):
        right = ((predicted > 0) == (targets.labels > 0)).all(1) & ~write
        distance = (output - target).float().square().flatten(1).mean(1)
        variance = (target - target.mean(0)).float().square().mean()
        total = total + (distance * right).sum() / (variance * len(ids))
    return total


def train(
    config: WordsTraining,
    folder: Path,
    resume: bool = False,
    initial: Path | None = None,
    anchored_to: Path | None = None,
) -> Path:
    """Train; writes the averaged encoders, their heads and the tokenizer to the folder.

    initial: folder of an earlier run, or the `state.pt` of a flow run; its encoders, heads and tokenizer are
    the start. anchored_to: likewise the encoders whose outputs to stay near, of the same tokenizer; None:
    those of the start. Raises BadCheckpoint, and BadConfig for an anchor without either.
    """
    require_single_process("the text encoder pretraining")
    torch.manual_seed(config.seed)
    preset, world = PRESETS[config.preset], World(**config.world)
    sampler = RareWordSampler(world if config.world else broad_world(), config.candidates)
    run = TrainingRun(
        folder,
        steps=config.steps,
        seconds=config.seconds,
        warmup=config.warmup,
        decay_share=config.decay_share,
        call_seconds=config.call_seconds,
    )
    state = run.load() if resume else None
    if state is not None:
        tokenizer, labels = Tokenizer.from_str(state["tokenizer"]), state["labels"]
    else:
        start = None if initial is None else TextStart.read(initial)
        tokenizer, labels = _prepare(world, preset.t5.vocab, folder, start)
    readers = TextEncoders(preset, len(labels))
    if state is None and start is not None:
        start.load(readers, labels)
    anchor: TextEncoders | None = None
    if config.anchor:
        if initial is None and anchored_to is None and state is None:
            raise BadConfig("anchor needs the encoders of an earlier run: --start or --anchor")
        anchor = copy.deepcopy(readers).requires_grad_(False)
        if state is not None:
            anchor.load_state_dict(state["anchor"])
        elif anchored_to is not None:
            other = TextStart.read(anchored_to)
            if with_split_quotes(other.tokenizer).to_str() != tokenizer.to_str():
                raise BadCheckpoint(f"{anchored_to} has another tokenizer than the start")
            other.load(anchor, labels)
    groups = split_parameters([readers], ("embed", "shared", "bias", "head"))
    optimizer = MuonAdamW(
        *groups, muon_rate=config.muon_rate, adamw_rate=config.adamw_rate, weight_decay=0.01
    )
    ema = Ema([readers], config.ema)
    if state is not None:
        optimizer.resume(state["optimizer"])
        readers.load_state_dict(state["readers"])
        ema.average = state["ema"]
    generator = torch.Generator().manual_seed(config.seed + run.step)
    seed = state["seed"] if state else config.seed
    pool = SentencePool(config.pool, labels, tokenizer, preset, config.token_dropout)
    held_out = held_out_sentences(world, config.validation_sentences, labels, tokenizer, preset)

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
            | ({"anchor": anchor.state_dict()} if anchor is not None else {})
        )

    last_save = run.elapsed
    while not run.finished:
        run.pause_if_due(save)
        for _ in range(config.fresh if pool.added else config.first_fill):
            pool.add(sampler.draw(seed))
            seed += 1
        ids, targets = pool.draw(config.batch, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast):
            outputs = readers.outputs(ids)
            loss = attribute_loss(readers.heads(ids, *outputs), targets)
            distance = 0.0 if anchor is None else anchor_loss(outputs, anchor, ids, targets)
        optimizer.zero_grad(set_to_none=True)
        (loss + config.anchor * distance).backward()
        torch.nn.utils.clip_grad_norm_(readers.parameters(), 1.0)
        optimizer.scale_rates(run.lr_factor())
        optimizer.step()
        run.step += 1
        ema.update(run.step)
        if run.logs(config.log_every):
            run.record(loss=loss.item(), sentences=2 * pool.added, **run.pace(torch.device("cpu")))
        if run.step % config.validate_every == 0 or run.finished:
            with ema:
                right = {split: correct(readers, pool) for split, pool in held_out.items()}
            figures: dict[str, object] = {}
            for split, part in right.items():
                figures |= {f"{split}_{name}": share for name, share in accuracy(part).items()}
            if run.finished:
                figures["kinds"] = by_kind(right["phrasing"], held_out["phrasing"])
            run.record(**figures)
        if run.elapsed - last_save > config.save_seconds or run.finished:
            save()
            last_save = run.elapsed
    with ema:
        return _write(readers, folder)


def held_out_sentences(
    world: World, count: int, labels: list[str], tokenizer: Tokenizer, preset: Preset
) -> dict[str, SentencePool]:
    """Sentences of held-out scenes in known phrasings, and in held-out ones."""
    pools = {}
    for split in ("test", "phrasing"):
        pools[split] = SentencePool(count, labels, tokenizer, preset)
        for i in range(count):
            pools[split].add(draw(world, HELD_OUT + i, split))
    return pools


@dataclass(frozen=True)
class TextStart:
    """What a run starts from."""

    tokenizer: str
    weights: dict[str, Tensor]
    """Of both encoders, "t5." and "clip.", and possibly of more networks."""
    heads: dict[str, Tensor]
    labels: list[str]
    """Of the heads; both are empty if there are none."""

    @classmethod
    def read(cls, path: Path) -> TextStart:
        """Read the folder of a run on sentences, or the state of a flow run. Raises BadCheckpoint."""
        if path.is_dir():
            if not (path / "words.safetensors").exists():
                raise BadCheckpoint(f"{path} holds no trained words: words.safetensors is missing")
            if not (path / "tokenizer.json").exists():
                raise BadCheckpoint(f"{path} holds no trained words: tokenizer.json is missing")
            tokenizer = (path / "tokenizer.json").read_text("utf-8")
            return cls(tokenizer, load_file(path / "words.safetensors"), *saved_heads(path))
        state = read_state(path)
        if not {"networks", "tokenizer"} <= state.keys():
            raise BadCheckpoint(f"{path} is not the state of a flow run")
        heads, labels = state.get("words", {}), json.loads(state.get("labels", "[]"))
        return cls(state["tokenizer"], averaged_weights(state), heads, labels)

    def load(self, readers: TextEncoders, labels: list[str]) -> None:
        """Load the encoders, and the heads of the labels that both have."""
        for name, module in (("t5", readers.t5), ("clip", readers.clip)):
            part = {
                k.removeprefix(f"{name}."): w for k, w in self.weights.items() if k.startswith(f"{name}.")
            }
            module.load_state_dict(part)
        readers.heads.copy(self.heads, self.labels, labels)


def _write(readers: TextEncoders, folder: Path) -> Path:
    parts = {"t5": readers.t5, "clip": readers.clip}
    weights = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "words.safetensors")
    save_file(readers.heads.state_dict(), folder / "heads.safetensors")
    return folder / "words.safetensors"


def _prepare(world: World, vocab: int, folder: Path, start: TextStart | None) -> tuple[Tokenizer, list[str]]:
    """The tokenizer, from sentences of the world or from an earlier run, and the labels."""
    labels = labels_of(world)
    if start is not None:
        tokenizer = with_split_quotes(start.tokenizer)
    else:
        texts: list[str] = []
        for seed in range(TOKENIZER_SAMPLES):
            sample = world.sample(seed, pictures=False)
            texts += [sample.english, sample.chinese]
            if seed % 3 == 0:
                texts += target_caption(sample)
        tokenizer = train_tokenizer(texts, vocab)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "labels.json").write_text(json.dumps(labels))
    log.info("%d labels", len(labels))
    return tokenizer, labels
