"""Latent adversarial diffusion distillation (Sauer et al., 2403.12015; FLUX.1 Kontext report, section 3).

The student predicts the picture from each time of its short schedule. Prediction and target are noised again
and passed through the frozen teacher; small heads on its block outputs classify every token as real or fake.
The student minimizes the hinge loss of the generator and the distance to the target, which is exact here.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kontext import flow
from kontext.errors import BadConfig
from kontext.model.tokens import pack
from kontext.model.transformer import Context, Transformer
from kontext.train.config import DistillTraining
from kontext.train.run import read_state
from kontext.train.student import DistillTrainer

HIDDEN = 64


class DiscriminatorHead(nn.Module):
    """Scores every token of one block's output as real or fake, conditioned on the pooled text."""

    def __init__(self, width: int, pooled_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.token, self.asked = nn.Linear(width, HIDDEN), nn.Linear(pooled_width, HIDDEN)
        self.around = nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1)
        self.out = nn.Linear(HIDDEN, 1)

    def forward(self, features: Tensor, pooled: Tensor, rows: int) -> Tensor:
        """Features (b, n, width) of `rows` rows of tokens, pooled (b, pooled_width) -> scores (b, n)."""
        x = F.silu(self.token(self.norm(features)) + self.asked(pooled)[:, None])
        grid = rearrange(x, "b (h w) c -> b c h w", h=rows)
        x = x + rearrange(F.silu(self.around(grid)), "b c h w -> b (h w) c")
        return self.out(x)[..., 0]


class Discriminator(nn.Module):
    """One head for every block of the teacher."""

    def __init__(self, transformer: Transformer):
        super().__init__()
        config = transformer.config
        count = config.depth_double + config.depth_single
        self.heads = nn.ModuleList(DiscriminatorHead(config.width, config.pooled_width) for _ in range(count))

    def forward(self, features: list[Tensor], pooled: Tensor, rows: int) -> list[Tensor]:
        return [head(x.float(), pooled.float(), rows) for head, x in zip(self.heads, features)]


def block_outputs(
    transformer: Transformer,
    z: Tensor,
    text: Tensor,
    pooled: Tensor,
    t: Tensor,
    ids: Tensor,
    contexts: Context,
) -> list[Tensor]:
    """The target's tokens (b, n, width) after every block of the frozen teacher; z carries gradients."""
    with torch.no_grad():
        prepared = transformer.prepare(text, ids, contexts)
        mod = transformer.modulate(transformer.vector(t, pooled))
    picture, text = transformer.img_in(z), prepared.text
    if prepared.context is not None:
        picture = torch.cat((picture, prepared.context), dim=1)
    doubles, singles = transformer.double_blocks, transformer.single_blocks
    prefix = iter(prepared.prefix or (None,) * (len(doubles) + len(singles)))
    outputs = []
    for block, (picture_mod, text_mod), context_kv in zip(doubles, mod.double, prefix):
        picture, text = block(picture, text, picture_mod, text_mod, prepared.rotary, context_kv)
        outputs.append(picture[:, : z.shape[1]])
    joined, start = torch.cat((text, picture), dim=1), text.shape[1]
    for single, block_mod, context_kv in zip(singles, mod.single, prefix):
        joined = single(joined, block_mod, prepared.rotary, context_kv)
        outputs.append(joined[:, start : start + z.shape[1]])
    return outputs


class LaddTrainer(DistillTrainer):
    """Adversarial distillation; the discriminator takes its step within the student's loss."""

    def __init__(
        self, config: DistillTraining, folder: Path, autoencoder: Path, resume: bool, initial: Path | None
    ):
        if (config.guidance_from, config.guidance_to) != (1, 1):
            raise BadConfig('method = "ladd" distills no guidance; guidance_from and guidance_to must be 1')
        if config.targets_per_source > 1:
            raise BadConfig('method = "ladd" takes single pairs; targets_per_source must be 1')
        super().__init__(config, folder, autoencoder, resume, initial)
        self.discriminator = Discriminator(self.teacher.transformer).to(self.device)
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(),
            lr=config.discriminator_rate,
            betas=(0.5, 0.99),
            weight_decay=0.0,
        )
        if resume:
            state = read_state(folder / "state.pt")
            self.discriminator.load_state_dict(state["discriminator"])
            self.discriminator_optimizer.load_state_dict(state["opponent"])

    def _loss(self, batch: dict[str, Tensor], generate: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        config, ids = self.config, batch["text"]
        data, contexts = pack(batch["target"]), [] if generate else self.contexts(batch)
        z, start, _ = self.starts(data)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
            velocity = self.networks(z, ids, start, self.target_ids, contexts).velocity
        prediction = z - start[:, None, None] * velocity.float()

        with torch.no_grad():
            text, pooled = self.teacher.t5(ids), self.teacher.clip(ids)
        t = flow.training_times(len(data), self.generator, shift=config.renoise_shift).to(self.device)
        noise = self._noise_like(data)

        def noised_features(picture: Tensor) -> list[Tensor]:
            noisy = flow.interpolate(picture, noise, t)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
                return block_outputs(
                    self.teacher.transformer, noisy, text, pooled, t, self.target_ids, contexts
                )

        with torch.no_grad():
            real = noised_features(data)
        fake = noised_features(prediction)
        self._discriminator_step(real, [x.detach() for x in fake], pooled)
        adversarial = -_mean(self.discriminator(fake, pooled, self.tokens))
        error = (velocity.float() - (z - data) / start[:, None, None]).square().mean(-1)
        loss = config.data_weight * error.mean() + config.adversarial_weight * adversarial
        return loss, error.new_zeros(()), error.mean(1).detach(), start

    def _discriminator_step(self, real: list[Tensor], fake: list[Tensor], pooled: Tensor) -> None:
        """One step of the discriminator."""
        real_scores = self.discriminator(real, pooled, self.tokens)
        fake_scores = self.discriminator(fake, pooled, self.tokens)
        loss = _mean([F.relu(1 - x) for x in real_scores]) + _mean([F.relu(1 + x) for x in fake_scores])
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        self.hinge = loss.detach()  # 2: chance level, 0: perfect separation
        self.discriminator_optimizer.zero_grad(set_to_none=True)

    def _extra_metrics(self) -> dict[str, object]:
        return {**super()._extra_metrics(), "hinge": self.hinge.item()}

    def _extra_state(self) -> dict[str, object]:
        discriminator = {
            "discriminator": self.discriminator.state_dict(),
            "opponent": self.discriminator_optimizer.state_dict(),
        }
        return {**super()._extra_state(), **discriminator}


def _mean(scores: list[Tensor]) -> Tensor:
    return torch.stack([score.mean() for score in scores]).mean()
