"""A tiny model that `diffusers` can run too, and its folders."""

import dataclasses

import pytest
import torch

from kontext.checkpoint import random_model, save_diffusers, save_model
from kontext.checkpoint.convert import convert
from kontext.checkpoint.names import PARTS
from kontext.model.presets import PRESETS


@pytest.fixture(scope="session")
def tiny():
    """The tiny preset with "full" attention and guidance, like FLUX.1 Kontext [dev]."""
    preset = PRESETS["tiny"]
    transformer = dataclasses.replace(preset.transformer, context_attention="full", guidance_embed=True)
    model = random_model(dataclasses.replace(preset, name="tiny-full", transformer=transformer))
    with (
        torch.no_grad()
    ):  # norms start at 1, biases of groups at 0: every tensor must differ to show a mix-up
        for part in (model.transformer, model.autoencoder, model.t5, model.clip):
            generator = torch.Generator().manual_seed(7)
            for parameter in part.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def folders(tiny, tmp_path_factory):
    """The same model in every layout: {layout: folder}."""
    home = tmp_path_factory.mktemp("models")
    save_model(tiny, home / "kontext")
    save_diffusers(tiny, home / "diffusers")
    convert(home / "kontext", home / "bfl", "bfl")
    return {layout: home / layout for layout in ("kontext", "diffusers", "bfl")}


def same_weights(model, other) -> bool:
    a, b = model.weights(), other.weights()
    return all(
        a[part].keys() == b[part].keys()
        and all(torch.equal(tensor.read(), b[part][name].read()) for name, tensor in a[part].items())
        for part in PARTS
    )
