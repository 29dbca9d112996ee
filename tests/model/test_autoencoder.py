"""Patches and the linear path: shapes, windows, what the published autoencoder has stays as it is."""

import pytest
import torch

from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS, AutoencoderConfig
from kontext.model.tokens import pack
from kontext.model.window import Window

PLAIN = AutoencoderConfig(
    base_width=8, multipliers=(1, 1, 2, 2), blocks_per_level=1, groups=1, scale=1.0, shift=0.0
)
PATCHED = AutoencoderConfig(
    base_width=8,
    multipliers=(1, 2, 2),
    blocks_per_level=1,
    latent_channels=24,
    groups=1,
    patch=4,
    linear_path=True,
    scale=0.7,
    shift=0.1,
)


def build(config: AutoencoderConfig) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(config).eval()


@pytest.mark.parametrize("config", [PLAIN, PATCHED], ids=["plain", "patched"])
@torch.no_grad()
def test_latents_are_a_cell_smaller_and_pictures_come_back_in_their_size(config):
    model, pixels = build(config), torch.randn(2, 3, 96, 64)
    latents = model.encode(pixels)
    assert latents.shape == (2, config.latent_channels, 96 // config.cell, 64 // config.cell)
    assert model.decode(latents).shape == pixels.shape


@pytest.mark.parametrize("config", [PLAIN, PATCHED], ids=["plain", "patched"])
@pytest.mark.parametrize("window", [Window(16, 41, 33, 90), Window(0, 128, 0, 96), Window(5, 6, 7, 8)])
@torch.no_grad()
def test_a_decoded_window_is_that_part_of_the_whole(config, window):
    model = build(config)
    latents = torch.randn(1, config.latent_channels, 128 // config.cell, 96 // config.cell)
    whole, norms = model.decode_with_norm_stats(latents)
    part = model.decode_window(latents, norms, window)
    expected = whole[:, :, window.top : window.bottom, window.left : window.right]
    assert part.shape == expected.shape
    # float32 convolutions in another order
    assert (part - expected).abs().max() < 1e-5 * whole.abs().max()


@torch.no_grad()
def test_the_linear_path_adds_to_the_convolutions():
    model, pixels = build(PATCHED), torch.randn(1, 3, 32, 32)
    mean, _ = model.posterior(pixels)
    made = model.decode_raw(mean)
    for parameter in (*model.linear_in.parameters(), *model.linear_out.parameters()):
        parameter.zero_()
    convolutions, _ = model.posterior(pixels)
    assert not torch.equal(mean, convolutions)
    assert (made - model.decode_raw(mean)).abs().max() > 0.01


def test_the_published_autoencoder_is_as_it_was():
    with torch.device("meta"):
        model = Autoencoder(PRESETS["dev"].autoencoder)
    assert len(model.state_dict()) == 244
    assert sum(p.numel() for p in model.parameters()) == 83_819_683
    assert PRESETS["dev"].autoencoder.cell == 8 and PRESETS["dev"].token_pixels == 16


def test_a_nano_256_token_stands_for_32_pixels():
    preset = PRESETS["nano-256"]
    assert preset.token_pixels == 32
    assert preset.transformer.in_channels == 4 * preset.autoencoder.latent_channels


def test_a_token_of_nano_256_p16_is_one_position_of_the_same_code():
    coarse, fine = (PRESETS[name] for name in ("nano-256", "nano-256-p16"))
    assert fine.token_pixels == 16 and fine.transformer.in_channels == coarse.autoencoder.latent_channels
    torch.manual_seed(0)
    model, shuffled = Autoencoder(coarse.autoencoder).eval(), Autoencoder(fine.autoencoder).eval()
    shuffled.load_state_dict(model.state_dict())
    pixels = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        latents, tokens = model.encode(pixels), pack(shuffled.encode(pixels))
        assert torch.equal(tokens, latents.flatten(2).mT)
        spread = shuffled.encode(pixels)
        assert spread.shape == (1, 16, 64 // fine.autoencoder.cell, 96 // fine.autoencoder.cell)
        assert torch.equal(shuffled.decode(spread), model.decode(latents))
        window = Window(16, 48, 32, 80)
        pictures = [
            decoder.decode_window(z, decoder.decode_with_norm_stats(z)[1], window)
            for decoder, z in ((model, latents), (shuffled, spread))
        ]
        assert torch.equal(*pictures)
