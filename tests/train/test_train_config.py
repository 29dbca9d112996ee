"""Settings: the shipped files are read; unknown keys and broken files are refused in one line."""

from pathlib import Path

import pytest

import kontext.train
from kontext.errors import BadConfig
from kontext.train.config import AutoencoderTraining, DistillTraining, FlowTraining, read
from kontext.world import World

SHIPPED = sorted((Path(kontext.train.__file__).parent / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_settings_are_read(path):
    kinds = {"autoencoder": AutoencoderTraining, "distill": DistillTraining}
    kind = kinds.get(path.stem.split("-")[0], FlowTraining)
    settings = read(kind, path)
    for stage in getattr(settings, "curriculum", ()):
        World(**stage.world)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("steps = 1\nbatch = 2\ncolour = 3", "colour"),
        ("steps = 'many'\nbatch = 2", "steps"),
        ("steps =", "not TOML"),
        ("batch = 2", "steps"),
    ],
)
def test_what_cannot_be_honoured_is_named(tmp_path, text, word):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(BadConfig, match=word):
        read(AutoencoderTraining, path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BadConfig, match="no such config"):
        read(FlowTraining, tmp_path / "none.toml")
