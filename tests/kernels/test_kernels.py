"""The kernels give what PyTorch gives, on every instruction set of this processor.

Each alone, and the transformer and the decoder on them.
"""

import copy
import dataclasses
import os
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import kontext.engine.context as engine_context
import kontext.kernels
from kontext.checkpoint import load_model
from kontext.engine import Editor
from kontext.engine.context import accelerate_cpu
from kontext.errors import BadConfig
from kontext.kernels import use_decoder_kernels, use_transformer_kernels
from kontext.kernels.decoder import KernelDecoder, _Pass, _Picture
from kontext.kernels.library import (
    BACKENDS,
    SETTING,
    PackedLinear,
    attention,
    kernels,
    kernels_for,
    openmp_paths,
    same_version,
)
from kontext.model.blocks import KeysValues, Modulated, gelu
from kontext.model.presets import NANO_128, TINY
from kontext.model.rope import apply_rotary, rotary_table
from kontext.model.tokens import picture_ids
from kontext.model.transformer import Transformer, _rows
from kontext.model.window import Window

CLOSE = {3: 2e-5, 2: 2e-5, 1: 2e-2}
"""Allowed difference from float32 for results of size 1, by how many terms of bfloat16 products are taken: a
number keeps 16 bits, or 8.
"""
CLOSE_FLOAT = 1e-5
"""The same for float32 products: some hundred numbers of 24 bits are summed in another order."""


def near(made, expected, parts, compiled):
    """Within what the products allow, of the size that the numbers have."""
    allowed = CLOSE[parts] if compiled.name == "amx" else CLOSE_FLOAT
    return float((made - expected).abs().max()) <= allowed * max(1, float(expected.abs().max()))


def random_linear(inner, columns, bfloat16=False):
    layer = torch.nn.Linear(inner, columns).requires_grad_(False)
    layer.weight.normal_(0, inner**-0.5)
    if bfloat16:
        layer.weight.copy_(layer.weight.bfloat16())
    return layer


@pytest.fixture
def threads():
    usual = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(usual)


@settings(max_examples=60, deadline=None)
@given(
    items=st.integers(1, 3),
    rows=st.integers(1, 90),
    inner=st.integers(1, 130),
    columns=st.integers(1, 100),
    parts=st.sampled_from((1, 2, 3)),
    seed=st.integers(0, 99),
)
def test_a_linear_layer_of_any_size(compiled, items, rows, inner, columns, parts, seed):
    torch.manual_seed(seed)
    layer = random_linear(inner, columns, bfloat16=parts == 2)
    x, out = torch.randn(items, rows, inner), torch.full((items, rows, columns), torch.nan)
    packed = PackedLinear(compiled, layer, 1 if parts == 1 else 3)
    assert packed.parts == parts or columns * inner < 9  # few numbers may be bfloat16 by chance
    compiled.run([packed.job(x, out)])
    assert near(out, layer(x), parts, compiled)


@pytest.mark.parametrize("rows", [1, 40, 250])
def test_what_surrounds_a_product_happens_in_it(compiled, rows):
    torch.manual_seed(0)
    heads, width, hidden = 2, 32, 80
    layer = random_linear(70, 3 * heads * width + hidden)
    packed = PackedLinear(compiled, layer, 3)
    x = torch.randn(2, rows, 70)
    modulation = Modulated(torch.randn(2, 1, 70), 1 + torch.randn(2, 1, 70), torch.ones(()))
    qkv, mlp = torch.empty(2, 3 * heads, rows, width), torch.empty(2, rows, hidden)
    compiled.run([packed.job(x, mlp, heads=qkv, modulation=modulation, gelu=True)])
    left, right = layer(modulation.modulated_norm(x)).split((3 * heads * width, hidden), dim=-1)
    assert near(qkv.transpose(1, 2).flatten(2), left, 3, compiled) and near(mlp, gelu(right), 3, compiled)

    some = torch.empty(2, 2 * heads, rows, width)
    columns = slice(heads * width, 3 * heads * width)
    compiled.run([packed.job(x, heads=some, modulation=modulation, columns=columns)])
    assert torch.equal(some, qkv[:, heads:])

    layer = random_linear(70, 50)
    gate, out = torch.randn(1, 1, 50), torch.randn(2, rows + 3, 50)
    expected = out.clone()
    expected[:, 2:-1] += gate * layer(x)
    packed = PackedLinear(compiled, layer, 3)
    compiled.run([packed.job(x, out[:, 2:-1], gate=gate)])
    assert near(out, expected, 3, compiled)
    assert torch.equal(out[:, :2], expected[:, :2]) and torch.equal(out[:, -1], expected[:, -1])


