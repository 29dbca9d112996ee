"""The command `kontext batch`: what it takes, and how it ends."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kontext import cli
from kontext.batch import run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one picture in it, the command line standing there, no account's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path.parent / f"{tmp_path.name}-home"))
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save("kid.png")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.app, ["batch", *arguments, "--model", "tiny-random"])


def test_a_batch_that_is_stopped_says_how_to_go_on_and_ends_like_other_commands(folder, monkeypatch):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", pressed)
    done = call(".", "red", "-o", "out")
    assert done.exit_code == cli.INTERRUPTED == 130
    assert done.stderr == "error: stopped; run the same command again to resume\n"
