"""Files as other people have them: shards, variants, quantized formats, NaN, other models."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from kontext.checkpoint import load_model, open_checkpoint
from kontext.checkpoint.convert import convert, quantize
from kontext.checkpoint.names import PARTS
from kontext.cli import app
from kontext.errors import BadCheckpoint
from kontext.model.stored import all_finite


def same_weights(model, other) -> bool:
    a, b = model.weights(), other.weights()
    return all(
        torch.equal(tensor.read(), b[part][name].read()) for part in PARTS for name, tensor in a[part].items()
    )


def refused(path, *said, **settings):
    """The message, after a check that it is one line of ours."""
    with pytest.raises(BadCheckpoint) as error:
        load_model(path, **settings)
    line = str(error.value)
    assert "\n" not in line and len(line) < 600, line
    for words in ("Error(", "object has no", "NoneType", "Traceback", "unpack", "got an unexpected"):
        assert words not in line, line
    assert all(word in line for word in said), line
    return line


@pytest.fixture
def sharded(folders, tmp_path):
    """A diffusers folder whose transformer is in three shards with an index: the transformer's folder."""
    shutil.copytree(folders["diffusers"], tmp_path / "m")
    home = tmp_path / "m" / "transformer"
    tensors = load_file(home / "diffusion_pytorch_model.safetensors")
    (home / "diffusion_pytorch_model.safetensors").unlink()
    places = {}
    for i in range(3):
        file = f"diffusion_pytorch_model-0000{i + 1}-of-00003.safetensors"
        names = sorted(tensors)[i::3]
        save_file({name: tensors[name] for name in names}, home / file)
        places |= dict.fromkeys(names, file)
    index = home / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return home


def test_the_index_decides_where_a_tensor_comes_from(tiny, sharded):
    shards = sorted(sharded.glob("*.safetensors"))
    first, last = load_file(shards[0]), load_file(shards[2])
    stale = {name: torch.zeros_like(tensor) for name, tensor in first.items()}
    save_file({**last, **stale, "an.extra": torch.ones(2)}, shards[2])
    save_file({name: tensor + 1 for name, tensor in {**first, **last}.items()}, sharded / "old.safetensors")
    assert same_weights(load_model(sharded.parent), tiny)
    # a stale whole file next to a complete index, as an interrupted conversion leaves it
    save_file(stale, sharded / "diffusion_pytorch_model.safetensors")
    assert same_weights(load_model(sharded.parent), tiny)
    assert not open_checkpoint(sharded, companions=False).parts["transformer"].report


def test_missing_shards_and_tensors_are_one_line(sharded):
    index = sharded / "diffusion_pytorch_model.safetensors.index.json"
    whole = json.loads(index.read_text())
    shard = sorted(sharded.glob("*.safetensors"))[1]
    whole["weight_map"]["no.such.tensor"] = shard.name
    index.write_text(json.dumps(whole))
    refused(sharded.parent, "no.such.tensor", shard.name, index.name)
    for weight_map in ({}, [], {"x": 3}, {"x": "../../../etc/passwd"}, {"x": "gone.safetensors"}, None):
        index.write_text(json.dumps({"weight_map": weight_map}))
        refused(sharded.parent)
    index.unlink()
    refused(sharded.parent, "shards without their")
    refused(shard, "shard 2 of 3")


@pytest.mark.parametrize("variant", ["fp16", "bf16", "ema"])
def test_variants_of_diffusers_folders_are_read(tiny, folders, sharded, variant):
    model = sharded.parent
    for folder, stem in (
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("text_encoder_2", "model"),
    ):
        (model / folder / f"{stem}.safetensors").rename(model / folder / f"{stem}.{variant}.safetensors")
    index = sharded / "diffusion_pytorch_model.safetensors.index.json"
    text = index.read_text()
    for shard in sorted(sharded.glob("*.safetensors")):
        named = shard.name.replace("model-", f"model.{variant}-")
        text = text.replace(shard.name, named)
        shard.rename(sharded / named)
    index.unlink()
    (sharded / f"diffusion_pytorch_model.safetensors.index.{variant}.json").write_text(text)
    assert same_weights(load_model(model), tiny)


