"""Validation of a flow run: held-out tasks, sampled as the preset does, scored against exact targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from kontext.bench.metrics import edit_error, keep_psnr
from kontext.engine.regions import RULES, expected_region
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import Preset
from kontext.model.tokens import unpack
from kontext.train.autoencoder import HELD_OUT, to_pixels
from kontext.train.config import FlowTraining
from kontext.train.data import TrainingData
from kontext.train.networks import Networks
from kontext.train.pairs import shrink, text_ids, token_mask
from kontext.world import Sample
from kontext.world.tasks.task_specs import SEVERAL_REFERENCES


class Trainer(Protocol):
    """What validation needs of a flow run."""

    config: FlowTraining
    preset: Preset
    data: TrainingData
    codec: Autoencoder
    networks: Networks
    tokenizer: Tokenizer
    device: torch.device
    size: int
    """Side of the pictures in pixels."""
    tokens: int
    """Tokens along a side."""
    target_ids: Tensor

    def contexts(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]: ...

    def cut(self, ids: Tensor) -> Tensor: ...

    def eager(self) -> AbstractContextManager[object]: ...


R = TypeVar("R")


class Validation:
    """Held-out tasks, sampled with the preset's own steps and schedule.

    Reports the edit error, also by kind and with shuffled prompts, and the PSNR outside the edit; for tasks
    with a second picture the edit error, also with the second pictures exchanged.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        pairs = trainer.config.validation_pairs
        world = trainer.data.pairs.world(HELD_OUT)
        self.pairs = _Tasks([world.sample(HELD_OUT + i, "test") for i in range(pairs)], trainer)
        self.triples: _Tasks | None = None
        if trainer.data.triple_producer is not None:
            world, seeds = trainer.data.triple_producer.world(HELD_OUT), range(max(2, pairs // 4))
            samples = [world.sample(HELD_OUT + i, "test", SEVERAL_REFERENCES) for i in seeds]
            self.triples = _Tasks(samples, trainer)

    @torch.no_grad()
    def figures(self, sheet: Path) -> dict[str, object]:
        tasks = self.pairs
        results = self._sample_pictures(tasks, tasks.ids)
        errors = tasks.errors(results)
        shuffled_prompts = tasks.errors(self._sample_pictures(tasks, np.roll(tasks.ids, 1, axis=0)))
        figures: dict[str, object] = {
            "edit_error": float(np.mean(errors)),
            "keep": tasks.mean_keep_psnr(results),
            "wrong_words": float(np.mean(shuffled_prompts)),
        }
        figures |= self._region_figures(tasks)
        kinds = tasks.by_kind(errors)
        rows = tasks.rows(results)
        if self.triples is not None:
            results = self._sample_pictures(self.triples, self.triples.ids)
            errors = self.triples.errors(results)
            order = np.roll(np.arange(len(errors)), 1)
            exchanged = self._sample_pictures(self.triples, self.triples.ids, order)
            figures["two_error"] = float(np.mean(errors))
            figures["two_exchanged"] = float(np.mean(self.triples.errors(exchanged)))
            kinds |= self.triples.by_kind(errors)
            rows += self.triples.rows(results)
        width = max(row.shape[1] for row in rows)
        rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
        Image.fromarray(np.concatenate(rows)).save(sheet)
        return {**figures, "kinds": kinds}

    def _sample_pictures(self, tasks: _Tasks, ids: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
        """Pictures uint8 (n, size, size, 3); `order` (n,) permutes the second pictures."""
        pictures = np.zeros_like(tasks.sources)
        for part in self._parts(ids):
            texts, contexts = self._inputs(tasks, ids, part, order)
            sampled = self.sample(texts, contexts)
            side = self.trainer.size // self.trainer.preset.autoencoder.cell
            pixels = self.trainer.codec.decode(unpack(sampled, side, side))
            pixels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
            pictures[part] = pixels.permute(0, 2, 3, 1).cpu().numpy()
        return pictures

    def _region_figures(self, tasks: _Tasks) -> dict[str, object]:
        """How well the region head finds edits of a part, and knows those of everything and of nothing."""
        tokens = np.stack([token_mask(mask, self.trainer.tokens) for mask in tasks.masks]) > 0
        expected = np.zeros_like(tokens)
        for part in self._parts(tasks.ids):
            logits = self._run(self.trainer.networks.expected_region, *self._inputs(tasks, tasks.ids, part))
            if logits is None:
                return {}
            expected[part] = expected_region(logits).cpu().numpy()
        share, found = tokens.mean(1), expected.mean(1)
        whole_picture, nothing = share > RULES.whole_share, share == 0
        local = ~whole_picture & ~nothing
        both, either = (tokens & expected).sum(1), (tokens | expected).sum(1)
        figures = {
            "region_iou_held_out": (both / np.maximum(either, 1))[local],
            "whole_known": found[whole_picture] > RULES.whole_share,
            "nothing_known": found[nothing] == 0,
        }
        return {name: round(float(values.mean()), 3) for name, values in figures.items() if len(values)}

    def _parts(self, ids: np.ndarray) -> Iterator[np.ndarray]:
        """Indices of tasks whose texts have one padded length, at most 32 at a time."""
        lengths = np.array([self.trainer.preset.padded_length(int(n)) for n in (ids != 0).sum(1)])
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            yield from (places[start : start + 32] for start in range(0, len(places), 32))

    def _inputs(
        self, tasks: _Tasks, ids: np.ndarray, part: np.ndarray, order: np.ndarray | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Text ids and context pictures of some tasks; `order` permutes the second pictures."""
        trainer = self.trainer
        pictures = {"source": tasks.sources[part]}
        if tasks.references is not None:
            pictures["reference"] = tasks.references[part if order is None else order[part]]
        latents = {k: trainer.codec.encode(to_pixels(v, trainer.device)) for k, v in pictures.items()}
        texts = trainer.cut(torch.from_numpy(ids[part]).to(trainer.device))
        return texts, trainer.contexts(latents)

    def sample(self, texts: Tensor, contexts: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Tokens at t = 0 for text ids (b, m) and context pictures, from fixed noise."""
        return self._run(self.trainer.networks.sample, self.trainer.cut(texts), contexts)

    def _run(self, network: Callable[..., R], texts: Tensor, contexts: list[tuple[Tensor, Tensor]]) -> R:
        """A method of the networks from fixed noise."""
        trainer, like = self.trainer, contexts[0][0]
        noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(1)).to(like.device)
        with trainer.eager():
            return network(trainer.preset, texts, noise, trainer.target_ids, contexts)


class _Tasks:
    """Samples at the model's size, stacked."""

    def __init__(self, samples: list[Sample], trainer: Trainer):
        size, length = trainer.size, trainer.preset.text_length
        self.kinds = [s.kind for s in samples]
        self.sources = np.stack([shrink(s.source, size) for s in samples if s.source is not None])
        self.targets = np.stack([shrink(s.target, size) for s in samples])
        self.references = None
        if samples[0].references:
            self.references = np.stack([shrink(s.references[0], size) for s in samples])
        self.masks: list[np.ndarray] = [
            np.any(s.mask.reshape(size, 256 // size, size, 256 // size), axis=(1, 3)) for s in samples
        ]
        self.ids = np.stack([text_ids(trainer.tokenizer, s.english, length) for s in samples])

    def errors(self, results: np.ndarray) -> list[float]:
        return [edit_error(*item) for item in zip(results, self.sources, self.targets, self.masks)]

    def mean_keep_psnr(self, results: np.ndarray) -> float:
        values = [keep_psnr(*item) for item in zip(results, self.sources, self.masks) if not item[2].all()]
        return float(np.mean(values)) if values else 0.0

    def by_kind(self, errors: list[float]) -> dict[str, float]:
        errors_by_kind = {
            kind: [e for k, e in zip(self.kinds, errors) if k == kind] for kind in sorted(set(self.kinds))
        }
        return {kind: round(float(np.mean(values)), 3) for kind, values in errors_by_kind.items()}

    def rows(self, results: np.ndarray) -> list[np.ndarray]:
        """Rows of the first 14 samples: source, second picture if there is one, result and target."""
        stacks = [self.sources, self.references, results, self.targets]
        return [np.concatenate(list(stack[:14]), 1) for stack in stacks if stack is not None]
