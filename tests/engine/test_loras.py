"""LoRAs per request: equal to merged ones, exchanged without loading, and without a trace afterwards."""

import copy
import dataclasses
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kontext.checkpoint import load_model, random_model, save_diffusers
from kontext.checkpoint.lora import write_lora
from kontext.checkpoint.names import to_bfl
from kontext.checkpoint.tensors import stored
from kontext.engine import Editor, EditRequest
from kontext.engine.loras import LoraStore
from kontext.errors import BadCheckpoint, BadRequest, NotFound
from kontext.kernels import use_transformer_kernels
from kontext.kernels.library import kernels
from kontext.loras import Lora, LoraAccess
from kontext.model.fp8 import Fp8Linear
from kontext.model.presets import PRESETS
from kontext.model.tokens import picture_ids

STEMS = ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1", "single_blocks.0.linear2", "img_in")
ROUNDING = 1e-5  # of float32 products in another order, relative to the largest value


@pytest.fixture(scope="module")
def tiny():
    """The tiny preset with "full" attention and guidance, like FLUX.1 Kontext [dev]."""
    preset = PRESETS["tiny"]
    transformer = dataclasses.replace(preset.transformer, context_attention="full", guidance_embed=True)
    model = random_model(dataclasses.replace(preset, name="tiny-full", transformer=transformer))
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    return model


def write(path, model, seed, stems=STEMS, rank=4, size=0.2):
    """A LoRA file with random matrices."""
    generator = torch.Generator().manual_seed(seed)
    matrices = {}
    for stem in stems:
        rows, columns = model.transformer.get_submodule(stem).weight.shape
        matrices[stem] = (
            size * torch.randn(rank, columns, generator=generator),
            size * torch.randn(rows, rank, generator=generator),
        )
    write_lora(path, matrices, alpha=rank)
    return path


@pytest.fixture
def files(tmp_path, random_model):
    """Two LoRA files for the model of `editor`, in a folder."""
    folder = tmp_path / "loras"
    (folder / "styles").mkdir(parents=True)
    write(folder / "knit.safetensors", random_model, 1)
    write(folder / "styles" / "ink.safetensors", random_model, 2, STEMS[:2])
    return folder


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def velocity(transformer, seed=0):
    """The velocity of random inputs."""
    config = transformer.config
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(2, 16, config.in_channels, generator=generator)
    text = torch.randn(2, 8, config.text_width, generator=generator)
    pooled = torch.randn(2, config.pooled_width, generator=generator)
    guidance = torch.tensor([2.5, 1.0]) if config.guidance_embed else None
    context = [(torch.randn(1, 16, config.in_channels, generator=generator), picture_ids(1, 4, 4))]
    with torch.inference_mode():
        return transformer(
            target, text, pooled, torch.tensor([0.9, 0.1]), guidance, picture_ids(0, 4, 4), context
        )


def assert_close(made, expected, bound=ROUNDING):
    assert (made - expected).abs().max() <= bound * max(1, float(expected.abs().max()))


def test_a_lora_by_request_is_a_branch_beside_products_in_fp8(tmp_path, picture):
    exact, eight = (
        Editor.load("tiny-random", device="cpu"),
        Editor.load("tiny-random", device="cpu", fp8=True),
    )
    lora = write(tmp_path / "knit.safetensors", exact.model, 1)
    settings = {"seed": 1, "steps": 2, "lock": False}
    before = eight.edit(picture, "x", **settings).picture.tobytes()
    made = eight.edit(picture, "x", loras=[f"{lora}:0.8"], **settings)
    expected = exact.edit(picture, "x", loras=[f"{lora}:0.8"], **settings)
    with_lora, without = (
        np.asarray(image, float) for image in (expected.picture, Image.frombytes("RGB", made.size, before))
    )
    distance = np.sqrt(np.square(np.asarray(made.picture, float) - with_lora).mean())
    assert 0 < 10 * distance < np.sqrt(np.square(without - with_lora).mean())
    assert eight.edit(picture, "x", **settings).picture.tobytes() == before
    stem = "single_blocks.0.linear2"
    layer = eight.model.transformer.get_submodule(stem)
    x = torch.randn(7, layer.in_features, generator=torch.Generator().manual_seed(3))
    store = LoraStore(eight.model)
    with store.active(store.resolve([Lora(path=str(lora), scale=0.8)])):
        adapted = eight.model.transformer.get_submodule(stem)
        assert adapted.base is layer and isinstance(layer, Fp8Linear)
        ((change, scale),) = adapted.changes
        assert_close(adapted(x), layer(x) + scale * change.delta.product(x, slice(None)))