def test_a_complete_file_is_preferred_to_its_variant(tiny, folders, tmp_path):
    shutil.copytree(folders["diffusers"], tmp_path / "m")
    file = tmp_path / "m" / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(
        {name: t.half() for name, t in load_file(file).items()},
        file.with_name("diffusion_pytorch_model.fp16.safetensors"),
    )
    assert same_weights(load_model(tmp_path / "m"), tiny)


def test_sft_files_are_safetensors(tiny, folders, tmp_path):
    shutil.copytree(folders["bfl"], tmp_path / "m")
    for file in (tmp_path / "m").glob("*.safetensors"):
        file.rename(file.with_suffix(".sft"))
    for path in (tmp_path / "m", tmp_path / "m" / "transformer.sft"):
        assert same_weights(load_model(path), tiny)


def poisoned(tensor, value, dtype):
    return tensor.float().flatten().index_fill(0, torch.tensor(3), value).reshape(tensor.shape).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (d, v)
        for d in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        for v in ("nan", "inf", "-inf")
    ]
    + [(torch.float8_e4m3fn, "nan"), (torch.float8_e5m2, "nan"), (torch.float8_e5m2, "inf")],
)
def test_nan_and_infinity_are_named_in_every_type(folders, tmp_path, dtype, value):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    file = tmp_path / "m" / "transformer.safetensors"
    tensors = load_file(file)
    name = "single_blocks.1.linear2.weight"
    tensors[name] = poisoned(tensors[name], float(value), dtype)
    save_file(tensors, file)
    refused(tmp_path / "m", f"transformer.safetensors: {name} holds 1 numbers")
    with pytest.raises(BadCheckpoint, match=name):
        convert(tmp_path / "m", tmp_path / "out", "bfl")
    assert not (tmp_path / "out").exists()


