"""`kontext models`: list, pull and remove; and commands that are given the name of a model on a hub."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kontext import cli
from kontext.checkpoint import load_model, save_model
from kontext.checkpoint.hub import client
from kontext.checkpoint.hub import models as hub
from support.hub import Fault, StandIn


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    save_model(load_model("tiny-random"), folder)
    return folder


@pytest.fixture
def stand_in(tmp_path, tiny_folder, monkeypatch):
    """A hub with one model, an account without anything, and a picture."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(client, "PAUSES", (0.0,) * 4)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save("kid.png")
    with StandIn() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        made.add("someone/tiny", tiny_folder)
        yield made


def call(*arguments, **more):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], **more)


def rows():
    return {row["name"]: row for row in json.loads(call("models", "--json").stdout)["models"]}


def refused(*arguments):
    """The one line of a command that fails."""
    done = call(*arguments)
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert "unexpected" not in done.stderr
    return done.stderr


def test_pull_list_and_remove(stand_in):
    done = call("models", "pull", "someone/tiny")
    assert done.exit_code == 0 and "downloading someone/tiny, " in done.stderr
    assert "someone/tiny is ready: " in done.stdout
    row = rows()["someone/tiny"]
    assert row["usable"] and row["path"] == str(hub.models_folder() / "someone--tiny")
    assert row["bytes"] == hub.read(Path(row["path"])).bytes > 10**6
    assert call("models", "list").stdout == call("models").stdout

    before = len(stand_in.requests)
    again = json.loads(call("models", "pull", "someone/tiny", "--json").stdout)
    assert again["bytes"] == row["bytes"] and len(stand_in.requests) == before

    assert "--yes" in refused("models", "remove", "someone/tiny")
    assert rows()["someone/tiny"]["usable"]
    done = call("models", "remove", "someone/tiny", "--yes")
    assert done.exit_code == 0 and "freed" in done.stdout
    assert "someone/tiny" not in rows()
    left = [path for path in Path(os.environ["HF_HOME"]).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in left) < 10_000


def test_a_person_is_asked_before_anything_is_removed(stand_in, monkeypatch):
    call("models", "pull", "someone/tiny")
    monkeypatch.setattr("kontext.commands.models.is_interactive", lambda stream: True)
    done = call("models", "remove", "someone/tiny", input="n\n")
    assert done.exit_code == 1 and "Delete someone/tiny, " in done.stderr and rows()["someone/tiny"]["usable"]
    assert str(hub.models_folder() / "someone--tiny") in done.stderr
    assert call("models", "remove", "someone/tiny", input="y\n").exit_code == 0
    assert "someone/tiny" not in rows()


def test_models_of_the_user_and_of_the_package(stand_in, tiny_folder):
    shutil.copytree(tiny_folder, hub.models_folder() / "mine")
    assert rows()["mine"]["usable"]
    assert "comes with the package" in refused("models", "remove", "nano", "--yes")
    assert "was not downloaded from a hub" in refused("models", "remove", "other", "--yes")
    assert call("models", "remove", "mine", "--yes").exit_code == 0
    assert not (hub.models_folder() / "mine").exists()
    outside = Path("outside")
    shutil.copytree(tiny_folder, outside)
    (hub.models_folder() / "link").symlink_to(outside.absolute())
    assert call("models", "remove", "link", "--yes").exit_code == 0
    assert (outside / "config.json").is_file() and not (hub.models_folder() / "link").is_symlink()


def test_what_can_be_downloaded_is_listed_with_its_size(stand_in):
    listed = rows()
    for name in ("dev", "dev:fp8", "dev:q4"):
        assert not listed[name]["usable"] and " GB" in listed[name]["note"]
        assert f"kontext models pull {name}" in listed[name]["note"]


def test_files_gone_from_the_cache_are_named(stand_in):
    call("models", "pull", "someone/tiny")
    shutil.rmtree(os.environ["HF_HOME"])
    row = rows()["someone/tiny"]
    assert not row["usable"] and "kontext models pull someone/tiny" in row["note"]
    assert call("models", "pull", "someone/tiny").exit_code == 0 and rows()["someone/tiny"]["usable"]


def test_a_pull_that_fails_leaves_one_line_and_the_next_continues(stand_in):
    stand_in.faults["transformer.safetensors"] = Fault(break_after=50_000, then=Fault(times=5, status=503))
    done = call("models", "pull", "someone/tiny", "-q")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert "50 kB of" in done.stderr and "run the command again to resume" in done.stderr
    assert "someone/tiny" not in rows()
    assert call("models", "pull", "someone/tiny").exit_code == 0
    ranges = [request.range for request in stand_in.requests if request.path == "transformer.safetensors"]
    assert ranges[-1] == "bytes=50000-"


def test_commands_download_the_model_that_they_are_given(stand_in):
    done = call("edit", "kid.png", "red", "--model", "someone/tiny", "-o", "out.png", "--seed", "1")
    assert done.exit_code == 0 and Path("out.png").exists()
    assert call("edit", "kid.png", "red", "--model", stand_in.url).exit_code == 1
    message = refused("edit", "kid.png", "red", "--model", "someone/else")
    assert "no repository someone/else" in message
    message = refused("generate", "a red ball", "--model", "dev")
    assert "no repository black-forest-labs/FLUX.1-Kontext-dev" in message


def test_a_gated_model_names_the_page_and_the_command(stand_in, tiny_folder):
    stand_in.add("black-forest-labs/FLUX.1-Kontext-dev", tiny_folder, gated=True)
    message = refused("edit", "kid.png", "red", "--model", "dev")
    assert f"{stand_in.url}/black-forest-labs/FLUX.1-Kontext-dev" in message
    assert "hf auth login" in message


def test_progress_is_one_line_that_is_drawn_anew(stand_in, monkeypatch):
    drawn = []
    monkeypatch.setattr("kontext.commands.options.is_interactive", lambda stream: True)
    monkeypatch.setattr("kontext.commands.options.draw", drawn.append)
    monkeypatch.setattr("kontext.commands.options.DRAW_SECONDS", 0.0)
    stand_in.faults["transformer.safetensors"] = Fault(break_after=50_000)
    assert call("models", "pull", "someone/tiny").exit_code == 0
    assert any(" of 3." in line and "/s, " in line and "transformer" in line for line in drawn)
    assert any("retrying transformer" in line for line in drawn) and drawn[-1] == ""


def test_a_plan_with_fp8_counts_a_byte_a_number(tiny_folder):
    where = ("models", "plan", tiny_folder, "--memory", "4GB", "--json", "--device")
    exact, eight = (json.loads(call(*where, "cuda", *given).stdout)["rows"] for given in ((), ("--fp8",)))
    sizes = [
        next((row["bytes"], row["where"]) for row in rows if "blocks" in row["what"])
        for rows in (exact, eight)
    ]
    assert 0.25 < sizes[1][0] / sizes[0][0] < 0.27  # of float32, with scales, biases and norms
    assert sizes[1][1] == "on cuda, in 8-bit floats"
    assert "got mps" in refused(*where, "mps", "--fp8")
