"""Weights in fewer bits stay as the file has them, and compute what their expanded numbers compute."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kontext.checkpoint import load_model, open_checkpoint, random_model, save_model
from kontext.checkpoint.convert import convert
from kontext.checkpoint.layouts import empty_module
from kontext.checkpoint.names import PARTS, to_diffusers
from kontext.checkpoint.placement import Placement
from kontext.checkpoint.save import preset_text
from kontext.checkpoint.tensors import stored
from kontext.engine import Editor
from kontext.errors import BadCheckpoint
from kontext.model.linear import StoredLinear
from kontext.model.presets import PRESETS
from support import packed_files
from support.packed_files import EXACT, SAFETENSORS_FORMATS, SCALES, WIDE, velocity

EXPANDED = Placement.of(dtype=torch.bfloat16)
PACKED = Placement(dtypes=EXPANDED.dtypes, expanded=False)
IN_THE_FILE = Placement(dtypes=EXPANDED.dtypes, expanded=False, streamed=frozenset(PARTS))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A small model in our own layout: (folder, tensors of its transformer)."""
    folder = tmp_path_factory.mktemp("wide") / "m"
    save_model(random_model(WIDE), folder)
    return folder, load_file(folder / "transformer.safetensors")


def placed(path, placement):
    return load_model(path, place=lambda *_: placement)


def is_linear(name, tensor):
    return tensor.ndim == 2 and name.endswith(".weight")


def edited(model):
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    with Editor(model) as editor:
        return editor.edit(picture, "a hat", seed=1, steps=2, lock=False).picture.tobytes()


def written(folder, tmp_path, numbers, tensors):
    """Two folders: with the transformer's file as given, and with the numbers it stands for in bfloat16."""
    for name, held in (("packed", tensors), ("exact", numbers)):
        shutil.copytree(folder, tmp_path / name)
        if held is not None:
            save_file(held, tmp_path / name / "transformer.safetensors")
    return tmp_path / "packed", tmp_path / "exact"


@pytest.mark.parametrize("format", SAFETENSORS_FORMATS)
def test_a_packed_file_computes_what_its_numbers_compute(wide, tmp_path, format):
    folder, plain = wide
    held, numbers = {}, {}
    for name, tensor in plain.items():
        numbers[name] = tensor.bfloat16()
        if not is_linear(name, tensor):
            held[name] = tensor
            continue
        made, exact = SAFETENSORS_FORMATS[format](tensor)
        held |= {f"{name.removesuffix('.weight')}.{word}": part for word, part in made.items()}
        numbers[name] = exact.bfloat16()
    packed_folder, exact_folder = written(folder, tmp_path, numbers, held)
    exact, packed = placed(exact_folder, EXPANDED), placed(packed_folder, PACKED)
    layers = [layer for layer in packed.transformer.modules() if isinstance(layer, StoredLinear)]
    assert len(layers) == sum(is_linear(*item) for item in plain.items())
    for name, layer in packed.transformer.named_modules():
        if isinstance(layer, StoredLinear):
            expected = numbers[f"{name}.weight"]
            if format in EXACT:
                assert torch.equal(layer.weight, expected), name
            else:  # sums in another order flip roundings to bfloat16: one unit of its 8 bits
                assert (layer.weight.float() - expected.float()).abs().max() <= 2**-7 * expected.abs().max()
    expanded = placed(packed_folder, EXPANDED)
    assert not any(isinstance(layer, StoredLinear) for layer in expanded.transformer.modules())
    made = velocity(packed)
    assert torch.equal(made, velocity(expanded))
    assert torch.equal(made, velocity(placed(packed_folder, IN_THE_FILE)))
    if format in EXACT:
        assert torch.equal(made, velocity(exact))
    if format == "fp8, one scale":
        assert edited(packed) == edited(exact)


