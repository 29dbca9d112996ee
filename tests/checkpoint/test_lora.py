"""LoRA files of every dialect change the same weights as in `diffusers`; what does not fit is refused."""

import json

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from numeric import difference, rounding
from safetensors.torch import save_file

from kontext.checkpoint import load_model
from kontext.checkpoint.convert import convert
from kontext.checkpoint.lora import merged, parse, write_lora
from kontext.checkpoint.names import diffusers_stems
from kontext.checkpoint.tensors import stored
from kontext.engine import Editor
from kontext.errors import BadCheckpoint, BadRequest, NotFound

RANK, ALPHA = 3, 6.0
ROUNDED = rounding(64)  # of weights up to 1: sums over the rank, the scale, and the sum with the weight


def random(generator, *shape):
    return 0.1 * torch.randn(shape, generator=generator)


@pytest.fixture(scope="module")
def matrices(tiny):
    """A LoRA on every matrix of the blocks: our stem -> (down, up)."""
    generator = torch.Generator().manual_seed(3)
    weights = {
        name.removesuffix(".weight"): tensor
        for name, tensor in tiny.transformer.state_dict().items()
        if name.endswith(".weight") and tensor.ndim == 2 and "blocks" in name
    }
    return {
        stem: (random(generator, RANK, w.shape[1]), random(generator, w.shape[0], RANK))
        for stem, w in weights.items()
    }


def kohya(matrices):
    out = {}
    for stem, (down, up) in matrices.items():
        name = "lora_unet_" + stem.replace(".", "_")
        out |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        out[f"{name}.alpha"] = torch.tensor(ALPHA)
    return out


def bfl(matrices):
    return {
        f"{prefix}{stem}.lora_{letter}.weight": matrix * (ALPHA / RANK if letter == "B" else 1)
        for prefix, (stem, pair) in zip(["diffusion_model.", "base_model.model.", ""] * 99, matrices.items())
        for letter, matrix in zip("AB", pair)
    }


def expected(tiny, matrices, scale=1.0):
    weights = {name: tensor.clone() for name, tensor in tiny.transformer.state_dict().items()}
    for stem, (down, up) in matrices.items():
        weights[f"{stem}.weight"] += scale * ALPHA / RANK * up @ down
    return weights


def change(model, file, scale=None):
    given = file if scale is None else f"{file}:{scale}"
    parts = {part: stored(getattr(model, part).state_dict()) for part in ("transformer", "clip", "t5")}
    return {name: tensor.read() for name, tensor in merged(parts, [given])["transformer"].items()}


@pytest.mark.parametrize("dialect", ["kohya", "bfl", "diffusers", "metadata"])
def test_every_dialect_means_the_same_change(tiny, matrices, tmp_path, dialect):
    file = tmp_path / "lora.safetensors"
    if dialect == "diffusers":
        write_lora(file, matrices, ALPHA)
    elif dialect == "metadata":  # alpha beside the tensors, as diffusers saves it
        plain = {k: v * (RANK / ALPHA if "lora_B" in k else 1) for k, v in bfl(matrices).items()}
        alpha = json.dumps({"transformer.lora_alpha": ALPHA, "transformer.r": RANK})
        save_file(plain, file, {"lora_adapter_metadata": alpha})
    else:
        save_file({"kohya": kohya, "bfl": bfl}[dialect](matrices), file)
    for scale in (None, 0.5):
        wanted = expected(tiny, matrices, 1.0 if scale is None else scale)
        made = change(tiny, file, scale)
        assert made.keys() == wanted.keys()
        assert max(difference(made[name], wanted[name], size=1) for name in wanted) <= ROUNDED


@pytest.mark.parametrize("dialect", ["kohya", "ours"])
def test_diffusers_own_loader_makes_the_same_model(tiny, matrices, folders, tmp_path, dialect):
    pytest.importorskip("peft")
    file = tmp_path / "lora.safetensors"
    if dialect == "kohya":  # its reader knows the single blocks of width 3072 alone
        matrices = {stem: pair for stem, pair in matrices.items() if stem.startswith("double")}
    if dialect == "ours":
        write_lora(file, matrices, ALPHA)
    else:
        save_file(kohya(matrices), file)
    reference = FluxTransformer2DModel.from_pretrained(folders["diffusers"] / "transformer")
    tensors, alphas = FluxPipeline.lora_state_dict(tmp_path, weight_name=file.name, return_alphas=True)
    reference.load_lora_adapter(tensors, network_alphas=alphas, prefix="transformer")
    reference.fuse_lora()
    reference.unload_lora()
    theirs = reference.state_dict()
    for stem in matrices:
        row, stems = diffusers_stems("transformer", stem)
        whole = torch.cat([theirs[f"{name}.weight"] for name in stems])
        assert difference(whole, expected(tiny, matrices)[f"{stem}.weight"], size=1) <= 10 * ROUNDED, stem


