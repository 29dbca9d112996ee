"""Pictures in strips: what the whole would be, without seams."""

import dataclasses

import pytest
import torch

from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS, AutoencoderConfig
from kontext.model.window import Window
from support.numeric import difference, rounding

SMALL = AutoencoderConfig(base_width=16, multipliers=(1, 2, 4), groups=4, scale=0.3611, shift=0.1159)
OURS = dataclasses.replace(
    PRESETS["nano-256"].autoencoder, base_width=16, latent_channels=16, scale=1.0
)  # with patches, one group and a linear path
TERMS = 25 * 9 * 64
"""Of the longest sums of one half: 25 convolutions of 3x3 over up to 64 channels."""


def network(config, dtype=torch.float32):
    torch.manual_seed(0)
    made = Autoencoder(config).eval().to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("rows", [1, 3, 8, 1000])
@pytest.mark.parametrize("config", [SMALL, OURS], ids=["published", "ours"])
@torch.inference_mode()
def test_strips_give_what_the_whole_gives(config, rows):
    made, generator = network(config), torch.Generator().manual_seed(1)
    height, width = 5 * config.cell, 7 * config.cell
    pixels = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    latents = torch.randn(2, config.latent_channels, 5, 7, generator=generator)
    whole = [made.encode(pixels), made.decode(latents), *made.decode_with_norm_stats(latents[:1])]
    made.strip_elements = rows * config.base_width * width // config.patch
    strips = [made.encode(pixels), made.decode(latents), *made.decode_with_norm_stats(latents[:1])]
    for expected, output in zip(whole[:3], strips[:3]):
        assert difference(output, expected, size=1) <= rounding(TERMS)
    assert len(whole[3]) == len(strips[3])
    for expected_norm, norm in zip(whole[3], strips[3]):
        for expected, output in zip(expected_norm, norm):
            assert difference(output, expected, size=1) <= rounding(TERMS)


@torch.inference_mode()
def test_a_window_in_strips_is_that_of_the_whole_with_the_same_norms():
    made, generator = network(SMALL), torch.Generator().manual_seed(2)
    latents = torch.randn(2, 16, 8, 8, generator=generator)
    _, norms = made.decode_with_norm_stats(latents[:1])
    window = Window(5, 19, 3, 30)
    whole = made.decode_window(latents, norms, window)
    made.strip_elements = 3 * SMALL.base_width * 32
    assert difference(made.decode_window(latents, norms, window), whole, size=1) <= rounding(TERMS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_there_is_no_seam_above_half_a_level(dtype):
    """The difference at borders of strips is that within them, and below half a level of 255."""
    made, generator = network(SMALL, dtype), torch.Generator().manual_seed(3)
    latents = 0.3 * torch.randn(1, 16, 12, 6, generator=generator)
    whole = made.decode(latents)
    made.strip_elements = 4 * SMALL.base_width * 24
    apart = (made.decode(latents) - whole).float().abs() * 127.5
    if dtype == torch.float32:
        assert apart.max() <= 0.5
        return
    # bfloat16 rounds to 8 bits after every layer, here and there in another direction: everywhere alike
    borders = apart[:, :, 3:-1:4].mean() + apart[:, :, 4::4].mean()
    within = apart[:, :, 1:-1:4].mean() + apart[:, :, 2::4].mean()
    assert borders <= 1.25 * within + 0.1


@torch.inference_mode()
def test_queries_of_a_large_picture_are_taken_in_parts(monkeypatch):
    made, generator = network(SMALL), torch.Generator().manual_seed(4)
    latents = torch.randn(1, 16, 8, 8, generator=generator)
    whole = made.decode(latents)
    monkeypatch.setattr("kontext.model.convolutions.MAX_SCORES", 64 * 5)
    assert difference(made.decode(latents), whole, size=1) <= rounding(TERMS)
