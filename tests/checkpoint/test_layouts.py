"""The same model in every layout; what does not fit, is damaged or could run code is refused in one line."""

import dataclasses
import json
import pickle
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, FluxKontextPipeline, FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kontext.checkpoint import fingerprint, load_model, open_checkpoint
from kontext.checkpoint.layouts import MODULES, empty_module
from kontext.checkpoint.names import PARTS, to_diffusers
from kontext.checkpoint.tensors import stored
from kontext.errors import BadCheckpoint, NotFound
from kontext.model.presets import PRESETS
from kontext.model.tokens import picture_ids
from support.numeric import difference, rounding
from support.tiny_model import same_weights


@pytest.mark.parametrize("layout", ["kontext", "diffusers", "bfl"])
def test_every_layout_loads_bit_equal(tiny, folders, layout):
    model = load_model(folders[layout])
    assert same_weights(model, tiny)
    assert model.preset == tiny.preset
    assert model.fingerprint == tiny.fingerprint
    assert not model.warnings
    assert all(
        not p.is_meta and not p.requires_grad for part in PARTS for p in getattr(model, part).parameters()
    )
    prompts = ["Make the hair blue", "把头发变成蓝色" * 9]
    for ours, expected in zip(model.token_ids(prompts), tiny.token_ids(prompts)):
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(expected))


def test_single_file_finds_what_lies_beside_it(tiny, folders):
    assert same_weights(load_model(folders["bfl"] / "transformer.safetensors"), tiny)


def test_parts_are_found_in_folders_as_comfyui_has_them(tiny, folders, tmp_path):
    for folder, file in (
        ("diffusion_models", "transformer.safetensors"),
        ("vae", "ae.safetensors"),
        ("text_encoders", "t5xxl.safetensors"),
        ("clip", "clip_l.safetensors"),
    ):
        (tmp_path / folder).mkdir()
        shutil.copy(folders["bfl"] / file, tmp_path / folder)
    for folder in ("tokenizer", "tokenizer_2"):
        shutil.copytree(folders["bfl"] / folder, tmp_path / "diffusion_models" / folder)
    assert same_weights(load_model(tmp_path / "diffusion_models" / "transformer.safetensors"), tiny)


def test_prefixed_file_loads(tiny, folders, tmp_path):
    shutil.copytree(folders["bfl"], tmp_path / "m")
    held = load_file(tmp_path / "m" / "transformer.safetensors")
    with safe_open(tmp_path / "m" / "transformer.safetensors", "pt") as file:
        metadata = file.metadata()
    prefixed = {f"model.diffusion_model.{name}": tensor for name, tensor in held.items()}
    save_file(prefixed, tmp_path / "m" / "transformer.safetensors", metadata)
    assert same_weights(load_model(tmp_path / "m"), tiny)


@torch.no_grad()
def test_our_folder_runs_in_diffusers_with_the_same_output(tiny, folders):
    pipeline = FluxKontextPipeline.from_pretrained(folders["diffusers"])
    pipeline.set_progress_bar_config(disable=True)
    prompts = ["Make the hair blue", "a red ball"]
    ids, ids_clip, _ = tiny.token_ids(prompts)
    states, pooled, text_ids = pipeline.encode_prompt(prompts, None, max_sequence_length=64)
    # Each network has 2 to 4 layers, whose products and attention sum over some 500 numbers.
    assert difference(tiny.t5(ids), states, size=1) <= 2 * rounding(4 * 500)
    assert difference(tiny.clip(ids_clip), pooled, size=1) <= 2 * rounding(4 * 500)

    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 16, 64, generator=generator)
    times, guidance = torch.tensor([0.9, 0.1]), torch.tensor([2.5, 1.0])
    expected = pipeline.transformer(
        hidden_states=target,
        encoder_hidden_states=states,
        pooled_projections=pooled,
        timestep=times,
        guidance=guidance,
        img_ids=picture_ids(0, 4, 4),
        txt_ids=text_ids,
    ).sample
    velocity = tiny.transformer(target, states, pooled, times, guidance, picture_ids(0, 4, 4))
    assert difference(velocity, expected, size=1) <= 2 * rounding(4 * 500)

    pixels = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    latents = pipeline.vae.encode(pixels).latent_dist.mode()
    config = tiny.preset.autoencoder
    expected = config.scale * (latents - config.shift)
    made = tiny.autoencoder.encode(pixels)
    assert difference(made, expected, size=1) <= rounding(
        25 * 9 * 64
    )  # 25 convolutions over up to 64 channels


