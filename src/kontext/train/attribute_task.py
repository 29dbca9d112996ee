"""Attribute prediction as an auxiliary task of the flow run: a batch of sentences with every step.

It preserves and extends the encoders' vocabulary while they learn from pictures. Heads, labels and loss are
those of `kontext train words`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kontext.model.presets import Preset
from kontext.train.attributes import (
    AttributeHeads,
    SentencePool,
    Sentences,
    Targets,
    accuracy,
    attribute_loss,
    broad_world,
    correct,
    draw,
    labels_of,
    predictor,
)
from kontext.train.autoencoder import HELD_OUT
from kontext.train.config import FlowTraining
from kontext.train.device import to_device
from kontext.train.loader import ExampleLoader
from kontext.train.networks import Networks
from kontext.train.optimizer import MuonAdamW
from kontext.train.run import Ema
from kontext.world import World

POOL = 20000
"""Number of sentences, each in two languages, that batches are drawn from."""


class AttributeTask:
    """Sentences, heads and their optimizer; the encoders are those of the run's networks."""

    def __init__(
        self,
        config: FlowTraining,
        preset: Preset,
        networks: Networks,
        tokenizer: Tokenizer,
        *,
        batch: int,
        first_seed: int,
        state: dict[str, Any],
        words: Path | None,
    ):
        """Take the heads of a state, or those of the folder `words`, if any.

        state: of a resumed run, or the heads alone of the run to start from; empty for a new run.
        """
        self.config, self.batch, self.networks = config, batch, networks
        self.labels = labels_of(World())
        self.device = next(networks.parameters()).device
        self.heads = AttributeHeads(preset, len(self.labels)).to(self.device)
        self.optimizer = MuonAdamW((), self.heads.parameters(), muon_rate=0, adamw_rate=config.adamw_rate)
        known = json.loads(state.get("labels", "[]"))
        if "words" in state:
            self.heads.copy(state["words"], known, self.labels)
        elif words is not None:
            self.heads.load(words, self.labels)
        self.ema = Ema([self.heads], config.ema)
        if "words_optimizer" in state and self.heads.fits(state["words"], known, self.labels):
            self.optimizer.load_state_dict(state["words_optimizer"])
            self.ema.average = [a.to(self.device) for a in state["words_average"]]
        seed = state.get("words_seed", config.seed + first_seed)
        self.generator = torch.Generator().manual_seed(config.seed + seed)
        self.pool = SentencePool(POOL, self.labels, tokenizer, preset, config.words_token_dropout)
        workers = int(self.device.type == "cuda" and config.workers > 0)
        sentences = Sentences(broad_world(), self.pool.encoder)
        self.loader = ExampleLoader(sentences, workers=workers, first_seed=seed)
        self.read = predictor(networks.t5, networks.clip, self.heads)
        self.held_out = {
            split: SentencePool(config.validation_sentences, self.labels, tokenizer, preset)
            for split in ("test", "phrasing")
        }
        for split, pool in self.held_out.items():
            for i in range(config.validation_sentences):
                pool.add(draw(World(), HELD_OUT + i, split))

    def backward(self) -> Tensor:
        """Add the gradient of a batch of sentences to encoders and heads; returns the loss.

        The encoders' gradient is clipped separately, to keep new heads from dominating the pictures'
        gradient.
        """
        if not self.pool.added:
            self.pool.store(self.loader.take(8 * self.batch))
        elif self.loader.blocks_ready():  # a GPU does not wait for more
            self.pool.store(self.loader.take(self.config.words_fresh or max(1, self.batch // 4)))
        ids, targets = self.pool.draw(self.batch, self.generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            predictions = self.read(to_device(ids, self.device))
            loss = attribute_loss(predictions, Targets(*(to_device(t, self.device) for t in targets)))
        encoders = [*self.networks.t5.parameters(), *self.networks.clip.parameters()]
        encoders = [parameter for parameter in encoders if parameter.requires_grad]
        heads = list(self.heads.parameters())
        gradients = torch.autograd.grad(loss, encoders + heads)
        norm = torch.nn.utils.get_total_norm(gradients[: len(encoders)])
        scale = (self.config.words_norm / (norm + 1e-6)).clamp_max(1.0)
        for parameter, gradient in zip(encoders, gradients):
            scaled = gradient * scale
            parameter.grad = scaled if parameter.grad is None else parameter.grad + scaled
        for parameter, gradient in zip(heads, gradients[len(encoders) :]):
            parameter.grad = gradient
        return loss.detach()

    def step(self, rate_factor: float, step: int) -> None:
        """Update the heads; the encoders belong to the run's own optimizer."""
        torch.nn.utils.clip_grad_norm_(self.heads.parameters(), 1.0)
        self.optimizer.scale_rates(rate_factor)
        self.optimizer.step()
        self.ema.update(step)

    def figures(self) -> dict[str, float]:
        """Shares of held-out sentences: "phrasing_clip_english" and so on, see `accuracy`."""
        with self.ema:
            return {
                f"{split}_{name}": share
                for split, pool in self.held_out.items()
                for name, share in accuracy(correct(self.read, pool, self.device)).items()
            }

    def state(self) -> dict[str, object]:
        return {
            "words": self.heads.state_dict(),
            "labels": json.dumps(self.labels),
            "words_optimizer": self.optimizer.state_dict(),
            "words_average": self.ema.average,
            "words_seed": self.loader.seed,
        }

    def close(self) -> None:
        """Stop the worker process."""
        self.loader.close()
