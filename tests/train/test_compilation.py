"""Training that is to be compiled runs without a compiler as well."""

import logging

import pytest
import torch
from torch._inductor import config as inductor

from kontext.train import autoencoder as autoencoder_training
from kontext.train.compilation import can_compile
from kontext.train.config import AutoencoderTraining


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(inductor.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    can_compile.cache_clear()
    yield
    can_compile.cache_clear()
    torch._dynamo.reset()


def test_without_a_compiler_training_runs_uncompiled(no_compiler, tmp_path, caplog):
    config = AutoencoderTraining(
        preset="tiny", steps=2, batch=2, crop=32, pool=2, first_fill=2, workers=0, compile=True
    )
    with caplog.at_level(logging.WARNING, "kontext.train"):
        weights = autoencoder_training.train(config, tmp_path / "run")
        assert not can_compile(torch.device("cpu"))
    assert weights.exists()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "kontext.train.compilation"]
    assert line.startswith("training runs without compilation") and "compiler" in line and "\n" not in line
