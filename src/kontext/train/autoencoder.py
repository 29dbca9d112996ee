"""Training the autoencoder on pictures of the world.

Loss: L1, L1 of gradients, L1 at half and quarter size, L1 in two opponent colour axes (colour is learned
last), a tiny KL term, and squared error in the last third. In the last third the decoder also sees slightly
noisy latents, and the encoder pictures that were decoded before, so that repeated round trips stay where
they are.
"""

from __future__ import annotations

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

from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS
from kontext.train.config import AutoencoderTraining
from kontext.train.feeder import Feeder
from kontext.train.optimizer import MuonAdamW, split_parameters
from kontext.train.ranks import check_alone
from kontext.train.run import Ema, Paused, Run
from kontext.world import World

log = logging.getLogger(__name__)

HELD_OUT = 1_000_000_000
"""Seeds from here on belong to validation."""


@dataclass(frozen=True)
class Crops:
    """Producer of random crops of world pictures, some at full and some at half size: uint8 (count, size,
    size, 3).
    """

    size: int
    count: int
    half_share: float

    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        full = World().scene_picture(seed)
        half = np.asarray(Image.fromarray(full).resize((full.shape[1] // 2, full.shape[0] // 2), Image.BOX))
        crops = np.empty((self.count, self.size, self.size, 3), np.uint8)
        for i in range(self.count):
            picture = half if random.random() < self.half_share else full
            y = random.integers(picture.shape[0] - self.size + 1)
            x = random.integers(picture.shape[1] - self.size + 1)
            crops[i] = picture[y : y + self.size, x : x + self.size]
        return {"crops": crops}


def to_pixels(pictures: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (b, h, w, 3) -> float (b, 3, h, w) in [-1, 1], channels last in memory."""
    x = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
    return x.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(made: Tensor, true: Tensor, colour_weight: float, square_weight: float) -> Tensor:
    error = made - true
    loss = error.abs().mean()
    loss = loss + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    for factor in (2, 4):
        loss = loss + 0.5 * F.avg_pool2d(error, factor).abs().mean()
    red, green, blue = error.unbind(1)
    opponent = (red - green).abs().mean() + ((red + green) / 2 - blue).abs().mean()
    return loss + colour_weight * opponent + square_weight * error.square().mean()


def psnr(made: Tensor, true: Tensor) -> float:
    """Peak signal to noise in dB over pixels in [-1, 1], clamped and rounded to 8 bits as a saved picture
    is.
    """
    made = ((made.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return -10 * torch.log10((made - true).square().mean() / 4).item()


@torch.no_grad()
def validate(model: Autoencoder, full: Tensor, half: Tensor) -> dict[str, float]:
    """Mean PSNR of held-out whole pictures, at full and half size, and of ten round trips."""
    figures = {}
    for name, pictures in (("full", full), ("half", half)):
        made = model.decode(model.encode(pictures))
        figures[f"psnr_{name}"] = float(np.mean([psnr(m, t) for m, t in zip(made, pictures)]))
    for _ in range(9):
        made = model.decode(model.encode(made.clamp(-1, 1)))
    figures["psnr_half_ten"] = float(np.mean([psnr(m, t) for m, t in zip(made, half)]))
    return figures


def train(
    config: AutoencoderTraining, folder: Path, resume: bool = False, initial: Path | None = None
) -> Path:
    """Train and leave `autoencoder.safetensors` (averaged weights, raw latents) and `latents.json` in the
    folder.

    initial: weights to start from. Returns the path of the weights.
    """
    check_alone("the autoencoder")
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    model = Autoencoder(PRESETS[config.preset].autoencoder).to(device, memory_format=torch.channels_last)
    if initial is not None:
        model.load_state_dict(load_file(initial))
    else:
        with torch.no_grad():  # near-certain posterior at the start: no blur for the first thousand steps
            model.encoder.conv_out.bias[model.config.latent_channels :] = -6.0
    muon, adamw = split_parameters([model], ("conv_in", "encoder.conv_out", "decoder.conv_out"))
    optimizer = MuonAdamW(
        muon, adamw, muon_rate=config.muon_rate, adamw_rate=config.adamw_rate, weight_decay=0.0
    )
    ema = Ema([model], config.ema)
    run = Run(
        folder,
        steps=config.steps,
        seconds=config.seconds,
        warmup=config.warmup,
        decay_share=config.decay_share,
        call_seconds=config.call_seconds,
    )
    state = run.load() if resume else None
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.average = [a.to(device) for a in state["ema"]]
    producer = Crops(config.crop, config.crops_per_picture, config.half_share)
    feeder = Feeder(producer, workers=config.workers, first_seed=state["seed"] if state else config.seed)
    full, half = _held_out(config.validation_pictures, device)
    generator = torch.Generator(device).manual_seed(config.seed)
    if state is not None:
        generator.set_state(state["generator"])
    encode, decode = model.posterior, model.decoder
    if config.compile:
        encode, decode = torch.compile(encode), torch.compile(decode)

    def save() -> None:
        run.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "ema": ema.average,
                "seed": feeder.seed,
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
            feeder.close()
            raise
        pixels = to_pixels(
            feeder.take(config.batch // config.crops_per_picture)["crops"].reshape(
                -1, config.crop, config.crop, 3
            ),
            device,
        )
        late = run.progress > 2 / 3
        if late and config.robust:  # a part of the batch is the model's own output
            own = max(1, len(pixels) // 4)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                pixels_in = pixels.clone()
                pixels_in[:own] = model.decode(model.encode(pixels[:own])).clamp(-1, 1)
        else:
            pixels_in = pixels
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            mean, log_variance = encode(pixels_in)
            noise = torch.randn(mean.shape, generator=generator, device=device)
            made = decode(_noisy(mean, log_variance, noise, late and config.robust))
        loss = reconstruction_loss(made.float(), pixels, config.colour_weight, 2.0 if late else 0.0)
        spread = log_variance.float().clamp(-20, 10)
        kl = 0.5 * (mean.float().square() + spread.exp() - 1 - spread).mean()
        optimizer.zero_grad(set_to_none=True)
        (loss + config.kl_weight * kl).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.scale_rates(run.rate())
        optimizer.step()
        run.step += 1
        ema.update(run.step)
        if run.logs(config.log_every):
            figures = {"loss": loss.item(), "kl": kl.item(), **run.pace(device)}
            run.record(**figures, waiting=feeder.ready() == 0)
        if run.step % config.validate_every == 0 or run.finished:
            with ema:
                run.record(**validate(model, full, half))
                _sheet(model, half, folder / "sheet.png")
        if run.elapsed - last_save > config.save_seconds or run.finished:
            save()
            last_save = run.elapsed
    feeder.close()
    ema.swap()
    return _finish(model, half, folder)


def _noisy(mean: Tensor, log_variance: Tensor, noise: Tensor, robust: bool) -> Tensor:
    deviation = torch.exp(0.5 * log_variance.clamp(-20, 10))
    if robust:  # half of the crops: latents off by 5 % of their spread, as a sampler's are
        every_other = (torch.arange(len(mean), device=mean.device) % 2)[:, None, None, None]
        deviation = torch.maximum(deviation, (0.05 * mean.detach().std() * every_other).to(deviation.dtype))
    return mean + deviation * noise.to(mean.dtype)


def _held_out(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    full = np.stack([World().scene_picture(HELD_OUT + i, split="test") for i in range(count)])
    half = np.stack([np.asarray(Image.fromarray(p).resize((128, 128), Image.BOX)) for p in full])
    return to_pixels(full, device), to_pixels(half, device)


@torch.no_grad()
def _sheet(model: Autoencoder, pictures: Tensor, path: Path) -> None:
    shown = pictures[:8]
    made = model.decode(model.encode(shown))
    rows = torch.cat((torch.cat(list(shown), dim=2), torch.cat(list(made), dim=2)), dim=1)
    array = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(array).save(path)


def _write(model: Autoencoder, folder: Path) -> None:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "autoencoder.safetensors")


@torch.no_grad()
def _finish(model: Autoencoder, pictures: Tensor, folder: Path) -> Path:
    """Save the averaged weights, and the scale and shift that give latents mean 0 and deviation 1."""
    raw = torch.cat([model.posterior(p[None])[0] for p in pictures])
    figures = {"scale": 1 / raw.std().item(), "shift": raw.mean().item()}
    _write(model, folder)
    (folder / "latents.json").write_text(json.dumps(figures))
    log.info("latents: %s", figures)
    return folder / "autoencoder.safetensors"
