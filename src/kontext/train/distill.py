"""Distillation of a trained flow model: guidance into its embedding, and several small steps into one.

Guidance (Meng et al., 2210.03142): the teacher is evaluated with and without the prompt and pushed apart by
a guidance drawn per picture; the student, which embeds that guidance, learns to say the same in one
evaluation. Steps (Salimans and Ho, 2202.00512, for straight paths): between two neighbouring times of the
student's schedule the teacher goes `substeps` Euler steps; the student learns the one velocity that ends at
the same place.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from kontext import flow
from kontext.errors import BadConfig
from kontext.model.presets import PRESETS, Preset
from kontext.model.tokens import pack
from kontext.train.config import DistillTraining
from kontext.train.flow import FlowTrainer


class DistillTrainer(FlowTrainer):
    """The student starts as the teacher; its guidance embedding, if it gets one, starts silent."""

    config: DistillTraining

    def __init__(
        self, config: DistillTraining, folder: Path, autoencoder: Path, resume: bool, initial: Path | None
    ):
        teacher_state = folder / "teacher.pt"
        if initial is not None and not resume:
            folder.mkdir(parents=True, exist_ok=True)
            state = torch.load(initial, map_location="cpu", weights_only=True)
            torch.save({"averaged": state["averaged"]}, teacher_state)
        if not teacher_state.exists():
            raise BadConfig("distillation needs a trained model: give --start, the state.pt of a flow run")
        super().__init__(config, folder, autoencoder, resume, initial)
        embedding = getattr(self.networks.transformer, "guidance_in", None)
        if embedding is not None and not resume:
            torch.nn.init.zeros_(embedding.out_layer.weight)
            torch.nn.init.zeros_(embedding.out_layer.bias)
            self.ema = type(self.ema)([self.networks], config.ema)
        averaged = torch.load(teacher_state, map_location="cpu", weights_only=True)["averaged"]
        self.teacher = copy.deepcopy(self.networks).eval().requires_grad_(False)
        self.teacher.load_state_dict(averaged, strict=False)

    def choose_preset(self) -> Preset:
        preset, config = PRESETS[self.config.preset], self.config
        embeds = config.guidance_from < config.guidance_to
        return dataclasses.replace(
            preset,
            transformer=dataclasses.replace(preset.transformer, guidance_embed=embeds),
            sampling=dataclasses.replace(preset.sampling, steps=config.student_steps),
        )

    def _loss(self, batch: dict[str, Tensor], generate: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        config, count = self.config, len(batch["label"])
        data = pack(batch["target"])
        noise = torch.randn(data.shape, generator=self.generator).to(self.device)
        times = flow.schedule(config.student_steps, data.shape[1], self.preset.sampling.shift)
        place = torch.randint(config.student_steps, (count,), generator=self.generator)
        grid = torch.tensor(times, device=self.device)
        start, end = grid[place], grid[place + 1]
        spread = torch.rand(count, generator=self.generator).to(self.device)
        guidance = config.guidance_from + spread * (config.guidance_to - config.guidance_from)
        ids = batch["caption" if generate else "text"]
        context = None if generate else pack(batch["source"])
        z = flow.interpolate(data, noise, start)
        with torch.no_grad():
            goal = (self._teach(z, ids, start, end, guidance, context) - z) / (end - start)[:, None, None]
        embedded = guidance if self.preset.transformer.guidance_embed else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bfloat16):
            made, _ = self.networks(z, ids, start, self.target_ids, context, self.context_ids, embedded)
        error = (made.float() - goal).square().mean(-1)
        return error.mean(), error.new_zeros(()), error.mean(1).detach(), start

    def _teach(
        self,
        z: Tensor,
        ids: Tensor,
        start: Tensor,
        end: Tensor,
        guidance: Tensor,
        context: Tensor | None,
    ) -> Tensor:
        """Where the guided teacher arrives from z (b, n, channels) at `start` when it steps to `end`, both
        (b,).
        """
        plain = bool((guidance == 1).all())
        empty = self.empty.expand_as(ids)
        for i in range(self.config.substeps):
            t = torch.lerp(start, end, i / self.config.substeps)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
                arguments = (t, self.target_ids, context, self.context_ids)
                v = self._silent(z, ids, *arguments)
                if not plain:
                    without = self._silent(z, empty, *arguments)
                    v = without + guidance[:, None, None] * (v - without)
            z = z + ((end - start) / self.config.substeps)[:, None, None] * v.float()
        return z

    def _silent(self, z: Tensor, ids: Tensor, t: Tensor, *places: Tensor | None) -> Tensor:
        """The teacher's velocity; its guidance embedding, a copy of the student's silent one, is told 0."""
        embedded = torch.zeros_like(t) if self.preset.transformer.guidance_embed else None
        return self.teacher(z, ids, t, *places, embedded)[0]


def train(
    config: DistillTraining,
    folder: Path,
    autoencoder: Path,
    resume: bool = False,
    initial: Path | None = None,
) -> Path:
    """Distil and leave the student's folder. initial: the `state.pt` of the flow run that teaches."""
    return DistillTrainer(config, folder, autoencoder, resume, initial).train()
