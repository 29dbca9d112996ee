"""Training the autoencoder on pictures of the world.

Loss: L1, L1 of gradients, L1 at half and quarter size, L1 in two opponent color axes (color is learned last),
squared error, and a tiny KL term. Two things make it robust, both from `robust_from` on: half of the crops
are decoded from slightly noisy latents, like those of a sampler, and a quarter of each batch are pictures
that have passed through the autoencoder up to ten times and are mapped back to their originals, so that
repeated round trips are stable. `consistency_weight` penalizes a difference between the latents of a decoded
picture and the latents it was decoded from, which makes the codec a projection and prevents drift.
"""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from kontext.bench.metrics import lab
from kontext.errors import BadConfig
from kontext.model.autoencoder import Autoencoder, use_channels_last
from kontext.model.presets import PRESETS
from kontext.train.compilation import can_compile
from kontext.train.config import AutoencoderTraining
from kontext.train.distributed import require_single_process
from kontext.train.loader import ExampleLoader
from kontext.train.optimizer import MuonAdamW, split_parameters
from kontext.train.run import Ema, Paused, TrainingRun
from kontext.world import World

log = logging.getLogger(__name__)

HELD_OUT = 1_000_000_000
"""First seed of validation samples."""

ROUND_TRIPS = 10
"""Round trips of a crop through the autoencoder before a new crop replaces it."""

LATENT_NOISE = 0.05
"""Noise added to half of the crops, relative to the latents' deviation; about that of few-step sampling."""


@dataclass(frozen=True)
class Pictures:
    """Producer of whole pictures of the world: seed -> uint8 (size, size, 3)."""

    size: int

    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        return {"picture": _scene_picture(seed, self.size)}


class Crops:
    """A ring buffer of pictures, each used for several random crops."""

    def __init__(self, capacity: int, crop: int, seed: int):
        self.capacity, self.crop = capacity, crop
        self.pictures: list[np.ndarray] = []
        self.added = 0
        self.random = np.random.default_rng(seed)

    def add(self, pictures: np.ndarray) -> None:
        for picture in pictures:
            if len(self.pictures) < self.capacity:
                self.pictures.append(picture)
            else:
                self.pictures[self.added % self.capacity] = picture
            self.added += 1

    def draw(self, count: int) -> np.ndarray:
        """uint8 (count, crop, crop, 3), from different pictures if there are enough."""
        chosen = self.random.choice(len(self.pictures), count, replace=count > len(self.pictures))
        crops = np.empty((count, self.crop, self.crop, 3), np.uint8)
        for i, picture in enumerate(self.pictures[index] for index in chosen):
            y, x = (self.random.integers(side - self.crop + 1) for side in picture.shape[:2])
            crops[i] = picture[y : y + self.crop, x : x + self.crop]
        return crops


class Replay:
    """Crops after repeated round trips through the autoencoder, with their originals."""

    def __init__(self, originals: Tensor):
        self.originals, self.current = originals.clone(), originals.clone()
        self.trips = torch.arange(len(originals)) % ROUND_TRIPS
        self.next = 0

    def draw(self, count: int) -> Tensor:
        """Indices (count,) of the next crops, in rotation."""
        places = (torch.arange(count) + self.next) % len(self.originals)
        self.next = int(places[-1]) + 1
        return places

    def store(self, places: Tensor, decoded: Tensor, new: Tensor) -> None:
        """Store decoded crops; those after their last round trip are replaced by new crops."""
        self.trips[places] += 1
        done = self.trips[places] >= ROUND_TRIPS
        self.current[places] = torch.where(done[:, None, None, None], new, decoded.clamp(-1, 1))
        self.originals[places[done]] = new[done]
        self.trips[places[done]] = 0