@pytest.mark.parametrize("kind", [*SCALES, "BF16", "F16"])
def test_a_gguf_file_computes_what_its_numbers_compute(wide, tmp_path, kind):
    import gguf

    folder, plain = wide
    random = np.random.default_rng(0)
    tensors, numbers = {}, {}
    for name, tensor in plain.items():
        numbers[name] = tensor.bfloat16()
        if not is_linear(name, tensor):
            tensors[name] = ("F32", tensor.numpy())
        elif kind in ("BF16", "F16") or tensor.shape[1] % 256:
            type_ = kind if kind == "BF16" else "F16"
            data = gguf.quants.quantize(tensor.numpy(), gguf.GGMLQuantizationType[type_])
            tensors[name] = (type_, data)
            numbers[name] = tensor.to(torch.float16).bfloat16() if type_ == "F16" else tensor.bfloat16()
        else:
            data = packed_files.random_blocks(kind, *tensor.shape, random)
            tensors[name] = (kind, data)
            numbers[name] = packed_files.blocks_as_numbers(kind, data).bfloat16()
    packed_folder, exact_folder = written(folder, tmp_path, numbers, None)
    (packed_folder / "transformer.safetensors").unlink()
    packed_files.write_gguf(
        packed_folder / "transformer.gguf", tensors, {"kontext.preset": preset_text(WIDE)}
    )
    exact = placed(exact_folder, EXPANDED)
    for placement in (PACKED, EXPANDED, IN_THE_FILE):
        model = placed(packed_folder, placement)
        weights = model.weights()["transformer"]
        for name, expected in numbers.items():
            assert torch.equal(weights[name].read(), expected), name
        assert torch.equal(velocity(model), velocity(exact))
    types = open_checkpoint(packed_folder).parts["transformer"].dtypes
    assert {"BF16": "bfloat16", "F16": "float16"}.get(kind, kind) in types


LLAMA_NAMES = {
    "shared": "token_embd",
    "encoder.final_layer_norm": "enc.output_norm",
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
    "layer.0.layer_norm": "attn_norm",
    "layer.1.layer_norm": "ffn_norm",
    "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up",
    "layer.1.DenseReluDense.wo": "ffn_down",
    **{f"layer.0.SelfAttention.{x}": f"attn_{x}" for x in "qkvo"},
}


@pytest.mark.parametrize("kind", ["Q8_0", "F16"])
def test_t5_as_gguf_has_the_names_of_llama_cpp(wide, tmp_path, kind):
    import gguf

    folder, _ = wide
    model = load_model(folder)
    tensors, expected = {}, {}
    for name, tensor in model.t5.state_dict().items():
        stem = name.removesuffix(".weight")
        block = stem.removeprefix("encoder.block.")
        if block != stem:
            number, _, rest = block.partition(".")
            theirs = f"enc.blk.{number}.{LLAMA_NAMES[rest]}.weight"
        else:
            theirs = f"{LLAMA_NAMES[stem]}.weight"
        # as the published files: matrices quantized, norms and the small table of distances not
        type_ = kind if tensor.ndim == 2 and tensor.shape[1] % 32 == 0 else "F32"
        data = gguf.quants.quantize(tensor.numpy(), gguf.GGMLQuantizationType[type_])
        tensors[theirs] = (type_, data)
        expected[name] = torch.from_numpy(gguf.quants.dequantize(data, gguf.GGMLQuantizationType[type_]))
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "t5.safetensors").unlink()
    packed_files.write_gguf(tmp_path / "m" / "t5.gguf", tensors)
    alone = open_checkpoint(tmp_path / "m" / "t5.gguf", companions=False)
    assert alone.parts["t5"].config.layers == 2
    placement = Placement(dtypes=dict.fromkeys(PARTS, torch.float32), expanded=False)
    loaded = placed(tmp_path / "m", placement)
    for name, tensor in loaded.weights()["t5"].items():
        assert torch.equal(tensor.read().float(), expected[name].reshape(tensor.shape)), name
    ids, *_ = model.token_ids(["make it snow"])
    exact = load_model(folder)
    exact.t5.load_state_dict(
        {name: t.reshape(exact.t5.state_dict()[name].shape) for name, t in expected.items()}
    )
    assert torch.equal(loaded.t5(ids), exact.t5(ids))


def test_queries_keys_and_values_of_diffusers_are_held_in_their_parts(wide, tmp_path):
    folder, _ = wide
    convert(folder, tmp_path / "d", "diffusers", dtype="bfloat16")
    model = placed(tmp_path / "d", IN_THE_FILE)
    attention, single = model.transformer.double_blocks[0].img_attn, model.transformer.single_blocks[0]
    assert len(attention.qkv.parts) == 3 and len(single.linear1.parts) == 4
    last = model.transformer.final_layer.adaLN_modulation[1]  # its halves are exchanged in diffusers
    assert len(last.parts) == 2
    convert(folder, tmp_path / "b", "kontext", dtype="bfloat16")
    expected = placed(tmp_path / "b", EXPANDED)
    for part in PARTS:
        ours, theirs = expected.weights()[part], model.weights()[part]
        assert all(torch.equal(tensor.read(), theirs[name].read()) for name, tensor in ours.items())
    assert model.fingerprint == expected.fingerprint