def test_a_merged_lora_is_multiplied_in_fp8_with_the_weight(tmp_path, picture):
    exact = Editor.load("tiny-random", device="cpu")
    lora = write(tmp_path / "knit.safetensors", exact.model, 1)
    settings = {"seed": 1, "steps": 2, "lock": False}
    made = Editor.load("tiny-random", device="cpu", lora=[lora], fp8=True).edit(picture, "x", **settings)
    expected = Editor.load("tiny-random", device="cpu", lora=[lora]).edit(picture, "x", **settings)
    near, far = (
        np.sqrt(np.square(np.asarray(image, float) - np.asarray(expected.picture, float)).mean())
        for image in (made.picture, exact.edit(picture, "x", **settings).picture)
    )
    assert 0 < 10 * near < far


# Equal to merged weights


def adapter_kinds():
    pytest.importorskip("peft", reason="peft is not installed; it is the reference")
    from support.adapters import LORA_KINDS, OTHER_KINDS, lora_config

    return {**{kind: lora_config(kind) for kind in LORA_KINDS}, **OTHER_KINDS}


@pytest.fixture(scope="module")
def reference(tiny, tmp_path_factory):
    from diffusers import FluxTransformer2DModel

    folder = tmp_path_factory.mktemp("model") / "diffusers"
    save_diffusers(tiny, folder)
    return FluxTransformer2DModel.from_pretrained(folder / "transformer")


@pytest.mark.parametrize("kind", adapter_kinds())
def test_every_kind_of_adapter_computes_what_peft_merges(tiny, reference, tmp_path, kind):
    from support.adapters import random_adapter

    model = random_adapter(reference, adapter_kinds()[kind])
    model.save_pretrained(tmp_path)
    merged = copy.deepcopy(tiny.transformer)
    state = to_bfl("transformer", stored(dict(model.merge_and_unload().state_dict())))
    merged.load_state_dict({name: tensor.read() for name, tensor in state.items()})

    store, before = LoraStore(tiny), velocity(tiny.transformer)
    loras = store.resolve([Lora(path=str(tmp_path))])
    assert not loras.warnings
    with store.active(loras):
        made = velocity(tiny.transformer)
    expected = velocity(merged)
    assert (expected - before).abs().max() > 0.01
    assert_close(made, expected)
    assert torch.equal(velocity(tiny.transformer), before)


def test_several_loras_equal_those_merged_one_after_the_other(tiny, tmp_path):
    paths = [write(tmp_path / f"{seed}.safetensors", tiny, seed) for seed in range(3)]
    given = [f"{path}:{scale}" for path, scale in zip(paths, (0.8, -0.4, 1.5))]
    merged = copy.deepcopy(tiny)
    from kontext.checkpoint.lora import merged as merge

    state = merge(tiny.weights(), given)["transformer"]
    merged.transformer.load_state_dict({name: tensor.read() for name, tensor in state.items()})
    store = LoraStore(tiny)
    loras = [Lora(path=str(path), scale=scale) for path, scale in zip(paths, (0.8, -0.4, 1.5))]
    with store.active(store.resolve(loras)):
        assert_close(velocity(tiny.transformer), velocity(merged.transformer))


