"""A picture of noise, a store, and an editor that needs no weights (`tint.py`)."""

import pytest

from kontext.session import Store
from support import tint as tinting


@pytest.fixture
def editor():
    return tinting.TintEditor()


@pytest.fixture
def tint():
    return tinting.tint


@pytest.fixture
def picture():
    """48x32 RGB of noise, so that any loss shows."""
    return tinting.noise(5)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing of the account that runs the tests is read or written."""
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