def test_a_changed_number_is_named_at_its_first_use(wide, tmp_path):
    folder, _ = wide
    shutil.copytree(folder, tmp_path / "m")
    file = tmp_path / "m" / "transformer.safetensors"
    tensors = load_file(file)
    tensors["single_blocks.1.linear2.weight"][3, 3] = float("nan")
    save_file(tensors, file)
    with pytest.raises(
        BadCheckpoint, match="transformer.safetensors: single_blocks.1.linear2.weight holds 1"
    ):
        edited(placed(tmp_path / "m", IN_THE_FILE))


def sparse_dev(path):
    """The header of the full transformer in bfloat16, and a hole instead of its numbers."""
    weights = stored(empty_module("transformer", PRESETS["dev"].transformer).state_dict())
    header, end = {}, 0
    for name, tensor in weights.items():
        start, end = end, end + 2 * tensor.count
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses are Linux's")
def test_a_file_larger_than_the_memory_that_may_be_mapped_is_inspected_and_read(tmp_path):
    path = tmp_path / "flux1-kontext-dev.safetensors"
    sparse_dev(path)
    script = f"""
import resource, torch
from kontext.checkpoint import open_checkpoint
limit = 8 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
weights = open_checkpoint(__import__("pathlib").Path({str(path)!r})).parts["transformer"].weights
assert sum(tensor.bytes for tensor in weights.values()) > 2.5 * limit
for tensor in list(weights.values())[::40]:
    assert tensor.read().shape == tensor.shape
print("read")
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.stdout.strip() == "read", done.stderr


def test_the_fingerprint_of_a_large_model_is_of_samples_and_the_same_in_every_layout(
    wide, tmp_path, monkeypatch
):
    from kontext.checkpoint import fingerprints

    folder, _ = wide
    convert(folder, tmp_path / "d", "diffusers")
    convert(folder, tmp_path / "b", "bfl")
    whole = load_model(folder).fingerprint
    monkeypatch.setattr(fingerprints, "SMALL", 1)
    sampled = {placed(path, IN_THE_FILE).fingerprint for path in (folder, tmp_path / "d", tmp_path / "b")}
    assert len(sampled) == 1 and whole not in sampled
    file = tmp_path / "b" / "transformer.safetensors"
    tensors = load_file(file)
    tensors["single_blocks.1.linear2.weight"][0, 0] += 1
    save_file(tensors, file, {"kontext": preset_text(WIDE)})
    assert placed(tmp_path / "b", IN_THE_FILE).fingerprint not in sampled


def test_a_lora_changes_the_fingerprint_of_a_large_model_without_being_merged(wide, tmp_path, monkeypatch):
    from kontext.checkpoint import fingerprints
    from kontext.checkpoint.fingerprints import fingerprint
    from kontext.checkpoint.lora import merged

    folder, plain = wide
    rows, columns = plain["img_in.weight"].shape
    lora = {"lora_A": torch.ones(1, columns), "lora_B": torch.ones(rows, 1)}
    path = tmp_path / "knit.safetensors"
    save_file({f"transformer.x_embedder.{name}.weight": part for name, part in lora.items()}, path)
    monkeypatch.setattr(fingerprints, "SMALL", 1)
    parts = {name: part.weights for name, part in open_checkpoint(folder).parts.items()}
    made = {scale: fingerprint(merged(parts, [f"{path}:{scale}"])) for scale in (0.5, 1.0)}
    assert len({fingerprint(parts), *made.values()}) == 3
    assert made[0.5] == fingerprint(merged(parts, [f"{path}:0.5"]))


def test_diffusers_names_of_a_model_in_fewer_bits_keep_its_numbers(wide, tmp_path):
    """A packed file converts: q, k and v are cut out of it row by row."""
    folder, plain = wide
    held = {}
    for name, tensor in plain.items():
        if is_linear(name, tensor):
            made, _ = packed_files.fp8_by_row(tensor)
            held |= {f"{name.removesuffix('.weight')}.{word}": part for word, part in made.items()}
        else:
            held[name] = tensor
    packed_folder, _ = written(folder, tmp_path, None, held)
    weights = open_checkpoint(packed_folder).parts["transformer"].weights
    cut = to_diffusers("transformer", weights)
    q, k, v = (cut[f"transformer_blocks.0.attn.to_{x}.weight"].read() for x in "qkv")
    assert torch.equal(torch.cat((q, k, v)), weights["double_blocks.0.img_attn.qkv.weight"].read())
