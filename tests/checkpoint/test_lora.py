"""LoRA files of every dialect change the same weights as in `diffusers`; what does not fit is refused."""

import json

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors.torch import save_file

from kontext.checkpoint import load_model
from kontext.checkpoint.convert import convert
from kontext.checkpoint.lora import merged, parse, write_lora
from kontext.checkpoint.names import diffusers_stems
from kontext.checkpoint.tensors import stored
from kontext.engine import Editor
from kontext.errors import BadCheckpoint, BadRequest, NotFound
from support.numeric import difference, rounding

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
    elif dialect == "metadata":  # alpha next to the tensors, as diffusers saves it
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
    pooled_ones = torch.ones(1, clip)
    tensors = {
        f"lora_te1_{query.replace('.', '_')}.lora_down.weight": pooled_ones,
        f"lora_te1_{query.replace('.', '_')}.lora_up.weight": pooled_ones.T.clone(),
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


def low_rank(tiny, part, stem, generator):
    shape = getattr(tiny, part).state_dict()[f"{stem}.weight"].shape
    return random(generator, RANK, shape[1]), random(generator, shape[0], RANK)


T5 = "encoder.block.0.layer.0.SelfAttention.q"
CLIP = "text_model.encoder.layers.0.mlp.fc1"
FLAT_T5, FLAT_CLIP = T5.replace(".", "_"), CLIP.replace(".", "_")


AB = ("lora_A.weight", "lora_B.weight")
KOHYA = ("lora_down.weight", "lora_up.weight")
NAMES = [
    ("t5", T5, f"lora_te3_{FLAT_T5}", KOHYA),
    ("t5", T5, f"lora_te2_{FLAT_T5}", KOHYA),
    ("t5", T5, f"text_encoder_2.{T5}", AB),
    ("t5", T5, f"base_model.model.{T5}", ("lora_A.knit.weight", "lora_B.knit.weight")),
    ("t5", T5, f"text_encoders.t5xxl.transformer.{T5}", AB),
    ("clip", CLIP, f"lora_te_{FLAT_CLIP}", KOHYA),
    ("clip", CLIP, f"lora_te1_{FLAT_CLIP}", KOHYA),
    ("clip", CLIP, f"lora_te1_{FLAT_CLIP.removeprefix('text_model_')}", KOHYA),
    ("clip", CLIP, f"text_encoder.{CLIP.removeprefix('text_model.')}", AB),
    ("clip", CLIP, f"text_encoder.{CLIP}", ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")),
    ("clip", CLIP, f"text_encoders.clip_l.transformer.{CLIP}", ("lora_A.d_0.weight", "lora_B.d_0.weight")),
    ("clip", CLIP, f"base_model.model.{CLIP.removeprefix('text_model.')}", AB),
    (
        "transformer",
        "double_blocks.0.img_attn.proj",
        "transformer.transformer_blocks.0.attn.processor.to_out.0_lora",
        ("down.weight", "up.weight"),
    ),
    (
        "transformer",
        "single_blocks.0.linear2",
        "single_blocks.0.processor.proj_lora",
        ("down.weight", "up.weight"),
    ),
    ("transformer", "double_blocks.0.img_mod.lin", "lycoris_transformer_blocks_0_norm1_linear", KOHYA),
    (
        "transformer",
        "double_blocks.0.img_mod.lin",
        "transformer.transformer_blocks.0.norm1.linear",
        ("lora_A.my_style.weight", "lora_B.my_style.weight"),
    ),
]


@pytest.mark.parametrize(("part", "stem", "module", "words"), NAMES, ids=[names[2] for names in NAMES])
def test_names_of_every_part_and_dialect_are_understood(tiny, tmp_path, part, stem, module, words):
    matrices = low_rank(tiny, part, stem, torch.Generator().manual_seed(0))
    save_file({f"{module}.{word}": m for word, m in zip(words, matrices)}, tmp_path / "lora.safetensors")
    warnings: list[str] = []
    before, after = tiny.weights(), merged(tiny.weights(), [tmp_path / "lora.safetensors"], warnings)
    assert not warnings
    for other, weights in before.items():
        for name, tensor in weights.items():
            change = after[other][name].read() - tensor.read()
            wanted = matrices[1] @ matrices[0] if (other, name) == (part, f"{stem}.weight") else 0 * change
            assert torch.allclose(change, wanted, atol=1e-6), name


def test_x_flux_changes_q_k_v_of_a_single_block(tiny, tmp_path):
    width, generator = tiny.preset.transformer.width, torch.Generator().manual_seed(0)
    down, up = random(generator, RANK, width), random(generator, 3 * width, RANK)
    name = "single_blocks.1.processor.qkv_lora"
    save_file({f"{name}.down.weight": down, f"{name}.up.weight": up}, tmp_path / "lora.safetensors")
    key = "single_blocks.1.linear1.weight"
    found = change(tiny, tmp_path / "lora.safetensors")[key] - tiny.transformer.state_dict()[key]
    assert torch.allclose(found[: 3 * width], up @ down, atol=1e-6) and not found[3 * width :].any()


def test_squeezed_convolutions_are_matrices(tiny, matrices, tmp_path):
    file = tmp_path / "lora.safetensors"
    tensors = {k: v[:, :, None, None] if v.ndim == 2 else v for k, v in kohya(matrices).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    wanted = expected(tiny, matrices)
    assert all(torch.allclose(made, wanted[name], atol=1e-6) for name, made in change(tiny, file).items())


def test_differences_of_weights_norms_and_biases_are_added(tiny, tmp_path):
    before, generator = tiny.transformer.state_dict(), torch.Generator().manual_seed(0)
    targets = {
        "diffusion_model.img_in.diff": "img_in.weight",
        "diffusion_model.img_in.diff_b": "img_in.bias",
        "lora_unet_double_blocks_0_img_mlp_0.diff_b": "double_blocks.0.img_mlp.0.bias",
        "diffusion_model.single_blocks.0.norm.key_norm.scale.diff": "single_blocks.0.norm.key_norm.scale",
        "transformer.transformer_blocks.0.attn.norm_k.w_norm": "double_blocks.0.img_attn.norm.key_norm.scale",
    }
    tensors = {name: random(generator, *before[target].shape) for name, target in targets.items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    made = change(tiny, f"{tmp_path}/lora.safetensors:0.5")
    changes = {
        name: made[name] - before[name] for name in before if not torch.equal(made[name], before[name])
    }
    assert changes.keys() == set(targets.values())
    for name, target in targets.items():
        assert torch.allclose(changes[target], 0.5 * tensors[name], atol=1e-6)


def test_what_is_no_lora_is_left_out_with_a_warning_that_names_it(tiny, matrices, folders, tmp_path):
    file = tmp_path / "lora.safetensors"
    extra = {
        "bundle_emb.knitted.string_to_param.*": torch.ones(2, 8),
        "lora_te1_text_projection.lora_down.weight": torch.ones(2, 8),
        "lora_te1_text_projection.lora_up.weight": torch.ones(8, 2),
        "some.counter": torch.ones(1),
    }
    save_file({**kohya(matrices), **extra}, file)
    warnings: list[str] = []
    made = merged(tiny.weights(), [file], warnings)
    wanted = expected(tiny, matrices)
    assert all(torch.allclose(made["transformer"][n].read(), wanted[n], atol=1e-6) for n in wanted)
    embeddings, others = warnings
    assert "embeddings" in embeddings and "knitted" in embeddings
    assert "2 of its names" in others and "some.counter" in others and "lora_te1_text_projection" in others
    editor = Editor.load(folders["kontext"], lora=[file])
    assert set(warnings) <= set(editor.model.warnings)  # from where every result takes them
    assert set(warnings) <= set(load_model(folders["kontext"], lora=[file]).warnings)


def test_a_lone_transformer_takes_its_part(tiny, matrices, folders, tmp_path):
    stem = "text_model.encoder.layers.0.self_attn.q_proj"
    down, up = low_rank(tiny, "clip", stem, torch.Generator().manual_seed(0))
    encoder = {
        f"lora_te1_{stem.replace('.', '_')}.lora_{n}.weight": m for n, m in (("down", down), ("up", up))
    }
    save_file({**kohya(matrices), **encoder}, tmp_path / "lora.safetensors")
    save_file(encoder, tmp_path / "clip.safetensors")
    source = folders["bfl"] / "transformer.safetensors"
    found = convert(source, tmp_path / "m.safetensors", "bfl", lora=[tmp_path / "lora.safetensors"])
    wanted = expected(tiny, matrices)
    weights = found.parts["transformer"].weights
    assert all(torch.allclose(weights[name].read(), wanted[name], atol=1e-6) for name in wanted)
    assert len(found.warnings) == 1 and "CLIP text encoder are left out" in found.warnings[0]
    with pytest.raises(BadCheckpoint, match="changes only the CLIP text encoder"):
        convert(source, tmp_path / "n.safetensors", "bfl", lora=[tmp_path / "clip.safetensors"])
    assert not (tmp_path / "n.safetensors").exists()


def test_a_module_that_stands_twice_is_changed_once(tiny, matrices, tmp_path):
    stem, (down, up) = "double_blocks.0.img_attn.proj", matrices["double_blocks.0.img_attn.proj"]
    twice = {
        f"{name}.lora_{n}.weight": m.clone()
        for name in (f"diffusion_model.{stem}", "transformer.transformer_blocks.0.attn.to_out.0")
        for n, m in (("A", down), ("B", up))
    }
    save_file(twice, tmp_path / "lora.safetensors")
    warnings: list[str] = []
    made = merged(tiny.weights(), [tmp_path / "lora.safetensors"], warnings)["transformer"]
    found = made[f"{stem}.weight"].read() - tiny.transformer.state_dict()[f"{stem}.weight"]
    assert torch.allclose(found, up @ down, atol=1e-6)
    assert len(warnings) == 1 and "to_out.0" in warnings[0]


def test_kohya_dora_is_the_dora_of_peft(tiny, tmp_path):
    stem, generator = "double_blocks.0.txt_mlp.2", torch.Generator().manual_seed(0)
    weight = tiny.transformer.state_dict()[f"{stem}.weight"]
    down, up = low_rank(tiny, "transformer", stem, generator)
    for axis, magnitude in ((1, torch.rand(len(weight), 1)), (0, torch.rand(1, weight.shape[1]))):
        name = f"lora_unet_{stem.replace('.', '_')}"
        tensors = {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.dora_scale": magnitude,
        }
        save_file({**tensors, f"{name}.alpha": torch.tensor(6.0)}, tmp_path / "lora.safetensors")
        whole = weight + 2 * up @ down
        wanted = magnitude * whole / whole.norm(dim=axis, keepdim=True)
        made = change(tiny, tmp_path / "lora.safetensors")[f"{stem}.weight"]
        assert torch.allclose(made, wanted, atol=1e-5)
        half = change(tiny, tmp_path / "lora.safetensors", 0.5)[f"{stem}.weight"]
        assert torch.allclose(half, (weight + wanted) / 2, atol=1e-5)


@pytest.mark.parametrize("kind", ["oft_blocks", "boft_R", "ia3_l", "vera_lambda_b"])
def test_other_kinds_of_adapters_are_named(tiny, tmp_path, kind):
    save_file({f"double_blocks.0.img_mlp.0.{kind}": torch.ones(4, 4)}, tmp_path / "lora.safetensors")
    name = {"oft_blocks": "OFT", "boft_R": "BOFT", "ia3_l": "IA3", "vera_lambda_b": "VeRA"}[kind]
    with pytest.raises(BadCheckpoint, match=f"of the kind {name} "):
        merged(tiny.weights(), [tmp_path / "lora.safetensors"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("word", ["lora_down", "lora_up"])
def test_a_lora_with_nan_is_refused_and_the_tensor_named(tiny, matrices, tmp_path, dtype, word):
    tensors = {name: tensor.to(dtype) for name, tensor in kohya(matrices).items()}
    name = next(name for name in tensors if word in name)
    tensors[name] = tensors[name].float().index_fill(0, torch.tensor(1), float("nan")).to(dtype)
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(BadCheckpoint, match=f"{name} holds .* NaN"):
        merged(tiny.weights(), [tmp_path / "lora.safetensors"])


@pytest.mark.parametrize("scale", ["nan", "inf", "-inf", "strong", "", "1,5"])
def test_a_scale_must_be_a_finite_number(scale):
    with pytest.raises(BadRequest, match="a finite number"):
        parse(f"knit.safetensors:{scale}")


def test_a_scale_that_overflows_is_refused(tiny, matrices, folders, tmp_path):
    save_file(kohya(matrices), tmp_path / "lora.safetensors")
    with pytest.raises(BadCheckpoint, match="exceeds its number type"):
        load_model(folders["kontext"], lora=[f"{tmp_path}/lora.safetensors:1e39"])


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
