"""Validation of a flow run: held-out tasks, sampled as the preset does, scored against exact targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kontext.bench.metrics import edit_error, keep_psnr
from kontext.model.tokens import unpack
from kontext.train.autoencoder import HELD_OUT, to_pixels
from kontext.train.pairs import shrink, text_ids
from kontext.world import Sample
from kontext.world.tasks.task_specs import SEVERAL_REFERENCES

if TYPE_CHECKING:
    from kontext.train.flow import FlowTrainer


class Validation:
    """Held-out tasks, sampled with the preset's own steps and schedule.

    Reports the edit error, also by kind and with shuffled prompts, and the PSNR outside the edit; for tasks
    with a second picture the edit error, also with the second pictures exchanged.
    """

    def __init__(self, trainer: FlowTrainer):
        self.trainer = trainer
        pairs, triples = trainer.config.validation_pairs, 0
        if trainer.data.triples is not None:
            triples = max(2, pairs // 4)
            world = trainer.data.triples.producer.world(HELD_OUT)
        pair_world = trainer.data.pairs.world(HELD_OUT)
        self.pairs = _Tasks([pair_world.sample(HELD_OUT + i, "test") for i in range(pairs)], trainer)
        drawn = [world.sample(HELD_OUT + i, "test", SEVERAL_REFERENCES) for i in range(triples)]
        self.triples = _Tasks(drawn, trainer) if drawn else None

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
        trainer, references, out = self.trainer, tasks.references, []
        if references is not None and order is not None:
            references = references[order]
        for start in range(0, len(ids), 32):
            part = slice(start, start + 32)
            inputs = {"source": tasks.sources[part]}
            if references is not None:
                inputs["reference"] = references[part]
            latents = {k: trainer.codec.encode(to_pixels(v, trainer.device)) for k, v in inputs.items()}
            contexts = trainer.contexts(latents)
            sampled = self.sample(torch.from_numpy(ids[part]).to(trainer.device), contexts)
            pixels = trainer.codec.decode(unpack(sampled, *latents["source"].shape[-2:]))
            pixels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
            out.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(out)

    def sample(self, ids: Tensor, contexts: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Tokens for text ids (b, m) and context pictures, from fixed noise."""
        trainer, like = self.trainer, contexts[0][0]
        noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(1)).to(like.device)
        with trainer.eager():
            return trainer.networks.sample(
                trainer.preset, trainer.cut(ids), noise, trainer.target_ids, contexts
            )


class _Tasks:
    """Samples at the model's size, stacked."""

    def __init__(self, samples: list[Sample], trainer: FlowTrainer):
        size, length = trainer.size, trainer.preset.text_length
        self.kinds = [s.kind for s in samples]
        self.sources = np.stack([shrink(s.source, size) for s in samples])
        self.targets = np.stack([shrink(s.target, size) for s in samples])
        self.references = None
        if samples[0].references:
            self.references = np.stack([shrink(s.references[0], size) for s in samples])
        self.masks = [s.mask.reshape(size, 256 // size, size, 256 // size).any(axis=(1, 3)) for s in samples]
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
