"""`kontext train`: settings by name, devices that are not there, runs that are not started over."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from kontext import cli
from kontext.errors import BadConfig
from kontext.train.config import CONFIGS, FlowTraining, LoraTraining, find_config, read
from kontext.train.recipe import Recipe, settings_of


def call(*arguments):
    return CliRunner().invoke(cli.app, ["train", *map(str, arguments)])


def test_settings_of_the_package_are_found_by_name_and_ones_own_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(Path("flow-cpu.toml")) == CONFIGS / "flow-cpu.toml"
    assert read(LoraTraining, Path("lora.toml")).model == "nano"
    Path("lora.toml").write_text('model = "mine"\nsteps = 1\n')
    assert read(LoraTraining, Path("lora.toml")).model == "mine"
    with pytest.raises(
        BadConfig, match="no such settings file: none.toml; packaged files are .*flow-cpu.toml"
    ):
        read(FlowTraining, Path("none.toml"))
    with pytest.raises(BadConfig, match="no such settings file"):
        read(FlowTraining, Path("elsewhere/flow-cpu.toml"))


def test_a_recipe_may_stand_elsewhere_than_the_settings_it_names(tmp_path):
    recipe = Recipe(stages=({"name": "flow", "kind": "flow", "config": "flow-cpu.toml"},))
    settings = settings_of(recipe.stages[0], tmp_path, device="cpu")
    assert settings.preset == read(FlowTraining, Path("flow-cpu.toml")).preset and settings.device == "cpu"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"steps = [", None])
def test_settings_that_cannot_be_read_are_reported_in_one_line(tmp_path, content):
    path = tmp_path / "flow.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    done = call("flow", "--config", path, "--autoencoder", "x", "-o", tmp_path / "run")
    assert done.exit_code == 1 and str(path) in done.stderr and "unexpected" not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_whole_recipe_says_what_to_do(tmp_path):
    done = call("all", "-o", tmp_path / "run", "--call-seconds", 20)
    assert done.exit_code == 1 and not (tmp_path / "run").exists()
    assert "device 'cuda' is not available" in done.stderr
    assert "--device cpu" in done.stderr and "recipe-tiny.toml" in done.stderr


def test_the_device_given_goes_before_that_of_the_settings(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("kontext.train.recipe.usable_device", asked.append)
    monkeypatch.setattr("kontext.train.recipe.KINDS", {})
    monkeypatch.setattr("kontext.train.recipe.settings_of", lambda stage, home, **more: _settings(more))
    call("all", "-o", tmp_path / "run", "--device", "cpu")
    assert set(asked) == {"cpu"}


def _settings(more):
    return FlowTraining(steps=1, batch=1, fresh=1, pool=1, first_fill=1, **{"device": "cuda", **more})


def test_a_run_is_not_started_over_another_unless_asked(tmp_path, monkeypatch):
    from kontext.train import lora

    run = tmp_path / "run"
    run.mkdir()
    (run / "state.pt").write_bytes(b"hours of work")
    monkeypatch.setattr(lora, "train", lambda settings, output, data, resume: output / "lora.safetensors")
    done = call("lora", "--config", "lora.toml", "-o", run)
    assert done.exit_code == 1 and "--resume continues it, --force replaces it" in done.stderr
    for option in ("--resume", "--force"):
        done = call("lora", "--config", "lora.toml", "-o", run, option)
        assert json.loads(done.stdout) == {"lora": str(run / "lora.safetensors")}


def test_a_paused_run_says_how_to_continue(tmp_path, monkeypatch):
    from kontext.train import flow
    from kontext.train.run import Paused

    def pause(*arguments):
        raise Paused

    monkeypatch.setattr(flow, "train", pause)
    codec = tmp_path / "autoencoder.safetensors"
    codec.touch()
    done = call("flow", "--config", "flow-cpu.toml", "--autoencoder", codec, "-o", tmp_path / "run")
    assert done.exit_code == 0 and "--resume continues the run" in done.stderr and not done.stdout