def test_sharded_diffusers_folder_loads(tiny, folders, tmp_path):
    shutil.copytree(folders["diffusers"], tmp_path / "m")
    for name, kind in (("transformer", FluxTransformer2DModel), ("vae", AutoencoderKL)):
        network = kind.from_pretrained(tmp_path / "m" / name)
        shutil.rmtree(tmp_path / "m" / name)
        network.save_pretrained(tmp_path / "m" / name, max_shard_size="100KB")
        assert len(list((tmp_path / "m" / name).glob("*.safetensors"))) > 1
    assert same_weights(load_model(tmp_path / "m"), tiny)

    # the published folder also holds the transformer as one BFL file, with the rest in the folders next to it
    shutil.copy(folders["bfl"] / "transformer.safetensors", tmp_path / "m" / "flux1-kontext-dev.safetensors")
    assert same_weights(load_model(tmp_path / "m" / "flux1-kontext-dev.safetensors"), tiny)

    shard = sorted((tmp_path / "m" / "transformer").glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(BadCheckpoint, match=shard.name):
        load_model(tmp_path / "m")


def test_component_folder_and_file_of_diffusers_are_recognised(tiny, folders):
    for path in ("transformer", "vae", "vae/diffusion_pytorch_model.safetensors", "text_encoder_2"):
        found = open_checkpoint(folders["diffusers"] / path, companions=False)
        [part] = found.parts.values()
        assert not part.report, str(part.report)


def test_a_part_of_our_folder_is_recognised_alone(folders):
    for part in PARTS:
        found = open_checkpoint(folders["kontext"] / f"{part}.safetensors", companions=False)
        assert found.preset.name == "tiny-full" and not found.parts[part].report


@pytest.mark.parametrize("part", ["transformer", "autoencoder"])
@pytest.mark.parametrize("layout", ["bfl", "diffusers"])
def test_dev_is_recognised_by_shapes_alone(tmp_path, part, layout):
    """Files of the real size, with a hole instead of numbers: nothing of them is read."""
    weights = stored(empty_module(part, getattr(PRESETS["dev"], part)).state_dict())
    names = to_diffusers(part, weights) if layout == "diffusers" else weights
    path = tmp_path / "flux1-kontext-dev.safetensors"
    header, end = {}, 0
    for name, tensor in names.items():
        start, end = end, end + 2 * tensor.count
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    found = open_checkpoint(path)
    assert found.preset == PRESETS["dev"]
    assert not found.parts[part].report
    assert found.parts[part].parameters == sum(tensor.count for tensor in weights.values())
    assert not found.warnings
    unnamed = path.rename(tmp_path / "flux.safetensors")
    assert bool(open_checkpoint(unnamed).warnings) == (part == "transformer")  # what was assumed is said


def test_other_tools_of_flux_are_named(folders, tmp_path):
    config = dataclasses.replace(
        PRESETS["tiny"].transformer, in_channels=384, width=128, heads=1, axes=(16, 56, 56)
    )
    save_file(MODULES["transformer"](config).state_dict(), tmp_path / "fill.safetensors")
    with pytest.raises(BadCheckpoint, match="384 channels, like FLUX.1 Fill"):
        open_checkpoint(tmp_path / "fill.safetensors")


def test_report_names_a_handful_and_shows_both_shapes(folders, tmp_path):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    path = tmp_path / "m" / "transformer.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.startswith("double_blocks")]:
        del tensors[name]
    tensors["img_in.weight"] = torch.zeros(96, 63)
    tensors["surprise"] = torch.zeros(1)
    save_file(tensors, path)
    with pytest.raises(BadCheckpoint) as error:
        load_model(tmp_path / "m")
    line = str(error.value)
    assert "\n" not in line
    assert "24 missing: double_blocks.0." in line and "and 20 more" in line
    assert "1 unexpected: surprise" in line
    assert "img_in.weight is 96x63, must be 96x64" in line


def damaged(folder, kind):
    path = folder / "transformer.safetensors"
    data = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "header":
        path.write_bytes(b"\xff" * 8 + data[8:])
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1")
    elif kind == "other model":
        save_file({"layers.0.weight": torch.zeros(3)}, path)
    return path


@pytest.mark.parametrize("kind", ["empty", "truncated", "header", "text", "other model"])
@pytest.mark.parametrize("layout", ["kontext", "bfl"])
def test_damaged_files_are_one_clear_line(folders, tmp_path, layout, kind):
    shutil.copytree(folders[layout], tmp_path / "m")
    path = damaged(tmp_path / "m", kind)
    with pytest.raises(BadCheckpoint) as error:
        load_model(tmp_path / "m" if layout == "kontext" else path)
    assert "transformer.safetensors" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pkl"])
def test_files_that_can_run_code_are_never_opened(tmp_path, suffix):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadCheckpoint, match="can run code"):
        load_model(path)
    assert not (tmp_path / "boom").exists()


