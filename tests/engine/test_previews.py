"""Previews: colors of latents without a decoder, over the source where nothing changes."""

import numpy as np
import torch
from PIL import Image

from kontext.checkpoint import load_model
from kontext.engine.previews import fit_projection, over_source, paint


class Patches(torch.nn.Module):
    """A codec that keeps every pixel: a latent holds the 4x4 pixels of its cell, and 16 numbers more."""

    def __init__(self):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def encode(self, pixels):
        latents = torch.nn.functional.pixel_unshuffle(pixels, 4)
        return torch.cat((latents, latents[:, :16] * 0), dim=1)


def test_a_preview_has_as_many_pixels_a_latent_as_its_numbers_tell_apart():
    codec = Patches()
    picture = torch.full((1, 3, 32, 48), -0.5)
    picture[:, 0, 5:22, 7:31] = 0.75
    picture[:, 2, 17:, 22:] = 0.25
    preview = paint(codec.encode(picture)[0], fit_projection(codec))
    expected = ((picture[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    assert preview.size == (48, 32)
    assert np.abs(np.asarray(preview, float) - expected).max() < 4  # the ridge pulls a little to gray


def test_of_sixteen_channels_it_has_two_a_side():
    autoencoder = load_model("tiny-random").autoencoder
    assert fit_projection(autoencoder).shape == (17, 12)


def test_unchanged_latents_show_the_source():
    before = torch.zeros(4, 4, 4)
    latents = before.clone()
    latents[:, 2, 1] = 1.0
    source = Image.new("RGB", (64, 64), (10, 200, 30))
    shown = np.asarray(over_source(Image.new("RGB", (8, 8), (250, 0, 0)), latents, before, source))
    assert shown.shape == (64, 64, 3)
    assert np.abs(shown[40, 24].astype(int) - (250, 0, 0)).max() < 16 and (shown[:24] == (10, 200, 30)).all()
    unchanged = over_source(Image.new("RGB", (8, 8)), before, before, source)
    assert np.array_equal(np.asarray(unchanged), np.asarray(source))
