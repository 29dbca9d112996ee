"""The autoencoder learns, resumes where it was, and keeps pictures through many round trips."""

import numpy as np
import pytest
import torch

from kontext.checkpoint import load_model
from kontext.checkpoint.find import SHIPPED
from kontext.errors import BadConfig
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import AutoencoderConfig
from kontext.train import autoencoder as autoencoder_training
from kontext.train.autoencoder import Crops, Replay, latent_figures, to_pixels
from kontext.train.config import AutoencoderTraining
from kontext.train.loader import ExampleLoader
from kontext.world import World
from support.training import interrupted, losses

SMALL_LINEAR = AutoencoderConfig(
    base_width=8,
    multipliers=(1, 2, 2),
    blocks_per_level=1,
    latent_channels=24,
    groups=1,
    patch=2,
    linear_path=True,
    scale=1.0,
    shift=0.0,
)


def small_autoencoder(steps: int, **more) -> AutoencoderTraining:
    return AutoencoderTraining(
        preset="tiny",
        steps=steps,
        batch=4,
        crop=32,
        pool=4,
        first_fill=4,
        robust_from=None,
        workers=0,
        warmup=1,
        decay_share=0.0,
        log_every=1,
        validation_pictures=1,
        validate_every=1000,
        save_seconds=0.0 if steps < 20 else 100.0,
        **more,
    )


def test_the_autoencoder_learns_a_batch_by_heart(tmp_path, monkeypatch):
    draw, drawn = Crops.draw, []

    def same(self, count):
        drawn[:] = drawn or [draw(self, count)]
        return drawn[0]

    monkeypatch.setattr(Crops, "draw", same)
    autoencoder_training.train(small_autoencoder(steps=95), tmp_path)
    course = losses(tmp_path)
    assert np.mean(course[85:95]) < 0.5 * np.mean(course[:5])


def test_an_interrupted_autoencoder_run_resumes_where_it_was(tmp_path, monkeypatch):
    """Steps continue from the saved step and weights; the crops are drawn again."""
    config = small_autoencoder(steps=6)

    class CutOff(ExampleLoader):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            self.take = interrupted(self, calls=4)

    with monkeypatch.context() as patch:
        patch.setattr(autoencoder_training, "ExampleLoader", CutOff)
        with pytest.raises(KeyboardInterrupt):
            autoencoder_training.train(config, tmp_path)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert saved["step"] == 3
    starts = []
    original = autoencoder_training.Ema.update

    def update(self, step):
        starts.append((step, [p.detach().clone() for p in self.live]))
        original(self, step)

    monkeypatch.setattr(autoencoder_training.Ema, "update", update)
    autoencoder_training.train(config, tmp_path, resume=True)
    assert [step for step, _ in starts] == [4, 5, 6]
    moved = max(
        (a - b).abs().max().item() for a, b in zip(starts[0][1], saved["model"].values(), strict=True)
    )
    assert 0 < moved < 0.05  # one step away from what was saved
    assert (tmp_path / "latents.json").exists()


def test_the_autoencoder_of_a_model_is_trained_with_as_that_of_a_run(tmp_path):
    weights = SHIPPED / "nano" / "autoencoder.safetensors"
    preset = load_model("nano").preset.autoencoder
    assert latent_figures(weights) == (preset.scale, preset.shift)
    (tmp_path / "latents.json").write_text('{"scale": 2, "shift": 1}')
    assert latent_figures(tmp_path / "autoencoder.safetensors") == (2.0, 1.0)
    (tmp_path / "latents.json").unlink()
    with pytest.raises(BadConfig, match=r"latents\.json"):
        latent_figures(tmp_path / "autoencoder.safetensors")


def test_round_trips_come_back_ten_times_with_their_originals():
    fresh = torch.zeros(2, 3, 4, 4)
    replay = Replay(torch.ones(2, 3, 4, 4))
    replay.trips[:] = 0
    for trip in range(9):
        places = replay.draw(2)
        replay.store(places, 0.5 * replay.current[places], fresh)
        assert (replay.trips == trip + 1).all() and (replay.originals == 1).all()
    assert replay.current.max() == pytest.approx(0.5**9)
    replay.store(replay.draw(2), replay.current, fresh)
    assert (replay.originals == 0).all() and (replay.current == 0).all() and (replay.trips == 0).all()


def test_the_linear_path_alone_is_the_principal_components(tmp_path):
    """Before any step the model with a linear path gives what the components give, on flat colors exactly."""
    model = Autoencoder(SMALL_LINEAR)
    pictures = np.stack([World().scene_picture(seed) for seed in range(6)])
    pixels = to_pixels(pictures[:, :128, :128], torch.device("cpu"))
    model.set_linear_path(pixels)
    with torch.no_grad():
        made = model.decode(model.encode(pixels))
        cells = torch.nn.functional.unfold(pixels, 8, stride=8).transpose(1, 2).reshape(-1, 192).double()
        centered = cells - cells.mean(0)
        components = torch.linalg.eigh(centered.T @ centered).eigenvectors[:, -SMALL_LINEAR.latent_channels :]
        best = (centered - centered @ components @ components.T).square().mean().item()
        error = (made - pixels).square().mean().item()
        assert best <= error * (1 + 1e-6)
        # all but the mean cell's own pattern, of which only the color remains
        assert error < 1.02 * best + 1e-4