def test_some_of_q_k_v_and_swapped_halves_find_their_rows(tiny, tmp_path):
    generator, file = torch.Generator().manual_seed(0), tmp_path / "lora.safetensors"
    width = tiny.preset.transformer.width
    down, up = random(generator, 2, width), random(generator, width, 2)
    final = random(generator, 2 * width, 2)
    names = (
        "transformer_blocks.0.attn.add_v_proj",
        "single_transformer_blocks.1.attn.to_k",
        "norm_out.linear",
    )
    tensors = {f"transformer.{name}.lora_A.weight": down.clone() for name in names}
    tensors |= {f"transformer.{name}.lora_B.weight": m.clone() for name, m in zip(names, (up, up, final))}
    save_file(tensors, file)
    before, after = tiny.transformer.state_dict(), change(tiny, file)
    found = {
        name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])
    }
    assert found.keys() == {
        "double_blocks.0.txt_attn.qkv.weight",
        "single_blocks.1.linear1.weight",
        "final_layer.adaLN_modulation.1.weight",
    }
    qkv, linear, last = found.values()
    assert difference(qkv[2 * width :], up @ down, size=1) <= ROUNDED and not qkv[: 2 * width].any()
    assert difference(linear[width : 2 * width], up @ down, size=1) <= ROUNDED
    assert not linear[2 * width :].any()
    assert difference(last, torch.cat(final.chunk(2)[::-1]) @ down, size=1) <= ROUNDED


def test_text_encoders_biases_norms_and_x_flux_are_understood(tiny, tmp_path):
    clip, width = tiny.preset.clip.width, tiny.preset.transformer.width
    query = "text_model.encoder.layers.0.self_attn.q_proj"
    one = torch.ones(1, clip)
    tensors = {
        f"lora_te1_{query.replace('.', '_')}.lora_down.weight": one,
        f"lora_te1_{query.replace('.', '_')}.lora_up.weight": one.T.clone(),
        "double_blocks.0.img_attn.proj.lora_B.bias": torch.ones(width),
        "double_blocks.0.img_attn.norm.query_norm.scale": torch.full((32,), 5.0),
        "double_blocks.0.processor.proj_lora2.down.weight": torch.ones(1, width),
        "double_blocks.0.processor.proj_lora2.up.weight": torch.ones(width, 1),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    made = merged(tiny.weights(), [tmp_path / "lora.safetensors"])
    before = tiny.weights()

    def differs(part, name):
        return made[part][name].read() - before[part][name].read()

    assert torch.allclose(differs("clip", f"{query}.weight"), torch.ones(clip, clip))
    assert torch.allclose(differs("transformer", "double_blocks.0.img_attn.proj.bias"), torch.ones(width))
    assert (made["transformer"]["double_blocks.0.img_attn.norm.query_norm.scale"].read() == 5).all()
    assert torch.allclose(
        differs("transformer", "double_blocks.0.txt_attn.proj.weight"), torch.ones(width, width)
    )


def test_a_lora_is_part_of_the_model_it_is_loaded_into(tiny, matrices, folders, tmp_path):
    file = tmp_path / "lora.safetensors"
    write_lora(file, matrices, ALPHA)
    plain, changed = load_model(folders["kontext"]), Editor.load(folders["kontext"], lora=[file]).model
    assert changed.fingerprint != plain.fingerprint
    convert(folders["kontext"], tmp_path / "merged", "kontext", lora=[f"{file}:1"], shard_bytes=60_000)
    again = load_model(tmp_path / "merged")
    assert again.fingerprint == changed.fingerprint
    files = list((tmp_path / "merged").glob("transformer-*.safetensors"))
    assert len(files) > 2 and not (tmp_path / "merged" / "transformer.safetensors").exists()
    largest = max(t.nbytes for t in tiny.transformer.state_dict().values())
    assert all(f.stat().st_size <= max(60_000, largest + 1000) for f in files)
    assert (
        load_model("tiny-random").fingerprint != load_model("tiny-random", lora=[_for_tiny(file)]).fingerprint
    )


def _for_tiny(file):
    stem = "single_blocks.0.linear2"
    config = load_model("tiny-random").transformer.get_parameter(f"{stem}.weight")
    small = file.with_name("small.safetensors")
    write_lora(small, {stem: (torch.ones(1, config.shape[1]), torch.ones(config.shape[0], 1))}, 1.0)
    return small


def test_what_does_not_fit_is_refused_in_one_line(tiny, matrices, tmp_path):
    file, weights = tmp_path / "lora.safetensors", tiny.weights()
    stem, (down, up) = "double_blocks.0.img_mlp.0", matrices["double_blocks.0.img_mlp.0"]
    for tensors, said in (
        ({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up, "x.dora_scale": down.clone()}, "DoRA"),
        ({"unet.mid.lora_A.weight": down, "unet.mid.lora_B.weight": up}, "unet.mid"),
        ({f"{stem}.lora_A.weight": down}, "incomplete"),
        ({f"{stem}.lora_A.weight": down[:, 1:], f"{stem}.lora_B.weight": up}, "another size"),
        ({"img_in.lora_A.weight": torch.ones(1, 128), "img_in.lora_B.weight": torch.ones(64, 1)}, "control"),
    ):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        with pytest.raises(BadCheckpoint, match=said):
            merged(weights, [file])
    with pytest.raises(NotFound):
        merged(weights, [tmp_path / "none.safetensors"])
    with pytest.raises(BadRequest, match="FILE:scale"):
        parse("knit.safetensors:strong")
    assert parse("a/knit.safetensors:0.8")[1] == 0.8
