"""Settings: the shipped files are read; unknown keys and broken files are refused in one line."""

from pathlib import Path

import pytest

import kontext.train
from kontext.errors import BadConfig
from kontext.train.config import (
    AutoencoderTraining,
    DistillTraining,
    FlowTraining,
    LoraTraining,
    WordsTraining,
    read,
)
from kontext.train.recipe import Recipe, follow, settings_of
from kontext.world import World

SHIPPED = sorted((Path(kontext.train.__file__).parent / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_settings_are_read(path):
    if path.stem.startswith("recipe"):
        stages = read(Recipe, path).stages
        assert [stage.name for stage in stages] == ["autoencoder", "flow", "turns", "student"]
        for stage in stages:
            settings_of(stage, path.parent)
        return
    kinds = {
        "autoencoder": AutoencoderTraining,
        "distill": DistillTraining,
        "ladd": DistillTraining,
        "lora": LoraTraining,
        "words": WordsTraining,
    }
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
        ("steps = 1\nbatch = 0", "toml: batch: Input should be greater than or equal to 1"),
        ("steps = 1\nbatch = 2\nseconds = 0", "seconds: Input should be greater than 0"),
        ("steps = 1\nbatch = 2\ndecay_share = 2", "decay_share: Input should be less than or equal to 1"),
        ("steps = 1\nbatch = 2\npreset = 'huge'", "preset: must be one of .*nano-256.*, got 'huge'"),
        ("steps = 1\nbatch = 2\npreset = 'tiny'", "toml: crop must be 1 to 64 pixels .* got 128"),
    ],
)
def test_what_cannot_be_honoured_is_named(tmp_path, text, word):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(BadConfig, match=word):
        read(AutoencoderTraining, path)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(BadConfig, match="no such settings file"):
        read(FlowTraining, tmp_path / "none.toml")


def test_the_recipe_fits_the_time_of_a_gpu():
    path = next(p for p in SHIPPED if p.stem == "recipe-gpu")
    settings = [settings_of(stage, path.parent) for stage in read(Recipe, path).stages]
    assert sum(stage.seconds for stage in settings) <= 27 * 60
    assert all(stage.device == "cuda" and stage.compile and stage.bfloat16 for stage in settings)


def test_a_mistake_in_a_recipe_names_the_stage(tmp_path):
    (tmp_path / "recipe.toml").write_text(
        '[[stages]]\nname = "first"\nkind = "flow"\nsettings = { stepz = 3 }\n'
    )
    with pytest.raises(BadConfig, match="first: "):
        follow(tmp_path / "recipe.toml", tmp_path / "out")