def test_text_encoders_norms_biases_and_embeddings_change_too(tiny, tmp_path):
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return 0.1 * torch.randn(*shape, generator=generator)

    width, clip_width = tiny.preset.t5.width, tiny.preset.clip.width
    inner = tiny.t5.encoder.block[0].layer[0].SelfAttention.q.weight.shape[0]
    norm = tiny.transformer.single_blocks[0].norm.query_norm.scale
    tensors = {
        "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight": normal(2, width),
        "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.lora_B.weight": normal(inner, 2),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": normal(2, clip_width),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight": normal(
            tiny.preset.clip.feed_forward, 2
        ),
        "text_encoder.text_model.final_layer_norm.diff": normal(clip_width),
        "text_encoder.text_model.final_layer_norm.diff_b": normal(clip_width),
        "text_encoder.text_model.embeddings.token_embedding.diff": normal(
            *tiny.clip.text_model.embeddings.token_embedding.weight.shape
        ),
        "diffusion_model.single_blocks.0.norm.query_norm.diff": normal(*norm.shape),
        "diffusion_model.img_in.diff_b": normal(*tiny.transformer.img_in.bias.shape),
    }
    save_file(tensors, tmp_path / "all.safetensors")
    from kontext.checkpoint.lora import merged as merge

    merged = copy.deepcopy(tiny)
    for part, weights in merge(tiny.weights(), [tmp_path / "all.safetensors"]).items():
        getattr(merged, part).load_state_dict({name: tensor.read() for name, tensor in weights.items()})
    ids = tiny.token_ids(["Make the hair blue"])

    def outputs(model):
        with torch.inference_mode():
            return model.t5(ids[0]), model.clip(ids[1]), velocity(model.transformer)

    store, before = LoraStore(tiny), outputs(tiny)
    loras = store.resolve([Lora(path=str(tmp_path / "all.safetensors"))])
    assert not loras.warnings
    with store.active(loras):
        made = outputs(tiny)
    for output, expected, plain in zip(made, outputs(merged), before):
        assert_close(output, expected)
        assert (expected - plain).abs().max() > 1e-3
    assert all(torch.equal(now, then) for now, then in zip(outputs(tiny), before))


@pytest.mark.skipif(kernels() is None, reason="no kernels for this processor")
def test_kernels_compute_with_the_loras_of_a_set(tmp_path):
    model = load_model("nano-random")
    path = write(tmp_path / "knit.safetensors", model, 1)
    store, plain = LoraStore(model), velocity(model.transformer)
    loras = store.resolve([Lora(path=str(path))])
    with store.active(loras):
        expected = velocity(model.transformer)
    assert use_transformer_kernels(model.transformer)
    backend = model.transformer.backend
    for _ in range(2):
        with store.active(loras):
            assert model.transformer.backend is not backend
            assert_close(velocity(model.transformer), expected, 1e-4)
        assert model.transformer.backend is backend
        assert_close(velocity(model.transformer), plain, 1e-4)


# Requests


def edit(editor, picture, **options):
    return np.asarray(editor.edit(picture, "Make it red", seed=1, steps=2, lock=False, **options).picture)


def test_a_request_with_loras_is_an_edit_by_the_merged_model(editor, files, picture):
    merged = Editor(load_model("tiny-random", lora=[f"{files / 'knit.safetensors'}:0.7"]))
    plain = edit(editor, picture)
    made = edit(editor, picture, loras=f"{files / 'knit.safetensors'}:0.7")
    expected = edit(merged, picture)
    assert np.abs(made.astype(int) - expected).max() <= 1  # a level: 1e-5 at the edge of rounding
    assert (made != plain).mean() > 0.1
    assert np.array_equal(edit(editor, picture), plain)


def test_scale_0_is_bit_equal_to_none(editor, files, picture):
    plain = edit(editor, picture)
    for loras in ([(files / "knit.safetensors", 0)], [{"path": str(files / "knit.safetensors"), "scale": 0}]):
        assert np.array_equal(edit(editor, picture, loras=loras), plain)


def test_nothing_is_loaded_again_when_loras_are_exchanged(editor, files, picture, monkeypatch):
    editor.use_loras(LoraAccess(files))
    read = []
    load = LoraStore._read
    monkeypatch.setattr(LoraStore, "_read", lambda self, *place: read.append(place) or load(self, *place))
    first = edit(editor, picture, loras=["knit"])
    second = edit(editor, picture, loras=["styles/ink:0.5"])
    for _ in range(2):
        assert np.array_equal(edit(editor, picture, loras=["knit"]), first)
        assert np.array_equal(edit(editor, picture, loras=["styles/ink:0.5"]), second)
    both = edit(editor, picture, loras=["knit", "styles/ink:0.5"])
    assert not np.array_equal(both, first) and not np.array_equal(both, second)
    assert len(read) == 2


def test_a_file_that_changed_is_read_again(editor, files, picture, random_model):
    path = files / "knit.safetensors"
    first = edit(editor, picture, loras=path)
    write(path, random_model, 9)
    assert not np.array_equal(edit(editor, picture, loras=path), first)


