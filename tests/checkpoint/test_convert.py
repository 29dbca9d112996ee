"""Saved, converted and quantized models are the same models; a failed save leaves what was there."""

import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from kontext.checkpoint import load_model, save_diffusers, save_model
from kontext.checkpoint.convert import convert, quantize
from kontext.checkpoint.gguf_files import read_gguf
from kontext.errors import BadCheckpoint, BadRequest
from support.tiny_model import same_weights


def test_prefix_models_are_not_written_for_diffusers(tmp_path):
    model = load_model("tiny-random")
    with pytest.raises(BadRequest, match="context_attention"):
        save_diffusers(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["scale_weight", "weight_scale"])
def test_scaled_fp8_is_expanded(tiny, folders, tmp_path, key):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    path = tmp_path / "m" / "transformer.safetensors"
    tensors = load_file(path)
    exact = tensors["txt_in.weight"]
    scale = exact.abs().max() / 448
    tensors["txt_in.weight"] = (exact / scale).to(torch.float8_e4m3fn)
    tensors[f"txt_in.{key}"] = scale
    tensors["scaled_fp8"] = torch.zeros(2)
    save_file(tensors, path)
    loaded = load_model(tmp_path / "m").transformer.txt_in.weight
    assert (
        loaded - exact
    ).norm() / exact.norm() < 0.05  # three bits of mantissa: 2^-4 at most, less on average
    assert not torch.equal(loaded, exact)


def test_unknown_quantized_forms_are_refused(folders, tmp_path):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    path = tmp_path / "m" / "transformer.safetensors"
    tensors = load_file(path)
    tensors["txt_in.weight"] = tensors["txt_in.weight"].to(torch.int8)
    tensors["txt_in.weight_scale"] = torch.ones(64)
    save_file(tensors, path)
    with pytest.raises(BadCheckpoint, match="txt_in.weight: stored in a quantized format"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "BF16"])
def test_gguf_is_near_and_smaller(tiny, folders, tmp_path, kind):
    pytest.importorskip("gguf")
    shutil.copytree(folders["bfl"], tmp_path / "m")
    path = tmp_path / "m" / "model.gguf"
    quantize(folders["kontext"], path, kind)
    size = {"Q8_0": 8.5, "Q4_0": 4.5, "BF16": 16}[kind] / 32  # bits per weight, scales of the blocks included
    full = (tmp_path / "m" / "transformer.safetensors").stat().st_size
    assert size < path.stat().st_size / full < size + 0.05
    model = load_model(path)
    error = {"Q8_0": 0.01, "Q4_0": 0.12, "BF16": 0.004}[kind]
    for name, tensor in tiny.transformer.state_dict().items():
        loaded = model.transformer.state_dict()[name]
        assert (loaded - tensor).norm() <= error * tensor.norm(), name
        assert tensor.ndim > 1 or torch.equal(loaded, tensor)


def test_our_folder_may_hold_its_transformer_as_gguf(tiny, folders, tmp_path):
    pytest.importorskip("gguf")
    shutil.copytree(folders["kontext"], tmp_path / "m")
    (tmp_path / "m" / "transformer.safetensors").unlink()
    quantize(folders["kontext"], tmp_path / "m" / "transformer.gguf", "Q8_0")
    model = load_model(tmp_path / "m")
    assert (model.transformer.img_in.weight - tiny.transformer.img_in.weight).abs().max() < 0.01


@pytest.mark.parametrize(
    "number, words", [(struct.pack("<I", 99), "GGUF of version 99"), (struct.pack(">I", 3), "big-endian")]
)
def test_other_versions_of_gguf_are_named(tmp_path, number, words):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + number + bytes(64))
    with pytest.raises(BadCheckpoint, match=f"m.gguf: .*{words}.*version 2 and 3, little-endian"):
        read_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize("cut", [0, 10, 2000, -1000])
def test_damaged_gguf_is_refused(folders, tmp_path, cut):
    pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    quantize(folders["kontext"], path, "Q8_0")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadCheckpoint, match="model.gguf"):
        load_model(path)


def test_a_failed_save_leaves_the_former_model_whole(tiny, folders, tmp_path, monkeypatch):
    target = tmp_path / "m"
    shutil.copytree(folders["kontext"], target)
    (target / "README.md").write_text("the model card")
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def full_disk(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kontext.checkpoint.save._write_json", full_disk)  # after all weights are written
        with pytest.raises(OSError, match="no space"):
            save_model(load_model("tiny-random"), target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]

    save_model(load_model("tiny-random"), target)
    assert load_model(target).preset.name == "tiny"
    assert (target / "README.md").read_text() == "the model card"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_saving_never_replaces_a_folder_of_other_things(tiny, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"meow")
    with pytest.raises(BadRequest, match="other things than a model"):
        save_model(tiny, tmp_path / "photos")
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "cat.png"]


@pytest.mark.parametrize("layout", ["bfl", "diffusers"])
def test_one_part_converts_there_and_back(tiny, folders, tmp_path, layout):
    convert(folders["bfl"] / "ae.safetensors", tmp_path / "there.safetensors", layout)
    back = convert(tmp_path / "there.safetensors", tmp_path / "back.safetensors", "bfl").parts["autoencoder"]
    ours = tiny.weights()["autoencoder"]
    assert back.weights.keys() == ours.keys()
    assert all(torch.equal(back.weights[name].read(), tensor.read()) for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("source", "to"), [("kontext", "diffusers"), ("diffusers", "bfl"), ("bfl", "kontext")]
)
def test_whole_models_convert(tiny, folders, tmp_path, source, to):
    assert convert(folders[source], tmp_path / "m", to).absent == []
    assert same_weights(load_model(tmp_path / "m"), tiny)
    with pytest.raises(BadRequest, match="is there already"):
        convert(folders[source], tmp_path / "m", to)
