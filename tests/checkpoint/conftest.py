"""Fixtures of the checkpoint tests."""

import pytest
from tests.support.tiny_model import folders, tiny

from kontext.checkpoint.hub import client
from support.hub import StandIn

__all__ = ["folders", "tiny"]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """The hub, and an account without anything."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(client, "PAUSES", (0.0,) * 4)
    with StandIn() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made
