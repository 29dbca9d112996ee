"""`dev-random`: a model of [dev]'s shape without its files."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from kontext import Editor
from kontext.checkpoint import random_weights
from kontext.checkpoint.layouts import empty_module
from kontext.checkpoint.names import PARTS
from kontext.checkpoint.random_weights import dev_preset, is_dev_random
from kontext.errors import NotFound
from kontext.model.presets import PRESETS


@pytest.mark.parametrize(
    "name, double, single", [("dev-random", 19, 38), ("dev-random:3", 1, 2), ("dev-random:57", 19, 38)]
)
def test_blocks_are_divided_as_in_dev(name, double, single):
    assert is_dev_random(name)
    config = dev_preset(name).transformer
    assert (config.depth_double, config.depth_single) == (double, single)
    assert config == dataclasses.replace(PRESETS["dev"].transformer, depth_double=double, depth_single=single)


@pytest.mark.parametrize(
    "name", ["dev-random:1", "dev-random:58", "dev-random:x", "dev-random:-3", "dev-random:²"]
)
def test_other_numbers_of_blocks_are_refused(name):
    with pytest.raises(NotFound, match="2 to 57 blocks"):
        dev_preset(name)


def test_names_of_files_and_other_models_are_not_taken():
    assert not any(map(is_dev_random, ("dev", "dev:q4", "./dev-random", "nano-random", "dev-random.gguf")))


@pytest.fixture
def small_dev(monkeypatch):
    """The preset "dev" with few and narrow blocks."""
    dev, tiny = PRESETS["dev"], PRESETS["tiny"]
    small = dataclasses.replace(
        dev,
        transformer=dataclasses.replace(
            tiny.transformer, depth_double=2, depth_single=4, context_attention="full", guidance_embed=True
        ),
        autoencoder=tiny.autoencoder,
        t5=tiny.t5,
        clip=tiny.clip,
        text_length=tiny.text_length,
        sizes=tiny.sizes,
    )
    monkeypatch.setattr(random_weights, "PRESETS", {**PRESETS, "dev": small})
    return small


def test_weights_have_the_shapes_of_the_network_and_are_the_same_every_time(small_dev):
    for part in PARTS:
        preset = dev_preset("dev-random")
        expected = empty_module(part, getattr(preset, part)).state_dict()
        weights = random_weights.random_weights(part, preset)
        assert {name: tuple(t.shape) for name, t in expected.items()} == {
            n: t.shape for n, t in weights.items()
        }
        for tensor in weights.values():
            read = tensor.read()
            assert tuple(read.shape) == tensor.shape and read.dtype == tensor.dtype == torch.bfloat16
            assert torch.equal(read, tensor.read()) and tensor.bytes == read.nbytes


def test_an_edit_runs_with_every_block(small_dev):
    editor = Editor.load("dev-random:3", device="cpu")
    assert len(editor.model.transformer.single_blocks) == 2
    assert editor.model.name == "dev-random:3"
    picture = Image.new("RGB", (64, 64), "teal")
    results = [editor.edit(picture, "x", seed=seed, steps=2, guidance=2.5) for seed in (1, 1, 2)]
    first, again, other = (np.asarray(result.picture) for result in results)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.std() > 0
