"""A picture depends on its seed and its request alone, not on what the program around has set in torch."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from kontext.engine import Editor
from kontext.engine.sampling import seeded_noise


@contextmanager
def default_type(kind):
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def global_seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        torch.rand(7)
        yield


SETTINGS = {
    "float64": lambda: default_type(torch.float64),
    "bfloat16": lambda: default_type(torch.bfloat16),
    "float16": lambda: default_type(torch.float16),
    "meta": lambda: default_device("meta"),
    "seed": global_seed,
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "grad": torch.enable_grad,
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def made(model):
    """The bytes of an edit of every path: locked, guided with a reference, from words; nothing cached."""
    editor = Editor(model)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    results = [
        editor.edit(picture, "make it red", seed=3, steps=2),
        editor.edit(picture, "make it red", seed=3, steps=2, lock=False, guidance=2.0, references=picture),
        editor.generate("a cat", seed=4, steps=2),
    ]
    return b"".join(result.picture.tobytes() for result in results)


@pytest.fixture(scope="module")
def expected(random_model):
    return made(random_model)


@pytest.mark.parametrize("name", SETTINGS)
def test_same_seed_same_bytes_whatever_is_set_in_torch(random_model, expected, name):
    with SETTINGS[name]():
        assert made(random_model) == expected


@pytest.mark.parametrize("name", ["float64", "bfloat16", "meta", "seed"])
def test_noise_is_float32_on_the_processor_whatever_is_set_in_torch(name):
    before = seeded_noise(7, 8, 8)
    with SETTINGS[name]():
        found = seeded_noise(7, 8, 8)
    assert found.dtype == torch.float32 and found.device.type == "cpu" and torch.equal(found, before)


def test_global_generator_is_left_as_it_was(random_model):
    before = torch.get_rng_state()
    made(random_model)
    assert torch.equal(torch.get_rng_state(), before)
