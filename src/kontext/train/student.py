"""Distillation of a trained flow model: guidance into its embedding, and several small steps into one.

Guidance (Meng et al., 2210.03142): the teacher is evaluated with and without the prompt and combined by a
guidance drawn per picture; the student, which embeds that guidance, learns the result in one evaluation.
Steps (Salimans and Ho, 2202.00512, for straight paths): between two neighboring times of the student's
schedule the teacher takes `substeps` Euler steps; the student learns the single velocity with the same end
point. The other method, latent adversarial diffusion distillation, is in `ladd.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from kontext import flow
from kontext.errors import BadConfig
from kontext.model.presets import PRESETS, Preset
from kontext.model.tokens import pack
from kontext.model.transformer import Context
from kontext.train.config import DistillTraining
from kontext.train.distributed import require_single_process
from kontext.train.flow import FlowTrainer
from kontext.train.networks import Networks
from kontext.train.run import averaged_weights, read_state


class DistillTrainer(FlowTrainer):
    """The student starts with the teacher's weights; a new guidance embedding starts at zero."""

    config: DistillTraining

    def __init__(
        self, config: DistillTraining, folder: Path, autoencoder: Path, resume: bool, initial: Path | None
    ):
        require_single_process("a student")
        teacher_state = folder / "teacher.pt"
        if initial is not None and not resume:
            folder.mkdir(parents=True, exist_ok=True)
            state = read_state(initial)
            torch.save({"averaged": averaged_weights(state)}, teacher_state)
        if not teacher_state.exists():
            raise BadConfig("distillation needs a trained model: give --start, the state.pt of a flow run")
        super().__init__(config, folder, autoencoder, resume, initial)
        if self.preset.transformer.guidance_embed and not resume:
            _zero_guidance_embedding(self.networks)
            self.ema = type(self.ema)([self.networks], config.ema)
        averaged = torch.load(teacher_state, map_location="cpu", weights_only=True)["averaged"]
        self.teacher = Networks(self.preset).to(self.device).eval().requires_grad_(False)
        self.teacher.load_state_dict(averaged, strict=False)
        if self.preset.transformer.guidance_embed:
            _zero_guidance_embedding(self.teacher)
        if self.compiled:
            self.teacher.compile_blocks()

    def _training_preset(self) -> Preset:
        preset, config = PRESETS[self.config.preset], self.config
        embeds = config.guidance_from < config.guidance_to
        return dataclasses.replace(
            preset,
            transformer=dataclasses.replace(preset.transformer, guidance_embed=embeds),
            sampling=dataclasses.replace(preset.sampling, steps=config.student_steps),
        )

    def starts(self, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy tokens at random times of the student's schedule, those times (b,) and the next ones (b,)."""
        steps = self.config.student_steps
        noise = self._noise_like(data)
        times = flow.schedule(steps, data.shape[1], self.preset.sampling.shift)
        index = torch.randint(steps, (len(data),), generator=self.generator).to(self.device)
        grid = torch.tensor(times, device=self.device)
        return flow.interpolate(data, noise, grid[index]), grid[index], grid[index + 1]

    def _loss(self, batch: dict[str, Tensor], generate: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        config, ids = self.config, batch["text"]
        z, start, end = self.starts(pack(batch["target"]))
        spread = torch.rand(len(z), generator=self.generator).to(self.device)
        guidance = config.guidance_from + spread * (config.guidance_to - config.guidance_from)
        contexts = [] if generate else self.contexts(batch)
        with torch.no_grad():
            arrived = self._teacher_step(z, ids, start, end, guidance, contexts)
            target = (arrived - z) / (end - start)[:, None, None]
        embedded = guidance if self.preset.transformer.guidance_embed else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
            velocity = self.networks(z, ids, start, self.target_ids, contexts, embedded).velocity
        error = (velocity.float() - target).square().mean(-1)
        return error.mean(), error.new_zeros(()), error.mean(1).detach(), start

    def _teacher_step(
        self, z: Tensor, ids: Tensor, start: Tensor, end: Tensor, guidance: Tensor, contexts: Context
    ) -> Tensor:
        """The guided teacher's state at `end`, from z (b, n, channels) at `start`; both times are (b,)."""
        config, guided = self.config, (self.config.guidance_from, self.config.guidance_to) != (1, 1)
        # the teacher's guidance embedding, if it has one, is zero for any guidance
        embedded = torch.zeros_like(start) if self.preset.transformer.guidance_embed else None
        empty = self.empty.expand_as(ids)
        for i in range(config.substeps):
            t = torch.lerp(start, end, i / config.substeps)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
                v = self.teacher(z, ids, t, self.target_ids, contexts, embedded)[0]
                if guided:
                    without = self.teacher(z, empty, t, self.target_ids, contexts, embedded)[0]
                    v = without + guidance[:, None, None] * (v - without)
            z = z + ((end - start) / config.substeps)[:, None, None] * v.float()
        return z


def _zero_guidance_embedding(networks: Networks) -> None:
    """Zero the guidance embedding."""
    for parameter in networks.transformer.guidance_in.out_layer.parameters():
        torch.nn.init.zeros_(parameter)
