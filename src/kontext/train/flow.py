"""Training the flow model: transformer and both text encoders together, on pairs of the world.

Rectified flow (FLUX.1 Kontext report, section 3): the network sees z_t = (1 - t) x + t e, the context and
the prompt, and learns e - x. One batch in `generate_every` has no context and the target's caption as prompt
(text to picture), one in `references_every` a second context picture. All samples of a batch have the same
number of contexts. With `targets_per_source` above 1 the examples are orbits of the world, and targets of one
source share its prefix.
"""

from __future__ import annotations

import dataclasses
import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from kontext import flow
from kontext.checkpoint import Model, save_model
from kontext.errors import BadCheckpoint
from kontext.kernels import use_training_kernels
from kontext.model.autoencoder import Autoencoder, use_channels_last
from kontext.model.presets import PRESETS, Preset
from kontext.model.tokens import pack, picture_ids, unpack
from kontext.train.attribute_task import AttributeTask
from kontext.train.autoencoder import HELD_OUT, channel_effects, latent_figures, to_pixels
from kontext.train.compilation import can_compile, is_rare
from kontext.train.config import FlowTraining
from kontext.train.data import TrainingData
from kontext.train.device import prepare, to_device
from kontext.train.distributed import RANK_SEED_STRIDE, Distributed
from kontext.train.letters import LetterLoss
from kontext.train.metrics import MetricAverager, RegionIou
from kontext.train.networks import Networks, take
from kontext.train.optimizer import MuonAdamW, split_parameters
from kontext.train.orbits import OrbitPool
from kontext.train.pairs import shrink, target_caption, text_ids
from kontext.train.run import Ema, TrainingRun, averaged_weights, read_state
from kontext.train.subsets import draw_limit, nearest_tokens
from kontext.train.tokenizer import train_tokenizer, with_split_quotes
from kontext.train.validation import Validation
from kontext.train.words import TextStart
from kontext.world import World

log = logging.getLogger(__name__)

ADAMW_NAMES = tuple("img_in txt_in _in. mod final_layer embed shared bias label letters region_head".split())

UNDECAYED = "undecayed.pt"


