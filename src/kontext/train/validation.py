"""How far a flow run is: held-out pairs, sampled with the preset's own steps, scored against exact
targets.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kontext.bench.metrics import edit_error, keep_psnr
from kontext.model.tokens import pack, unpack
from kontext.train.autoencoder import HELD_OUT, to_pixels
from kontext.train.pairs import shrink, text_ids
from kontext.world import World

if TYPE_CHECKING:
    from kontext.train.flow import FlowTrainer


class Validation:
    """Held-out pairs, sampled with the preset's own steps and schedule: edit error, keep, wrong words, by
    kind.
    """

    def __init__(self, trainer: FlowTrainer):
        self.trainer = trainer
        world = World(**trainer.config.curriculum[-1].world)
        self.samples = [
            world.sample(HELD_OUT + i, split="test") for i in range(trainer.config.validation_pairs)
        ]
        self.samples = [s for s in self.samples if s.source is not None]
        size, length = trainer.size, trainer.preset.text_length
        self.sources = np.stack([shrink(s.source, size) for s in self.samples])
        self.targets = np.stack([shrink(s.target, size) for s in self.samples])
        self.masks = [
            s.mask.reshape(size, 256 // size, size, 256 // size).any(axis=(1, 3)) for s in self.samples
        ]
        texts = [s.english for s in self.samples]
        self.ids = np.stack([text_ids(trainer.tokenizer, text, length) for text in texts])

    @torch.no_grad()
    def figures(self, sheet: Path) -> dict[str, object]:
        made = self._edit(self.ids)
        wrong = self._edit(np.roll(self.ids, 1, axis=0))
        errors, kept, misled = [], [], []
        by_kind: dict[str, list[float]] = {}
        for i, sample in enumerate(self.samples):
            source, target, mask = self.sources[i], self.targets[i], self.masks[i]
            errors.append(edit_error(made[i], source, target, mask))
            misled.append(edit_error(wrong[i], source, target, mask))
            by_kind.setdefault(sample.kind, []).append(errors[-1])
            if not mask.all():
                kept.append(keep_psnr(made[i], source, mask))
        shown = range(min(14, len(made)))
        rows = [np.concatenate([stack[i] for i in shown], 1) for stack in (self.sources, made, self.targets)]
        Image.fromarray(np.concatenate(rows)).save(sheet)
        return {
            "edit_error": float(np.mean(errors)),
            "keep": float(np.mean(kept)) if kept else 0.0,
            "wrong_words": float(np.mean(misled)),
            "kinds": {kind: round(float(np.mean(values)), 3) for kind, values in sorted(by_kind.items())},
        }

    def _edit(self, ids: np.ndarray) -> np.ndarray:
        trainer = self.trainer
        out = []
        for start in range(0, len(ids), 32):
            part = slice(start, start + 32)
            latents = trainer.codec.encode(to_pixels(self.sources[part], trainer.device))
            sampled = self.sample(torch.from_numpy(ids[part]).to(trainer.device), pack(latents))
            pixels = trainer.codec.decode(unpack(sampled, *latents.shape[-2:]))
            pixels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
            out.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(out)

    def sample(self, ids: Tensor, context: Tensor) -> Tensor:
        """Tokens for text ids (b, m) and context tokens (b, n, channels), from fixed noise."""
        trainer = self.trainer
        noise = torch.randn(context.shape, generator=torch.Generator().manual_seed(1)).to(context.device)
        places = trainer.target_ids, context, trainer.context_ids
        return trainer.networks.sample(trainer.preset, ids, noise, *places)
