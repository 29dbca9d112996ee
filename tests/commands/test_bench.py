"""The command line: from arguments to table, JSON and page."""

import json

import pytest
from typer.testing import CliRunner

from kontext.cli import app

FEW = [
    "quality",
    "--model",
    "tiny-random",
    "--n",
    "1",
    "--category",
    "local,generate",
    "--rows",
    "copy,oracle,model",
]


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    done = bench(*FEW, "--json", folder / "a.json", "--report", folder)
    assert done.exit_code == 0, done.output
    return folder


def test_quality_writes_figures_and_a_page(folder):
    result = json.loads((folder / "a.json").read_text())
    assert result["suite"] == "quality" and result["model"] == "tiny-random" and result["n"] == 2
    assert set(result["rows"]) == {"copy", "oracle", "model@2"}  # the model's own steps
    success = result["rows"]["oracle"]["test"]["success"]
    assert success["mean"] == 1 and 0 < success["low"] < 1
    assert result["rows"]["copy"]["test"]["success"]["mean"] == 0
    assert len(result["settings"]["fingerprint"]) == len(result["manifest"]) == 64
    assert "kontext bench quality" in (folder / "quality.html").read_text()


def test_a_run_is_not_overwritten_but_goes_on(folder):
    again = bench(*FEW, "--report", folder)
    assert again.exit_code == 1 and "--resume" in again.output
    resumed = bench(*FEW, "--report", folder, "--resume", "--json", folder / "b.json")
    assert resumed.exit_code == 0 and "quality: test" in resumed.output
    first, second = (json.loads((folder / name).read_text()) for name in ("a.json", "b.json"))
    assert first == second


def test_a_file_of_figures_is_replaced_with_force_only(folder):
    same, old = ("compare", folder / "a.json", folder / "a.json"), (folder / "a.json").read_bytes()
    for command in (same, ("quality", "--model", "none")):  # reported before the model is searched
        refused = bench(*command, "--json", folder / "a.json")
        assert refused.exit_code == 1 and "already exists" in refused.output
        assert (folder / "a.json").read_bytes() == old
    new = folder / "d.json"
    for command in ((*same, "--json", new, "--force"), ("compare", "--force", *same[1:], "--json", new)):
        new.write_text("old")
        assert bench(*command).exit_code == 0 and new.read_text() != "old"


def test_products_in_fp8_are_measured_next_to_exact_ones(tmp_path):
    done = bench(
        *(
            "approximations",
            "--model",
            "tiny-random",
            "--n",
            1,
            "--steps",
            4,
            "--size",
            64,
            "--device",
            "cpu",
        ),
        *("--fp8", "--json", tmp_path / "a.json"),
    )
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert 0 < rows["fp8"]["test"]["rms"]["mean"] < 10 and "fewer steps in the time of fp8" in rows


def test_compare(folder):
    done = bench("compare", folder / "a.json", folder / "a.json", "--json", folder / "c.json")
    assert done.exit_code == 0 and "no proven difference" in done.output and "better" not in done.output
    assert json.loads((folder / "c.json").read_text())["oracle"]["test"]["success"]["mean"] == 0


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["quality", "--split", "train"], "split must be all or one of"),
        (["quality", "--steps", "four"], "steps 'four'"),
        (["quality", "--rows", "magic", "--model", "tiny-random"], "row 'magic'"),
        (["quality", "--resume", "--rows", "copy"], "--report"),
        (["drift", "--rows", "random"], "row must be all or one of"),
        (["speed", "--against", "others"], "diffusers"),
        (["kontextbench", ".", "--against", "."], "--judge"),
        (["quality", "--model", "no-such-model"], "no-such-model"),
        (["speed", "--fp8", "--against", "diffusers"], "omit --fp8"),
        (["speed", "--compile", "--against", "diffusers"], "omit --compile"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(wrong, said):
    done = bench(*wrong)
    assert done.exit_code == 1 and said in done.output and len(done.output.strip().splitlines()) == 1