def test_the_name_in_a_message_is_the_one_in_the_file(folders, sharded):
    shard = sorted(sharded.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    name = next(name for name in tensors if "attn.to_" in name or "attn.add_" in name)
    tensors[name] = poisoned(tensors[name], float("nan"), torch.float32)
    save_file(tensors, shard)
    refused(sharded.parent, f"{name} holds")


@pytest.mark.parametrize("part", ["autoencoder", "t5", "clip"])
def test_nan_is_found_in_every_part(folders, tmp_path, part):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    file = tmp_path / "m" / f"{part}.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name] = poisoned(tensors[name], float("inf"), torch.float32)
    save_file(tensors, file)
    refused(tmp_path / "m", f"{part}.safetensors: {name} holds")


def test_nan_in_scales_and_gguf_is_found(folders, tmp_path):
    pytest.importorskip("gguf")
    shutil.copytree(folders["kontext"], tmp_path / "m")
    file = tmp_path / "m" / "transformer.safetensors"
    good = load_file(file)
    fp8 = good["txt_in.weight"].to(torch.float8_e4m3fn)
    save_file({**good, "txt_in.weight": fp8, "txt_in.weight_scale": torch.tensor(float("nan"))}, file)
    refused(tmp_path / "m", "txt_in.weight holds")
    save_file(good, file)
    quantize(tmp_path / "m", tmp_path / "m" / "transformer.gguf", "Q8_0")
    file.unlink()
    data = bytearray((tmp_path / "m" / "transformer.gguf").read_bytes())
    data[-2:] = b"\xff\x7f"  # the last tensor ends with a number whose exponent is all ones, or a scale does
    (tmp_path / "m" / "transformer.gguf").write_bytes(data)
    import gguf

    last = max(
        gguf.GGUFReader(tmp_path / "m" / "transformer.gguf").tensors, key=lambda tensor: tensor.data_offset
    )
    if last.tensor_type.name in ("F32", "F16"):
        refused(tmp_path / "m", f"{last.name} holds")


def test_all_finite_looks_twice_where_a_sum_overflows():
    assert all_finite(torch.full((100,), 60000.0, dtype=torch.float16))
    assert all_finite(torch.full((9,), 3e38))
    assert all_finite(torch.zeros(0)) and all_finite(torch.zeros(0, dtype=torch.float8_e5m2))
    assert all_finite(torch.tensor([448.0, -448.0]).to(torch.float8_e4m3fn))
    assert all_finite(torch.tensor([57344.0, -57344.0]).to(torch.float8_e5m2))
    assert all_finite(torch.arange(5))


def test_fp8_with_a_scale_for_each_row_is_expanded(tiny, folders, tmp_path):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    file = tmp_path / "m" / "transformer.safetensors"
    tensors = load_file(file)
    exact = tensors["txt_in.weight"]
    scale = exact.abs().amax(1, keepdim=True) / 448
    note = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    tensors["txt_in.weight"] = (exact / scale).to(torch.float8_e4m3fn)
    for shape in ((-1, 1), (-1,)):
        held = {**tensors, "txt_in.weight_scale": scale.reshape(shape), "txt_in.comfy_quant": note}
        save_file(held, file)
        loaded = load_model(tmp_path / "m").transformer.txt_in.weight
        # e4m3 has 3 bits of mantissa: relative error at most 2^-4, and bfloat16 adds 2^-9
        assert ((loaded - exact).abs() <= 0.07 * exact.abs() + scale / 256).all()


FORMS = {
    "NF4": ("txt_in.weight.quant_state.bitsandbytes__nf4", torch.uint8),
    "FP4": ("txt_in.weight.quant_state.bitsandbytes__fp4", torch.uint8),
    "bitsandbytes int8": ("txt_in.SCB", torch.float32),
    "SVDQuant": ("single_blocks.0.linear1.qweight", torch.int8),
    "NVFP4": ("txt_in.weight_scale_2", torch.float32),
    "quanto": ("txt_in.weight._data", torch.int8),
    "one scale for each block": ("txt_in.weight_scale_inv", torch.float32),
}


@pytest.mark.parametrize("format", FORMS)
def test_quantized_formats_that_cannot_be_read_are_named(folders, tmp_path, format):
    shutil.copytree(folders["bfl"], tmp_path / "m")
    file = tmp_path / "m" / "transformer.safetensors"
    name, dtype = FORMS[format]
    save_file({**load_file(file), name: torch.ones(4, dtype=dtype)}, file)
    for path in (tmp_path / "m", file):
        refused(path, format, "bfloat16, fp8", "transformer.safetensors")


@pytest.mark.parametrize("format", ["nvfp4", "mxfp8", "int8_tensorwise"])
def test_the_format_that_comfyui_notes_is_named(folders, tmp_path, format):
    shutil.copytree(folders["bfl"], tmp_path / "m")
    file = tmp_path / "m" / "transformer.safetensors"
    note = torch.tensor(list(json.dumps({"format": format}).encode()), dtype=torch.uint8)
    extra = {"txt_in.comfy_quant": note, "txt_in.weight_scale": torch.ones(1)}
    save_file({**load_file(file), "txt_in.weight": torch.ones(96, 32, dtype=torch.uint8), **extra}, file)
    refused(file, format, "txt_in.weight")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_for_weights_are_refused(folders, tmp_path, dtype):
    shutil.copytree(folders["kontext"], tmp_path / "m")
    file = tmp_path / "m" / "transformer.safetensors"
    tensors = load_file(file)
    tensors["txt_in.weight"] = tensors["txt_in.weight"].to(dtype)
    save_file(tensors, file)
    refused(tmp_path / "m", "of wrong type: txt_in.weight holds")


def t(*shape):
    return torch.zeros(shape)


UNET = "input_blocks.4.1.transformer_blocks.0.attn2.to_k"
NEIGHBORS = {
    "Stable Diffusion XL": {
        f"model.diffusion_model.{UNET}.weight": t(8, 2048),
        "first_stage_model.decoder.up.0.x": t(1),
    },
    "Stable Diffusion 1.5": {
        f"model.diffusion_model.{UNET}.weight": t(8, 768),
        "first_stage_model.decoder.up.0.x": t(1),
    },
    "Stable Diffusion 2": {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": t(8, 1024)},
    "Stable Diffusion 3": {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": t(8, 8)},
    "FLUX.2": {
        "double_stream_modulation_img.lin.weight": t(8, 8),
        "double_blocks.0.img_attn.qkv.weight": t(8, 8),
    },
    "Chroma": {
        "distilled_guidance_layer.in_proj.weight": t(8, 8),
        "double_blocks.0.img_attn.qkv.weight": t(8, 8),
    },
    "Qwen-Image": {"transformer_blocks.0.img_mod.1.weight": t(8, 8), "txt_norm.weight": t(8)},
    "a ControlNet for FLUX.1": {
        "controlnet_blocks.0.weight": t(8, 8),
        "transformer_blocks.0.attn.to_q.weight": t(8, 8),
    },
    "a ControlNet for Stable Diffusion": {"control_model.input_blocks.0.0.weight": t(8, 8)},
    "Redux": {"redux_up.weight": t(8, 8), "redux_down.weight": t(8, 8)},
    "IP-Adapter": {"image_proj.proj.weight": t(8, 8), "ip_adapter.1.to_k_ip.weight": t(8, 8)},
    "autoencoder of Stable Diffusion": {
        "decoder.conv_in.weight": t(8, 4, 3, 3),
        "decoder.up.0.block.0.conv1.weight": t(8, 8, 3, 3),
    },
    "autoencoder of FLUX.2": {
        "decoder.conv_in.weight": t(8, 32, 3, 3),
        "decoder.up.0.block.0.conv1.weight": t(8, 8, 3, 3),
    },
    "tiny autoencoder": {"encoder.layers.0.weight": t(8, 3, 3, 3), "decoder.layers.1.weight": t(8, 8, 3, 3)},
    "CLIP image encoder": {"vision_model.encoder.layers.0.mlp.fc1.weight": t(8, 8)},
    "larger CLIP": {f"text_model.encoder.layers.{i}.mlp.fc1.weight": t(2, 2) for i in range(32)},
    "large language model": {"model.layers.0.self_attn.q_proj.weight": t(8, 8)},
    "embedding": {"emb_params": t(2, 768)},
    "LoRA for FLUX.1": {
        f"lora_unet_double_blocks_0_img_attn_qkv.lora_{w}.weight": t(4, 4) for w in ("up", "down")
    },
    "LoRA for Stable Diffusion XL": {f"lora_unet_{UNET.replace('.', '_')}.lora_down.weight": t(4, 2048)},
    "LoRA for Qwen-Image": {"transformer_blocks.0.img_mod.1.lora_A.weight": t(4, 8)},
}


@pytest.mark.parametrize("name", NEIGHBORS)
def test_other_models_are_named(tmp_path, name):
    save_file(NEIGHBORS[name], tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", name)


def test_a_foreign_pipeline_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    refused(tmp_path, "StableDiffusionXLPipeline", "FluxKontextPipeline")


def inspect(path, *options):
    result = CliRunner().invoke(app, ["weights", "inspect", str(path), *options])
    return result.exit_code, result.stdout + result.stderr


def test_inspect_describes_a_lora(tmp_path):
    stem = "transformer_blocks.0.attn.to_q"
    tensors = {
        f"transformer.{stem}.lora_A.weight": t(4, 8),
        f"transformer.{stem}.lora_B.weight": t(8, 4),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": t(2, 8),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight": t(8, 2),
        "bundle_emb.knit.string_to_param.*": t(1, 8),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"transformer.lora_alpha": "8"})
    code, text = inspect(tmp_path / "x.safetensors")
    assert code == 0 and "LoRA for FLUX.1" in text and "rank         2, 4" in text and "bundle_emb" in text
    code, text = inspect(tmp_path / "x.safetensors", "--json")
    data = json.loads(text)
    assert (data["kind"], data["model"], data["alpha"]) == ("LoRA", "FLUX.1", "configuration")
    assert data["modules"] == {"transformer": 1, "clip": 1}


def test_inspect_names_a_neighbor_in_one_line(tmp_path):
    save_file(NEIGHBORS["Stable Diffusion XL"], tmp_path / "x.safetensors")
    code, text = inspect(tmp_path / "x.safetensors")
    assert code == 1 and "Stable Diffusion XL" in text and len(text.strip().splitlines()) == 1