def test_a_diffusers_folder_with_pickles_only_is_refused(folders, tmp_path):
    shutil.copytree(folders["diffusers"], tmp_path / "m")
    file = tmp_path / "m" / "vae" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(BadCheckpoint, match="can run code"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("name", ["config.json", "ae.safetensors", "notes.txt"])
def test_a_folder_without_a_model_is_told(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(BadCheckpoint) as refused:
        open_checkpoint(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: not a model: a folder with no model_index.json, no config.json of a model and no "
        ".safetensors file or .gguf file of a transformer"
    )


def test_a_lone_transformer_says_what_to_bring(folders, tmp_path):
    shutil.copy(folders["bfl"] / "transformer.safetensors", tmp_path)
    with pytest.raises(BadCheckpoint, match="missing the autoencoder, .*ae.safetensors, clip_l.safetensors"):
        load_model(tmp_path / "transformer.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["preset"]["transformer"].update(colour=3), "colour"),
        (lambda data: data["preset"]["transformer"].pop("width"), "width"),
        (lambda data: data["preset"]["transformer"].update(heads=7), "axes"),
        (lambda data: data["preset"].update(t5=5), "T5Config"),
        (lambda data: data.update(version=9), "version"),
        (lambda data: data.pop("preset"), "Preset"),
    ],
)
def test_impossible_config_is_refused(folders, tmp_path, change, said):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    config = tmp_path / "m" / "config.json"
    data = json.loads(config.read_text())
    change(data)
    config.write_text(json.dumps(data))
    with pytest.raises(BadCheckpoint, match=said):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_damaged_json_is_refused(folders, tmp_path, name):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    (tmp_path / "m" / name).write_text('{"format": ')
    with pytest.raises(BadCheckpoint, match=name):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("name", ["no-such-model", "../nano", "/no/such/file.safetensors", ""])
def test_unknown_models_are_named(name):
    with pytest.raises((NotFound, BadCheckpoint)) as error:
        load_model(name)
    assert "\n" not in str(error.value)


def test_a_random_model_is_always_the_same_and_leaves_the_global_seed_alone():
    torch.manual_seed(5)
    model = load_model("tiny-random")
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert load_model("tiny-random").fingerprint == model.fingerprint
    assert load_model("nano-random").preset.name == "nano"
    with pytest.raises(NotFound):
        load_model("huge-random")


def test_fingerprint_is_of_the_stored_weights(tiny, folders):
    low = load_model(folders["kontext"], dtype=torch.bfloat16)
    assert low.transformer.img_in.weight.dtype == torch.bfloat16
    assert low.fingerprint == tiny.fingerprint
    weights = tiny.weights()
    changed = {**weights["clip"]}
    name = next(iter(changed))
    changed.update(stored({name: changed[name].read().clone().index_fill_(0, torch.tensor(0), 9.0)}))
    assert fingerprint({**weights, "clip": changed}) != tiny.fingerprint


def test_float16_leaves_t5_in_bfloat16(folders):
    model = load_model(folders["kontext"], dtype=torch.float16)
    assert model.transformer.img_in.weight.dtype == torch.float16
    assert model.t5.shared.weight.dtype == torch.bfloat16
