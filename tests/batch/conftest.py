"""Batches take nothing from the account that runs the tests."""

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path / "home"))