def exact_attention(qkv, scales, change, rotary, context_kv, query_rows):
    """The same by PyTorch, in double precision."""
    q, k, v = qkv.double().unflatten(1, (3, -1)).unbind(1)
    first = (torch.arange(qkv.shape[2]) < change)[:, None]

    def normed(x, scale):
        x = F.rms_norm(x, x.shape[-1:], eps=1e-6) * torch.where(first, scale[0], scale[1])
        return apply_rotary(x.float().transpose(1, 2)[:, :, None], rotary)[:, :, 0].transpose(1, 2).double()

    q, k = normed(q, scales[0]), normed(k, scales[1])
    if context_kv is not None:
        k = torch.cat((k, context_kv.keys.double().expand(len(k), -1, -1, -1)), dim=2)
        v = torch.cat((v, context_kv.values.double().expand(len(v), -1, -1, -1)), dim=2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, query_rows].float()


@settings(max_examples=40, deadline=None)
@given(
    items=st.integers(1, 2),
    heads=st.integers(1, 3),
    width=st.sampled_from((32, 64, 128)),
    rows=st.integers(1, 100),
    context_rows=st.integers(0, 70),
    parts=st.sampled_from((1, 3)),
    data=st.data(),
)
def test_attention_of_any_size(compiled, items, heads, width, rows, context_rows, parts, data):
    torch.manual_seed(rows)
    start = data.draw(st.integers(0, rows - 1))
    query_rows = slice(start, data.draw(st.integers(start + 1, rows)))
    change = data.draw(st.integers(0, rows))
    qkv = torch.randn(items, 3 * heads, rows, width)
    scales = torch.rand(2, width) + 0.5, torch.rand(2, width) + 0.5
    angles = torch.rand(rows, width // 2) * 6
    rotary = torch.stack((angles.cos(), angles.sin()), -1)
    prefix = KeysValues(*torch.randn(2, 1, heads, context_rows, width)) if context_rows else None
    out = torch.full((items, rows, heads * width), torch.nan)
    compiled.run([attention(qkv, scales, change, rotary, prefix, out, query_rows, parts)])
    assert near(
        out[:, query_rows], exact_attention(qkv, scales, change, rotary, prefix, query_rows), parts, compiled
    )
    assert out.isfinite().sum() == out[:, query_rows].numel()


def test_large_scores_do_not_overflow(compiled):
    torch.manual_seed(0)
    qkv = torch.randn(1, 3, 40, 32)
    scales = torch.full((2, 32), 30.0), torch.full((2, 32), 30.0)
    rotary = rotary_table(torch.zeros(40, 3), (8, 12, 12), 10_000)
    out = torch.empty(1, 40, 32)
    compiled.run([attention(qkv, scales, 0, rotary, None, out, slice(0, 40), 3)])
    assert near(out, exact_attention(qkv, scales, 0, rotary, None, slice(0, 40)), 1, compiled)


def random_transformer(preset=TINY, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(preset.transformer, **changes)
    model = Transformer(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.2 / config.width**0.5)
    return model


def inputs(model, batch, contexts, side=5):
    config = model.config
    target, ids = torch.randn(batch, side * side, 64), picture_ids(0, side, side)
    context = [
        (torch.randn(1, (side + i) * side, 64), picture_ids(i + 1, side + i, side)) for i in range(contexts)
    ]
    text, pooled = torch.randn(batch, 7, config.text_width), torch.randn(batch, config.pooled_width)
    guidance = torch.full((batch,), 2.5) if config.guidance_embed else None
    (mod,) = model.modulations([0.6], pooled, guidance)
    return target, (text, ids, context), mod


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("contexts", [0, 1, 2])
@pytest.mark.parametrize("sees", ["full", "prefix"])
@pytest.mark.parametrize("preset", [TINY, NANO_128], ids=lambda preset: preset.name)
@torch.inference_mode()
def test_the_transformer_is_the_same(chosen, preset, sees, contexts, batch):
    model = random_transformer(preset, context_attention=sees)
    target, given, mod = inputs(model, batch, contexts)
    expected = model.evaluate(target, model.prepare(*given), mod)
    assert use_transformer_kernels(model)
    made = model.evaluate(target, model.prepare(*given), mod)  # prefilled on the kernels as well
    assert float((made - expected).abs().max() / expected.abs().max()) < 5e-5
    assert use_transformer_kernels(model, exact=False)
    rough = model.evaluate(target, model.prepare(*given), mod)
    difference = float((rough - expected).abs().max() / expected.abs().max())
    assert 1e-4 < difference < 3e-2 if chosen.name == "amx" else torch.equal(rough, made)


@pytest.mark.parametrize("after", [0, 1])
@torch.inference_mode()
def test_the_region_head_says_the_same_and_reaches_the_rest(chosen, after):
    model = random_transformer(region_after=after, context_attention="prefix")
    target, given, mod = inputs(model, 2, 1)
    expected, region = model.evaluate_with_region(target, model.prepare(*given), mod)
    assert use_transformer_kernels(model)
    made, made_region = model.evaluate_with_region(target, model.prepare(*given), mod)
    assert float((made - expected).abs().max() / expected.abs().max()) < 5e-5
    assert float((made_region - region).abs().max() / region.abs().max()) < 5e-5
    model.region_head.back.weight.zero_()
    assert float((model.evaluate(target, model.prepare(*given), mod) - made).abs().max()) > 1e-3


@torch.inference_mode()
def test_kernels_are_dropped_when_the_weights_are_moved_or_converted(chosen):
    """They hold the old weights, and would read memory that is no longer there."""
    model, decoder = random_transformer(), load_model("nano").autoencoder.decoder.float()
    assert use_transformer_kernels(model) and use_decoder_kernels(decoder)
    model.to("cpu", torch.float32), decoder.to("cpu", torch.float32)
    assert model.backend is not None and decoder.backend is not None  # nothing has moved
    target, given, mod = inputs(model, 1, 1)
    expected = model.evaluate(target, model.prepare(*given), mod)
    model.double(), decoder.double()
    assert model.backend is None and decoder.backend is None
    text, ids, context = given
    prepared = model.prepare(text.double(), ids, [(tokens.double(), place) for tokens, place in context])
    (mod,) = model.modulations([0.6], torch.randn(1, model.config.pooled_width).double(), None)
    made = model.evaluate(target.double(), prepared, mod)
    assert made.dtype == torch.float64 and made.isfinite().all() and made.shape == expected.shape


@torch.inference_mode()
@pytest.mark.parametrize("output_mlp", [0, 20])
def test_output_gates_and_mlp_are_the_same(chosen, output_mlp):
    model = random_transformer(output_gates=True, output_mlp=output_mlp, context_attention="prefix")
    target, (text, ids, context), mod = inputs(model, 2, 1)
    prepared = model.prepare(text, ids, context, source=torch.randn(2, *target.shape[1:]))
    expected = model.evaluate(target, prepared, mod)
    assert use_transformer_kernels(model)
    prepared = model.prepare(text, ids, context, source=prepared.source)
    made = model.evaluate(target, prepared, mod)
    assert float((made - expected).abs().max() / expected.abs().max()) < 5e-5
    without = model.evaluate(target, model.prepare(text, ids, context), mod)
    assert float((without - made).abs().max()) > 1e-2


@torch.inference_mode()
def test_the_cached_context_of_later_steps_is_the_same(chosen):
    model = random_transformer(context_attention="full")
    target, given, mod = inputs(model, 2, 1)
    prepared = model.prepare(*given)
    expected, cached = model.evaluate_and_cache_context(target, prepared, mod)
    assert use_transformer_kernels(model)
    made, made_cached = model.evaluate_and_cache_context(target, prepared, mod)
    assert torch.allclose(made, expected, atol=2e-4)
    for ours, theirs in zip(made_cached.prefix, cached.prefix):
        assert torch.allclose(ours.keys, theirs.keys, atol=2e-4)
        assert torch.allclose(ours.values, theirs.values, atol=2e-4)


@torch.inference_mode()
def test_results_do_not_depend_on_threads_or_company(chosen, threads):
    model = random_transformer(NANO_128)
    target, (text, ids, context), mod = inputs(model, 4, 1, side=8)
    assert use_transformer_kernels(model)
    made, prepared = [], model.prepare(text, ids, context)
    for count in (1, 2, 5):
        threads(count)
        made.append(model.evaluate(target, prepared, mod))
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    for i in range(4):
        item = slice(i, i + 1)
        alone = dataclasses.replace(prepared, text=prepared.text[item])
        assert torch.equal(model.evaluate(target[item], alone, _rows(mod, item)), made[0][item])


def test_published_weights_need_two_terms(compiled):
    layer = random_linear(64, 64, bfloat16=True)
    assert PackedLinear(compiled, layer, 3).parts == 2
    layer.weight[0, 0] += 1e-5
    assert PackedLinear(compiled, layer, 3).parts == 3


def test_only_what_the_kernels_can_do_is_put_on_them(chosen):
    assert not use_transformer_kernels(random_transformer().bfloat16())
    assert not use_transformer_kernels(random_transformer(width=48, heads=3, axes=(4, 6, 6)))


def test_kernels_of_another_version_are_not_used(compiled):
    assert same_version(compiled.library)
    for other in (SimpleNamespace(), SimpleNamespace(kontext_job_bytes=lambda kind: 8)):
        assert not same_version(other)


def test_openmp_is_found_below_a_path_with_blanks():
    maps = (
        b"7f00-7f10 r-xp 00000000 08:01 42      /home/a person/caf\xe9/torch libs/libgomp-24e2ab19.so.1\n"
        b"7f10-7f20 r--p 00010000 08:01 42      /home/a person/caf\xe9/torch libs/libgomp-24e2ab19.so.1\n"
        b"7f20-7f30 r-xp 00000000 08:01 43      /home/libomp/other.so\n"
        b"7f30-7f40 rw-p 00000000 00:00 0 \n"
        b"7ffc-7ffd r-xp 00000000 00:00 0       [vdso]\n"
    )
    assert openmp_paths(maps) == [os.fsdecode(b"/home/a person/caf\xe9/torch libs/libgomp-24e2ab19.so.1")]


@pytest.mark.parametrize("setting", ["auto", "off", "", *BACKENDS])
def test_the_environment_chooses_the_kernels(monkeypatch, setting):
    monkeypatch.setenv(SETTING, setting)
    automatic = [found for name in BACKENDS[:3] if (found := kernels_for(name)) is not None]
    if setting == "off":
        assert kernels() is None
    elif setting in BACKENDS:
        assert kernels() is kernels_for(setting)
    else:
        assert kernels() is (automatic[0] if automatic else None)


def test_an_unknown_setting_is_refused(monkeypatch):
    monkeypatch.setenv(SETTING, "sse9")
    with pytest.raises(BadConfig, match="KONTEXT_KERNELS must be auto, off or one of amx, .* got 'sse9'"):
        kernels()


def test_the_same_machine_makes_the_same_bits(chosen):
    model = random_transformer(NANO_128)
    target, given, mod = inputs(model, 1, 1, side=8)
    assert use_transformer_kernels(model, exact=False)
    first = model.evaluate(target, model.prepare(*given), mod)
    other = random_transformer(NANO_128)
    assert use_transformer_kernels(other, exact=False)
    assert torch.equal(other.evaluate(target, other.prepare(*given), mod), first)


def test_models_are_loaded_onto_the_kernels(chosen):
    model = load_model("tiny-random")
    accelerate_cpu(model)
    assert model.transformer.backend is not None
    assert all(parameter.dtype == torch.float32 for parameter in model.transformer.parameters())


def test_without_the_kernels_pytorch_does_the_work(monkeypatch):
    monkeypatch.setattr(kontext.kernels, "kernels", lambda: None)
    monkeypatch.setattr(engine_context.torch.cpu, "_is_amx_tile_supported", lambda: True)
    model = load_model("tiny-random")
    accelerate_cpu(model)
    assert model.transformer.backend is None
    assert next(model.transformer.parameters()).dtype == torch.float32
    assert next(model.autoencoder.decoder.parameters()).dtype == torch.bfloat16
    monkeypatch.setattr(engine_context, "WIDE", 64)
    accelerate_cpu(model)
    assert next(model.transformer.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["nano", "nano-128"])
def test_a_processor_with_amx_edits_without_the_kernels(monkeypatch, name):
    """As an installation without a compiler does: the decoder is bfloat16, the linear path is not."""
    picture = (files("kontext") / "examples" / "library.png").read_bytes()
    exact = Editor.load(name, device="cpu").edit(picture, "Make the hair blue", seed=1)
    monkeypatch.setattr(kontext.kernels, "kernels", lambda: None)
    monkeypatch.setattr(engine_context.torch.cpu, "_is_amx_tile_supported", lambda: True)
    editor = Editor.load(name, device="cpu")
    assert next(editor.model.autoencoder.decoder.parameters()).dtype == torch.bfloat16
    made = editor.edit(picture, "Make the hair blue", seed=1)
    difference = np.abs(np.asarray(made.picture, int) - np.asarray(exact.picture, int)).mean()
    assert difference < 0.5 and made.changed_fraction > 0.01  # levels; bfloat16 rounds to 0.5 at 128
    assert editor.edit(picture, "Make it night", seed=1, lock=False).changed_fraction > 0.5


@pytest.fixture(scope="module", params=["nano", "nano-128"])
def decoder(request):
    """A shipped model in float32: random weights would not show the effect of rounding."""
    return load_model(request.param).autoencoder.decoder.float()


@pytest.mark.parametrize("size", [(16, 16), (2, 2), (6, 22), (20, 12)])
@torch.inference_mode()
def test_the_decoder_is_the_same(chosen, decoder, size):
    channels, factor = decoder.conv_in.in_channels, decoder.levels
    z = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
    plain, packed = copy.deepcopy(decoder), copy.deepcopy(decoder)
    assert use_decoder_kernels(packed) and packed.backend is not None
    expected, made = plain(z), packed(z)
    mean, largest = (0.3, 6) if chosen.name == "amx" else (0.002, 0.05)  # levels of 255: 8 bits, or 24
    assert float((made - expected).abs().mean()) * 127.5 < mean
    assert float((made - expected).abs().max()) * 127.5 < largest
    assert torch.equal(packed(z[1:]), made[1:])

    expected, norms = plain.with_norm_stats(z[:1])
    made, made_norms = packed.with_norm_stats(z[:1])
    assert torch.equal(made, packed(z[:1]))
    for ours, theirs in zip(made_norms, norms, strict=True):
        for a, b in zip(ours, theirs):
            allowed = 0.02 if chosen.name == "amx" else 1e-4
            assert torch.allclose(a, b, rtol=allowed, atol=allowed)
    window = Window(2, factor * size[0] - 2, 0, factor * size[1] // 2)
    part, exact = packed.decode_window(z, made_norms, window), plain.decode_window(z, norms, window)
    assert part.shape == exact.shape
    assert float((part - exact).abs().mean()) * 127.5 < mean * 4 / 3


@settings(max_examples=25, deadline=None)
@given(
    channels=st.sampled_from((16, 32, 48, 64)),
    columns=st.sampled_from((3, 12, 16, 32, 48, 80)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    groups=st.sampled_from((0, 1, 4, 16)),
    enlarge=st.booleans(),
)
def test_a_convolution_of_any_size(compiled, channels, columns, height, width, groups, enlarge):
    assume(enlarge or groups == 0 or height * width * channels > groups)  # else PyTorch refuses the norm
    torch.manual_seed(height)
    layer = torch.nn.Conv2d(channels, columns, 3, padding=1).requires_grad_(False)
    norm = torch.nn.GroupNorm(groups, channels, eps=1e-6).requires_grad_(False) if groups else None
    if norm is not None:
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(height, width, channels)
    residual = torch.randn(height << enlarge, width << enlarge, columns)
    owner = KernelDecoder(torch.nn.Sequential(layer), compiled)
    work = _Pass(owner)
    double = x.flatten(0, 1).double()
    sums = torch.zeros(torch.get_num_threads(), channels, 2, dtype=torch.float64)
    sums[-1] = torch.stack((double.sum(0), double.square().sum(0)), -1)
    made = work._convolution(layer, _Picture(x, sums), None if enlarge else norm, None, residual, enlarge)
    work._run()

    picture = x.permute(2, 0, 1)[None]
    if enlarge:
        picture = F.interpolate(picture, scale_factor=2)
    elif norm is not None:
        picture = F.silu(norm(picture))
    expected = layer(picture)[0].permute(1, 2, 0) + residual
    assert near(made.values, expected, 1, compiled)
    flat = made.values.flatten(0, 1).double()
    assert torch.allclose(made.sums.sum(0), torch.stack((flat.sum(0), flat.square().sum(0)), -1), atol=1e-3)
