"""`kontext world`: sheets, samples and counts from the command line."""

import json

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from kontext.commands.world import app
from kontext.world import World


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_sheet_draws_a_picture(tmp_path):
    out = tmp_path / "sheet.png"
    run("sheet", str(out), "--kind", "glasses", "--rows", "2")
    assert len(np.unique(np.asarray(Image.open(out)).reshape(-1, 3), axis=0)) > 100


def test_sample_writes_what_the_world_draws(tmp_path):
    run("sample", str(tmp_path), "-n", "2", "--seed", "s", "--kind", "object_color", "--split", "test")
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text("utf-8").splitlines()]
    for index, line in enumerate(lines):
        sample = World().sample(f"s/{index}", "test", kind="object_color")
        assert line["english"] == sample.english and line["after"] == sample.after
        assert (np.asarray(Image.open(tmp_path / line["target"])) == sample.target).all()
        assert (np.asarray(Image.open(tmp_path / line["mask"])) == sample.mask).all()


def test_count_tells_the_variety():
    assert "characters: kid" in run("count")