def to_pixels(pictures: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (b, h, w, 3) -> float (b, 3, h, w) in [-1, 1], channels last in memory."""
    x = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
    return x.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(decoded: Tensor, true: Tensor, color_weight: float, square_weight: float) -> Tensor:
    error = decoded - true
    loss = error.abs().mean()
    loss = loss + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    for factor in (2, 4):
        loss = loss + 0.5 * F.avg_pool2d(error, factor).abs().mean()
    red, green, blue = error.unbind(1)
    opponent_axes = (red - green).abs().mean() + ((red + green) / 2 - blue).abs().mean()
    return loss + color_weight * opponent_axes + square_weight * error.square().mean()


def psnr(decoded: Tensor, true: Tensor) -> float:
    """Peak signal to noise in dB over pixels in [-1, 1], clamped and rounded to 8 bits like a file."""
    decoded = ((decoded.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return -10 * torch.log10((decoded - true).square().mean() / 4).item()


def flat_distances(decoded: Tensor, true: Tensor) -> np.ndarray:
    """CIE76 color distances (n,) of two pictures (3, h, w) where the true one is flat for 8 pixels around."""
    spread = F.max_pool2d(true[None], 17, 1, 8) + F.max_pool2d(-true[None], 17, 1, 8)
    flat_pixels = (spread.amax(dim=1)[0] == 0).cpu().numpy()
    a, b = (lab(_to_picture(pixels)) for pixels in (decoded, true))
    return np.linalg.norm(a - b, axis=-1)[flat_pixels]


@torch.no_grad()
def validate(model: Autoencoder, pictures: Tensor) -> dict[str, float]:
    """Means over held-out pictures: PSNR after one and ten round trips, color distance of flat areas."""
    once = repeated = _round_trip(model, pictures)
    for _ in range(ROUND_TRIPS - 1):
        repeated = _round_trip(model, repeated)
    flat_pixels = np.concatenate([flat_distances(m, t) for m, t in zip(once, pictures)])
    return {
        "psnr": float(np.mean([psnr(m, t) for m, t in zip(once, pictures)])),
        "psnr_ten": float(np.mean([psnr(m, t) for m, t in zip(repeated, pictures)])),
        "flat_de": float(flat_pixels.mean()) if len(flat_pixels) else 0.0,
        "flat_de_95": float(np.quantile(flat_pixels, 0.95)) if len(flat_pixels) else 0.0,
    }


def train(
    config: AutoencoderTraining, folder: Path, resume: bool = False, initial: Path | None = None
) -> Path:
    """Train; writes `autoencoder.safetensors` (averaged weights) and `latents.json` to the folder.

    initial: weights to start from. Returns the path of the weights.
    """
    require_single_process("the autoencoder")
    torch.manual_seed(config.seed)
    device, preset = torch.device(config.device), PRESETS[config.preset]
    size = preset.sizes[0][0]
    model = Autoencoder(preset.autoencoder).to(device)
    use_channels_last(model)
    run = TrainingRun(
        folder,
        steps=config.steps,
        seconds=config.seconds,
        warmup=config.warmup,
        decay_share=config.decay_share,
        call_seconds=config.call_seconds,
    )
    state = run.load() if resume else None
    if state is None:
        _start(model, config, size, initial)
    optimizer = _optimizer(model, config)
    ema = Ema([model], config.ema)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.average = [a.to(device) for a in state["ema"]]
    first_seed = state["seed"] if state else config.seed
    loader = ExampleLoader(Pictures(size), workers=config.workers, first_seed=first_seed)
    crops = Crops(config.pool, config.crop, first_seed)
    crops.add(loader.take(min(config.pool, config.first_fill))["picture"])
    held_out = _held_out(config.validation_pictures, size, device)
    generator = torch.Generator(device).manual_seed(config.seed)
    if state is not None:
        generator.set_state(state["generator"])
    encode, decode = model.posterior, model.decode_raw
    if config.compile and can_compile(device):
        encode, decode = torch.compile(encode), torch.compile(decode)
    replay: Replay | None = None

    def save() -> None:
        run.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "ema": ema.average,
                "seed": loader.seed,
                "generator": generator.get_state(),
            }
        )
        with ema:
            _write(model, folder)

    last_save = run.elapsed
    while not run.finished:
        try:
            run.pause_if_due(save)
        except Paused:
            loader.close()
            raise
        crops.add(loader.take(config.fresh)["picture"])
        pixels = to_pixels(crops.draw(config.batch), device)
        pixels_in, places = pixels, None
        robust = config.robust_from is not None and run.progress >= config.robust_from
        if robust:
            replay = replay or Replay(to_pixels(crops.draw(4 * config.batch), device))
            places = replay.draw(max(1, config.batch // 4))
            new, own = pixels[: len(places)].clone(), slice(len(places))
            pixels_in = pixels.clone()
            pixels_in[own], pixels[own] = replay.current[places], replay.originals[places]
        with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast):
            mean, log_variance = encode(pixels_in)
            noise = torch.randn(mean.shape, generator=generator, device=device)
            decoded = decode(_noisy(mean, log_variance, noise, robust))
        if replay is not None and places is not None:
            replay.store(places, decoded[own].detach().float(), new)
        loss = reconstruction_loss(decoded.float(), pixels, config.color_weight, config.square_weight)
        if config.consistency_weight:
            re_encoded, _ = encode(decoded)
            drift = (re_encoded.float() - mean.detach().float()).abs().mean()
            loss = loss + config.consistency_weight * drift
        spread = log_variance.float().clamp(-20, 10)
        kl = 0.5 * (mean.float().square() + spread.exp() - 1 - spread).mean()
        optimizer.zero_grad(set_to_none=True)
        (loss + config.kl_weight * kl).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.scale_rates(run.lr_factor())
        optimizer.step()
        run.step += 1
        ema.update(run.step)
        if run.logs(config.log_every):
            figures = {"loss": loss.item(), "kl": kl.item(), **run.pace(device)}
            run.record(**figures, waiting=loader.blocks_ready() == 0)
        if run.step % config.validate_every == 0 or run.finished:
            with ema:
                run.record(**validate(model, held_out))
                _sheet(model, held_out, folder / "sheet.png")
        if run.elapsed - last_save > config.save_seconds or run.finished:
            save()
            last_save = run.elapsed
    loader.close()
    ema.swap()
    return _finish(model, held_out, folder)


def _start(model: Autoencoder, config: AutoencoderTraining, size: int, initial: Path | None) -> None:
    """Initialize the weights from a file, or with a narrow posterior and a PCA of pictures as linear path."""
    if initial is not None:
        model.load_state_dict(load_file(initial))
        return
    with torch.no_grad():
        device = model.encoder.conv_in.weight.device
        if model.config.linear_path:
            seeds = range(config.seed, config.seed + config.component_pictures)
            pictures = np.stack([_scene_picture(seed, size) for seed in seeds])
            model.set_linear_path(to_pixels(pictures, device))
        # a posterior of deviation 1 would blur the first thousand steps
        bias = model.encoder.conv_out.bias
        assert bias is not None
        bias[model.config.code_channels :] = -6.0


def _optimizer(model: Autoencoder, config: AutoencoderTraining) -> MuonAdamW:
    """Optimizer with a smaller learning rate for the linear path, which starts near its optimum."""
    muon, adamw, _ = split_parameters([model], ("conv_in", "encoder.conv_out", "decoder.conv_out", "linear_"))
    linear = {id(p) for name, p in model.named_parameters() if name.startswith("linear_")}
    optimizer = MuonAdamW(
        muon,
        [p for p in adamw if id(p) not in linear],
        muon_rate=config.muon_rate,
        adamw_rate=config.adamw_rate,
        weight_decay=0.0,
    )
    if linear:
        parameters = [p for p in adamw if id(p) in linear]
        rate = config.linear_rate
        optimizer.add_param_group({"params": parameters, "kind": "adamw", "lr": rate, "peak": rate})
    return optimizer


def _noisy(mean: Tensor, log_variance: Tensor, noise: Tensor, robust: bool) -> Tensor:
    deviation = torch.exp(0.5 * log_variance.clamp(-20, 10))
    if robust:
        every_other = (torch.arange(len(mean), device=mean.device) % 2)[:, None, None, None]
        floor = (LATENT_NOISE * mean.detach().std() * every_other).to(deviation.dtype)
        deviation = torch.maximum(deviation, floor)
    return mean + deviation * noise.to(mean.dtype)


def _round_trip(model: Autoencoder, pictures: Tensor) -> Tensor:
    """Pictures (b, 3, h, w) after encoding, decoding and rounding to 8 bits."""
    parts = [model.decode(model.encode(part)) for part in pictures.split(8)]
    return ((torch.cat(parts).float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _scene_picture(seed: int, size: int, split: str = "train") -> np.ndarray:
    picture = World().scene_picture(seed, split=split)
    if picture.shape[0] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))


def _held_out(count: int, size: int, device: torch.device) -> Tensor:
    return to_pixels(np.stack([_scene_picture(HELD_OUT + i, size, "test") for i in range(count)]), device)


def _to_picture(pixels: Tensor) -> np.ndarray:
    """Pixels (3, h, w) in [-1, 1] -> uint8 (h, w, 3)."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


@torch.no_grad()
def _sheet(model: Autoencoder, pictures: Tensor, path: Path) -> None:
    shown = pictures[:8]
    decoded = _round_trip(model, shown)
    rows = torch.cat((torch.cat(list(shown), dim=2), torch.cat(list(decoded), dim=2)), dim=1)
    Image.fromarray(_to_picture(rows)).save(path)


def _write(model: Autoencoder, folder: Path) -> None:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "autoencoder.safetensors")


