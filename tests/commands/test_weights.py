"""`kontext weights` as a user sees it."""

import json

import pytest
from typer.testing import CliRunner

from kontext.cli import app

RUNNER = CliRunner()


def weights(*arguments) -> str:
    result = RUNNER.invoke(app, ["weights", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("layout", ["kontext", "diffusers", "bfl"])
def test_inspect_tells_layout_sizes_and_fit(tiny, folders, layout):
    data = json.loads(weights("inspect", folders[layout], "--json"))
    assert (data["layout"], data["model"], data["absent"], data["warnings"]) == (layout, "tiny-full", [], [])
    for part, told in data["parts"].items():
        assert told["parameters"] == sum(p.numel() for p in getattr(tiny, part).parameters())
        assert told["types"] == {"float32": told["parameters"]}
        assert told["fits"] and not told["missing"]
    assert len(data["parts"]) == 4
    text = weights("inspect", folders[layout])
    assert f"{data['parts']['t5']['parameters']:,} parameters" in text


def test_inspect_of_one_part_tells_what_is_absent(folders):
    data = json.loads(weights("inspect", folders["bfl"] / "ae.safetensors", "--json"))
    assert list(data["parts"]) == ["autoencoder"]
    assert data["absent"] == ["transformer", "t5", "clip", "tokenizer of t5", "tokenizer of clip"]


def test_convert_and_quantize_tell_what_they_wrote(folders, tmp_path):
    data = json.loads(weights("convert", folders["diffusers"], tmp_path / "m", "--to", "bfl", "--json"))
    assert (data["layout"], data["absent"]) == ("bfl", [])
    pytest.importorskip("gguf")
    data = json.loads(weights("quantize", tmp_path / "m", tmp_path / "m.gguf", "--json"))
    assert data["layout"] == "gguf"
    assert set(data["parts"]["transformer"]["types"]) == {"Q8_0", "float32"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect", "no-such"], "no model 'no-such'"),
        (["convert", "{bfl}", "{tmp}/m", "--to", "onnx"], "layout 'onnx' is unknown"),
        (["convert", "{bfl}", "{tmp}/m.safetensors", "--to", "bfl"], "give a folder instead"),
        (["convert", "{bfl}/ae.safetensors", "{tmp}/m", "--to", "bfl"], "the transformer, the t5"),
        (["convert", "{bfl}", "{bfl}", "--to", "bfl"], "is there already"),
        (["quantize", "{bfl}", "{tmp}/m.safetensors"], "written as .gguf"),
        (["quantize", "{bfl}", "{tmp}/m.gguf", "--type", "Q1_7"], "cannot quantize to Q1_7"),
        (["quantize", "{bfl}/ae.safetensors", "{tmp}/m.gguf"], "holds no transformer"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(folders, tmp_path, arguments, said):
    filled = [argument.format(bfl=folders["bfl"], tmp=tmp_path) for argument in arguments]
    result = RUNNER.invoke(app, ["weights", *filled])
    assert result.exit_code == 1
    assert said in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