class FlowTrainer:
    """One run: `train()` runs until the steps or the time budget are used up."""

    def __init__(
        self,
        config: FlowTraining,
        folder: Path,
        autoencoder: Path,
        resume: bool,
        initial: Path | None,
        words: Path | None = None,
    ):
        """Start or resume a run.

        initial: state of an earlier run, whose averaged weights are the start.
        words: folder of pretrained text encoders with their heads and tokenizer, which take the place of
        those of `initial`. A resumed run takes nothing but missing heads from it.
        """
        torch.manual_seed(config.seed)
        self.config, self.folder = config, folder
        self.device = torch.device(config.device)
        prepare(self.device)
        self.distributed = Distributed(self.device)
        self.batch = self.distributed.split("batch", config.batch)
        self.new_per_step = self.distributed.split("fresh", config.fresh)
        self.new_references = self.distributed.split(
            "references_fresh", config.references_fresh or config.fresh
        )
        self.rollouts = self.distributed.split("rollouts", config.rollouts)
        scale, shift = latent_figures(autoencoder)
        preset = self._training_preset()
        self.preset = dataclasses.replace(
            preset, autoencoder=dataclasses.replace(preset.autoencoder, scale=scale, shift=shift)
        )
        self.codec = Autoencoder(self.preset.autoencoder).eval().requires_grad_(False)
        self.codec.load_state_dict(load_file(autoencoder))
        use_channels_last(self.codec.to(self.device))
        self.channel_weights = torch.ones((), device=self.device)
        if config.visibility_power:
            self.channel_weights = self._channel_weights(config.visibility_power)
        self.networks = Networks(self.preset).to(self.device)
        self.networks.transformer.requires_grad_(not config.freeze_transformer)
        for encoder in (self.networks.t5, self.networks.clip):
            encoder.requires_grad_(not config.freeze_encoders)
        groups = split_parameters([self.networks], ADAMW_NAMES)
        self.optimizer = MuonAdamW(
            *groups, muon_rate=config.muon_rate, adamw_rate=config.adamw_rate, weight_decay=0.01
        )
        self.run = TrainingRun(
            folder,
            steps=config.steps,
            seconds=config.seconds,
            warmup=config.warmup,
            decay_share=config.decay_share,
            call_seconds=config.call_seconds,
            clock=self.distributed.clock,
            writes=self.distributed.is_main,
        )
        state = self.run.load() if resume else None
        if initial is not None and not resume:
            state = read_state(initial)
        encoders = TextStart.read(words) if words is not None and not resume else None
        if not state and self.distributed.is_main:
            if encoders is not None:
                (folder / "tokenizer.json").write_text(encoders.tokenizer, "utf-8")
            _ensure_tokenizer(self.preset.t5.vocab, folder)
        self.distributed.barrier()
        tokenizer = state["tokenizer"] if state else (folder / "tokenizer.json").read_text("utf-8")
        self.tokenizer = Tokenizer.from_str(tokenizer) if resume else with_split_quotes(tokenizer)
        if state:
            weights = state["networks"] if resume else averaged_weights(state)
            self.networks.load(weights, complete=resume)
        if encoders is not None:
            if with_split_quotes(encoders.tokenizer).to_str() != self.tokenizer.to_str():
                raise BadCheckpoint(f"{words} and {initial} have different tokenizers")
            self.networks.load(encoders.weights, complete=False)
        self.ema = Ema([self.networks], config.ema)
        if state and resume and "optimizer" in state:  # not a compact state
            self.optimizer.resume(state["optimizer"])
            self.ema.average = [a.to(self.device) for a in state["ema"]]
        seed_offset = self.distributed.rank * RANK_SEED_STRIDE
        first_seed = (state["seed"] if state else config.seed) + seed_offset

        self.region_iou, self.letter_loss = RegionIou(), LetterLoss()
        self.size = self.preset.sizes[0][0]
        self.tokens = self.size // self.preset.token_pixels
        self.target_ids = picture_ids(0, self.tokens, self.tokens, self.device)
        self.context_ids = [picture_ids(i, self.tokens, self.tokens, self.device) for i in (1, 2)]
        self.empty = torch.from_numpy(text_ids(self.tokenizer, "", self.preset.text_length)).to(self.device)
        references_seed = state["references_seed"] if state and "references_seed" in state else config.seed
        self.data = TrainingData(
            config,
            self.preset,
            self.tokenizer,
            self.codec,
            self.device,
            first_seed=first_seed,
            references_seed=references_seed + seed_offset,
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.noise = self.generator
        if self.device.type != "cpu":  # millions of numbers per step: drawn on the device that needs them
            self.noise = torch.Generator(self.device).manual_seed(config.seed)
        if state and resume and "generator" in state:
            self.generator.set_state(state["generator"])
            if "noise" in state:
                self.noise.set_state(state["noise"])
            self.data.restore(state)
        elif state and resume:
            self.generator.manual_seed(config.seed + self.run.step)
        for generator in () if self.distributed.is_main else (self.generator, self.noise):
            generator.manual_seed(config.seed + seed_offset + self.run.step)
        self.attribute_task: AttributeTask | None = None
        if config.words_batch:
            self.attribute_task = AttributeTask(
                config,
                self.preset,
                self.networks,
                self.tokenizer,
                batch=self.distributed.split("words_batch", config.words_batch),
                first_seed=seed_offset,
                state=_attribute_state(state or {}, resume, words),
                words=words,
            )
        self.validation = Validation(self)
        on_kernels = config.kernels and use_training_kernels(self.networks.transformer)
        self.compiled = config.compile and not on_kernels and can_compile(self.device)
        if self.compiled:
            self.networks.compile_blocks()

    def _training_preset(self) -> Preset:
        return PRESETS[self.config.preset]

    def _channel_weights(self, power: float) -> Tensor:
        """Loss weights (in_channels,) of mean 1 of a token's numbers."""
        pictures = [World().sample(HELD_OUT + i).target for i in range(2)]
        resized = np.stack([shrink(picture, self.preset.sizes[0][0]) for picture in pictures])
        effect = channel_effects(self.codec, self.codec.encode(to_pixels(resized, self.device)))
        weights = effect**power
        repeats = 2 // self.preset.autoencoder.latent_shuffle
        return pack((weights / weights.mean()).repeat(1, repeats, repeats)[None])[0, 0]

    def train(self) -> Path:
        """Returns the folder of the finished model. Raises Paused when the time of the call is over."""
        try:
            self._train()
        finally:
            self.data.close()
            if self.attribute_task is not None:
                self.attribute_task.close()
            self.distributed.close()
        return self.folder / "model"

    def _train(self) -> None:
        config, run = self.config, self.run
        self.data.fill(config.first_fill, self.data.first_references)
        self.data.start(self.new_per_step, self.new_references)
        averager = MetricAverager()
        last_save = run.elapsed
        while not run.finished:
            run.pause_if_due(self._save)
            self.data.add_new()
            if self.data.chains is not None:
                self._add_rollouts(self.data.chains.take(self.rollouts))
            generate = config.generate_every > 0 and run.step % config.generate_every == 0
            references = not generate and self._is_reference_step() and self.data.triples is not None
            batch = self._draw(generate, references)
            loss, label_loss, per_sample, t = self._loss(batch, generate)
            self.optimizer.zero_grad(set_to_none=True)
            (loss + config.label_weight * label_loss).backward()
            trained = list(self.networks.parameters())
            if self.attribute_task is not None:
                averager.add_value("words", self.attribute_task.backward())
                trained += self.attribute_task.heads.parameters()
            self.distributed.average(trained)
            norm = torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
            self.optimizer.scale_rates(run.lr_factor())
            self.optimizer.step()
            run.step += 1
            self.ema.update(run.step)
            if self.attribute_task is not None:
                self.attribute_task.step(run.lr_factor(), run.step)
            name = "loss_generate" if generate else "loss_references" if references else "loss"
            averager.add(name, loss, label_loss, norm, per_sample, t)
            if run.logs(config.log_every):
                figures = {**averager.take(), **self._extra_metrics(), **run.pace(self.device)}
                waiting = self.data.loader.blocks_ready() == 0
                run.record(**figures, examples=self.data.pool.added, waiting=waiting)
            if self.distributed.is_main and (run.step % config.validate_every == 0 or run.finished):
                with self.ema:
                    figures = self.validation.figures(self.folder / f"sheet_{run.step:06d}.png")
                    run.record(
                        **figures,
                        **(self.attribute_task.figures() if self.attribute_task is not None else {}),
                    )
            if run.decays and not (self.folder / UNDECAYED).exists():
                self._save(UNDECAYED)
            if run.elapsed - last_save > config.save_seconds or run.finished:
                self._save()
                last_save = run.elapsed

    def _draw(self, generate: bool, references: bool = False) -> dict[str, Tensor]:
        """A batch of edits, of pictures with their captions, or of edits with a second picture.

        With `active` (batch, n) in host memory, indices of the tokens to compute, if it is to compute some.
        """
        pool = self.data.pool
        if generate:
            if isinstance(pool, OrbitPool):
                return pool.draw_captions(self.batch, self.generator)
            return pool.draw(self.batch, self.generator, texts="caption")
        if references:
            self.data.add_new_references()
            pool = self.data.references
        limit = draw_limit(self.tokens**2, self.config.subset_share, self.run.step)
        batch = pool.draw(self.batch, self.generator, limit)
        active = None if limit is None else nearest_tokens(batch["mask"], limit, self.generator)
        return batch if active is None else batch | {"active": active}

    def _is_reference_step(self) -> bool:
        every = self.config.references_every
        return every > 0 and self.run.step % every == every - 1

    def contexts(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The context pictures of a batch as tokens with their positions: source, then reference."""
        contexts = [batch[name] for name in ("source", "reference") if name in batch]
        return [(pack(latents), ids) for latents, ids in zip(contexts, self.context_ids)]

    def _add_rollouts(self, chains: dict[str, np.ndarray]) -> None:
        """Add second turns whose source is the model's own result of the first, to train against drift."""
        latents = self.codec.encode(to_pixels(chains["start"], self.device))
        ids = torch.from_numpy(chains["first"]).to(self.device)
        contexts = self.contexts({"source": latents})
        with self.eager():
            noise = self._noise_like(contexts[0][0])
            sampled = self.networks.sample(self.preset, ids, noise, self.target_ids, contexts)
        pixels = self.codec.decode(unpack(sampled, *latents.shape[-2:])).clamp(-1, 1)
        results = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        self.data.pool.add({**chains, "source": results.cpu().numpy()})

    def _loss(self, batch: dict[str, Tensor], generate: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, label loss, error of each sample (b,), and the times (b,) at which it was measured."""
        config = self.config
        count = len(batch["label"])
        data = pack(batch["target"])
        noise = self._noise_like(data)
        late = max(0.0, 3 * self.run.progress - 2)
        t = flow.training_times(
            count,
            self.generator,
            shift=config.shift + late * (config.shift_end - config.shift),
            uniform_share=config.uniform_share,
        )
        t = to_device(t, self.device)
        dropped = to_device(torch.rand(count, generator=self.generator) < config.text_dropout, self.device)
        ids = torch.where(dropped[:, None], self.empty, batch["text"])[:, : int(batch["text_length"])]
        contexts = [] if generate else self.contexts(batch)
        active = batch.get("active")
        if active is not None:
            active = to_device(active, self.device)
            data, noise = take(data, active), take(noise, active)
        rare = active is not None or is_rare(len(contexts), ids.shape[1])
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast),
            self.eager() if rare else nullcontext(),
        ):
            positions = self.target_ids if active is None else self.target_ids[active]
            predicted = self.networks(
                flow.interpolate(data, noise, t), ids, t, positions, contexts, active=active
            )
        region = predicted.region
        error = (predicted.velocity.float() - flow.velocity(data, noise)).square()
        error = (error * self.channel_weights).mean(-1)  # (b, tokens)
        if generate:
            return error.mean(), torch.zeros((), device=self.device), error.mean(1).detach(), t
        mask, loss = to_device(batch["mask"], self.device).float(), error.mean()
        if active is not None:
            mask, region = take(mask, active), None  # the engine asks for the region with all tokens
        if config.area_weight:
            area = mask.mean(1, keepdim=True).clamp_min(1 / mask.shape[1])
            fading = config.area_weight * max(0.0, 1 - self.run.progress / 0.8)
            weight = 1 + fading * mask * (0.3 / area).clamp(0.5, 5)
            loss = (error * weight / weight.mean()).mean()
        has_prompt = (~dropped).float()
        if region is not None and config.region_weight:
            region_error = F.binary_cross_entropy_with_logits(region.float(), mask, reduction="none").mean(1)
            region_loss = (region_error * has_prompt).sum() / has_prompt.sum().clamp_min(1)
            loss = loss + config.region_weight * region_loss
            self.region_iou.update(region, mask, has_prompt)
        if config.letter_weight and predicted.letters is not None and "letters" in batch:
            letters = batch["letters"] if active is None else take(batch["letters"], active)
            counts = mask * has_prompt[:, None]
            loss = loss + config.letter_weight * self.letter_loss(predicted.letters, letters, counts)
        label_loss = F.cross_entropy(predicted.labels.float(), batch["label"], reduction="none")
        label_loss = (label_loss * has_prompt).sum() / has_prompt.sum().clamp_min(1)
        return loss, label_loss, error.mean(1).detach(), t

    def cut(self, ids: Tensor) -> Tensor:
        """Text ids (b, m) without the padding common to all of them."""
        longest = int((ids != 0).sum(1).max())
        return ids[:, : self.preset.padded_length(longest)]

    def eager(self) -> AbstractContextManager:
        """Context without compilation, for batch sizes that are too rare to compile kernels for."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

    def _noise_like(self, tokens: Tensor) -> Tensor:
        return torch.randn(tokens.shape, generator=self.noise, device=self.noise.device)

    def _save(self, name: str = "state.pt") -> None:
        if not self.distributed.is_main:
            return
        with self.ema:
            averaged = {name: value.clone() for name, value in self.networks.state_dict().items()}
            save_model(self.model(), self.folder / "model")
        self.run.save(
            {
                "networks": self.networks.state_dict(),
                "averaged": averaged,
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.average,
                "generator": self.generator.get_state(),
                "noise": self.noise.get_state(),
                **self.data.state(),
                **self._extra_state(),
                "tokenizer": self.tokenizer.to_str(),
            },
            name,
        )

    def _extra_metrics(self) -> dict[str, object]:
        return self.region_iou.take() | self.letter_loss.take()

    def _extra_state(self) -> dict[str, object]:
        return {} if self.attribute_task is None else self.attribute_task.state()

    def model(self) -> Model:
        """The model to ship: the current networks, the codec and the tokenizer."""
        return Model(
            name=self.preset.name,
            preset=self.preset,
            transformer=self.networks.transformer,
            autoencoder=self.codec,
            t5=self.networks.t5,
            clip=self.networks.clip,
            tokenizer=self.tokenizer,
            tokenizer_clip=self.tokenizer,
        )


def _ensure_tokenizer(vocab: int, folder: Path) -> None:
    """Train the run's tokenizer on sentences of the world unless its file exists."""
    path = folder / "tokenizer.json"
    if not path.exists():
        samples = (World().sample(seed) for seed in range(2000))
        sentences = [text for s in samples for text in (s.english, s.chinese, *target_caption(s))]
        train_tokenizer(sentences, vocab).save(str(path))


def _attribute_state(state: dict[str, object], resume: bool, words: Path | None) -> dict[str, object]:
    """What the task takes from a state: all of it, or the heads if a run starts from it without others."""
    if resume:
        return state
    has_heads = words is not None and (words / "heads.safetensors").exists()
    return {name: state[name] for name in ("words", "labels") if name in state and not has_heads}


def train(
    config: FlowTraining,
    folder: Path,
    autoencoder: Path,
    resume: bool = False,
    initial: Path | None = None,
    words: Path | None = None,
) -> Path:
    """Train and return the folder of the model.

    initial: the `state.pt` of an earlier run, whose averaged weights are the start; words: the folder of a
    run of `kontext.train.words`, whose encoders and tokenizer are the start.
    """
    return FlowTrainer(config, folder, autoencoder, resume, initial, words).train()