def test_requests_with_different_loras_share_no_forward(editor, files, picture):
    editor.use_loras(LoraAccess(files))
    options = dict(picture=picture, prompt="Make it red", seed=1, steps=2, lock=False)
    sets = [(), "knit", "styles/ink", "knit:0.5", ("knit", "styles/ink"), "knit"]
    alone = [editor.edit_batch([EditRequest(**options, loras=loras)])[0] for loras in sets]
    together = editor.edit_batch([EditRequest(**options, loras=loras) for loras in sets])
    for single, batched in zip(alone, together):
        assert np.array_equal(np.asarray(single.picture), np.asarray(batched.picture))
    assert len({np.asarray(single.picture).tobytes() for single in alone}) == 5


def test_edits_in_threads_are_independent(editor, files, picture):
    editor.use_loras(LoraAccess(files))
    sets = [(), "knit", "styles/ink", ()]
    expected = [edit(editor, picture, loras=loras) for loras in sets]
    made, failures = [None] * len(sets), []

    def work(place):
        try:
            editor.prefill(picture)
            made[place] = edit(editor, picture, loras=sets[place])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(sets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    assert all(np.array_equal(*pair) for pair in zip(made, expected))


def test_results_name_their_loras_and_pass_on_warnings(editor, files, picture, random_model):
    tensors = load_file(files / "knit.safetensors")
    tensors |= {f"nothing.lora_{which}.weight": torch.zeros(2, 2) for which in "AB"}
    save_file(tensors, files / "odd.safetensors")
    result = editor.edit(picture, "Make it red", steps=1, loras=f"{files / 'odd.safetensors'}:0.5")
    [lora] = result.settings["loras"]
    assert lora["name"] == "odd" and lora["scale"] == 0.5 and len(lora["sha256"]) == 64
    assert any("nothing" in warning for warning in result.warnings)
    assert result.settings["fingerprint"] == random_model.fingerprint


def test_loras_of_every_request_are_part_of_the_model(editor, files, picture):
    expected = edit(
        editor, picture, loras=[files / "knit.safetensors", (files / "styles/ink.safetensors", 0.5)]
    )
    with_knit = edit(editor, picture, loras=files / "knit.safetensors")
    editor.use_loras(LoraAccess(files, always=(Lora(name="knit"),)))
    editor.prefill(picture)
    assert np.array_equal(edit(editor, picture), with_knit)
    assert np.array_equal(edit(editor, picture, loras="styles/ink:0.5"), expected)
    result = editor.edit(picture, "Make it red", steps=1)
    assert result.settings["loras"] == []
    assert result.settings["fingerprint"] != editor.model.fingerprint


def test_what_cannot_be_used_is_refused_before_anything_is_computed(editor, files, picture, tiny):
    with pytest.raises(NotFound, match="no such file"):
        edit(editor, picture, loras=files / "absent.safetensors")
    with pytest.raises(NotFound, match="no LoRA named 'absent'"):
        edit(editor, picture, loras="absent")
    editor.use_loras(LoraAccess(files, paths=False))
    with pytest.raises(BadRequest, match="cannot be given by path"):
        edit(editor, picture, loras=files / "knit.safetensors")
    with pytest.raises(NotFound, match="known are knit, styles/ink"):
        edit(editor, picture, loras="absent")
    (files / "bad.safetensors").write_bytes(b"no LoRA")
    with pytest.raises(BadCheckpoint, match="bad.safetensors"):
        edit(editor, picture, loras="bad")
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            "diffusion_model.img_in.lora_A.weight": torch.randn(2, 7, generator=generator),
            "diffusion_model.img_in.lora_B.weight": torch.randn(9, 2, generator=generator),
        },
        files / "other.safetensors",
    )
    with pytest.raises(BadCheckpoint, match="made for a model of another size"):
        edit(editor, picture, loras="other")


def test_an_edit_inside_of_an_edit_with_loras_is_refused(editor, files, picture):
    def nested(info):
        edit(editor, picture)

    with pytest.raises(BadRequest, match="nested"):
        editor.edit(picture, "Make it red", steps=1, loras=files / "knit.safetensors", on_step=nested)
    assert edit(editor, picture).size


def test_the_cache_is_bounded_in_bytes(random_model, files):
    store = LoraStore(random_model, LoraAccess(files), limit_bytes=1)
    assert store.resolve([Lora(name="knit")]).members
    assert store._cache.bytes == 0
    store = LoraStore(random_model, LoraAccess(files))
    store.resolve([Lora(name="knit")])
    loaded = store._cache.bytes
    assert 0 < loaded <= (files / "knit.safetensors").stat().st_size
    store.resolve([Lora(name="knit"), Lora(name="styles/ink")])
    assert store._cache.bytes > loaded