@torch.no_grad()
def _finish(model: Autoencoder, pictures: Tensor, folder: Path) -> Path:
    """Save the averaged weights, and the scale and shift that normalize latents to mean 0, deviation 1."""
    raw = torch.cat([model.posterior(p[None])[0] for p in pictures])
    figures = {"scale": 1 / raw.std().item(), "shift": raw.mean().item()}
    _write(model, folder)
    (folder / "latents.json").write_text(json.dumps(figures))
    log.info("latents: %s", figures)
    return folder / "autoencoder.safetensors"


@torch.no_grad()
def channel_effects(autoencoder: Autoencoder, latents: Tensor, change: float = 0.3) -> Tensor:
    """How much each channel of the code changes the pixels: RMS per unit, around latents (b, c, h, w).

    Every channel in turn is disturbed by noise of standard deviation `change`. Returns (c, latent_shuffle,
    latent_shuffle): with a shuffle above 1, adjacent latents are different channels of the code.
    """
    generator = torch.Generator().manual_seed(0)
    noise = change * torch.randn(latents[:, 0].shape, generator=generator).to(latents.device)
    step, channels = autoencoder.config.latent_shuffle, latents.shape[1]
    before, effects = autoencoder.decode(latents), latents.new_zeros(channels, step, step)
    for channel, row, column in itertools.product(range(channels), range(step), range(step)):
        disturbed, part = latents.clone(), (..., slice(row, None, step), slice(column, None, step))
        disturbed[:, channel][part] += noise[part]
        change_of_pixels = autoencoder.decode(disturbed) - before
        effects[channel, row, column] = change_of_pixels.square().mean().sqrt() / change
    return effects


def latent_figures(autoencoder: Path) -> tuple[float, float]:
    """Scale and shift of the latents of a trained autoencoder: of its run, or of the model it belongs to.

    Raises BadConfig when the file's folder has neither `latents.json` nor a model's `config.json`.
    """
    run, model = autoencoder.parent / "latents.json", autoencoder.parent / "config.json"
    if run.exists():
        figures = json.loads(run.read_text("utf-8"))
    elif model.exists():
        figures = json.loads(model.read_text("utf-8"))["preset"]["autoencoder"]
    else:
        raise BadConfig(f"{autoencoder}: neither {run.name} nor a model's {model.name} is next to it")
    return float(figures["scale"]), float(figures["shift"])
