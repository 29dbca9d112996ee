"""Prefix attention: what is cached equals a masked whole sequence and depends on the picture alone."""

import dataclasses
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from kontext.model.blocks import sinusoidal_embedding
from kontext.model.presets import DEV, PRESETS, TINY
from kontext.model.rope import apply_rotary, rotary_table
from kontext.model.tokens import pack, picture_ids, unpack
from kontext.model.transformer import Transformer
from support.numeric import difference, rounding

ROWS = COLUMNS = 3
N = ROWS * COLUMNS
TERMS = 4 * 512
"""Of the longest sums: four blocks, each of products over width (64), hidden width (256) and attention."""


def random_transformer(**changes) -> Transformer:
    """All weights random, so that no branch is silent."""
    from dataclasses import replace

    torch.manual_seed(0)
    model = Transformer(replace(TINY.transformer, **changes)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=1.2 / model.config.width**0.5)
    return model


def inputs(batch: int = 2, contexts: int = 1):
    g = torch.Generator().manual_seed(1)
    target = torch.randn(batch, N, 64, generator=g)
    text = torch.randn(batch, 5, 32, generator=g)
    pooled = torch.randn(batch, 32, generator=g)
    times = torch.rand(batch, generator=g)
    sizes = [(3, 3), (2, 4), (1, 2)][:contexts]
    context = [
        (torch.randn(batch, r * c, 64, generator=g), picture_ids(i + 1, r, c))
        for i, (r, c) in enumerate(sizes)
    ]
    return target, text, pooled, times, context


def masked_forward(model, target, text, pooled, times, ids, context):
    """The same network as one sequence [text | target | contexts], without a cache.

    Attention is masked and modulated by part.
    """
    config = model.config
    parts = [text.shape[1] + target.shape[1], *(tokens.shape[1] for tokens, _ in context)]
    part_of = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(parts))
    sees = (part_of[:, None] == part_of[None, :]) | (part_of[:, None] == 0)
    table = rotary_table(
        torch.cat([torch.zeros(text.shape[1], 3), ids, *(i for _, i in context)]), config.axes, config.theta
    )
    vec = F.silu(model.vector(times, pooled))
    vec0 = F.silu(model.time_in(sinusoidal_embedding(torch.zeros(len(target)))))
    length, texts = int(sum(parts)), text.shape[1]

    def modulation(layer, start, stop, count):
        own = layer(vec).unsqueeze(1).expand(-1, length, -1)
        zero = layer(vec0).unsqueeze(1).expand(-1, length, -1)
        return torch.where((part_of == 0)[None, :, None], own, zero)[:, start:stop].chunk(count, -1)

    def norm(x):
        return F.layer_norm(x, x.shape[-1:], eps=1e-6)

    def heads(x):
        return rearrange(x, "b n (k h d) -> k b h n d", k=3, h=config.heads)

    def turned(x):
        return apply_rotary(x.transpose(1, 2)[:, :, None], table)[:, :, 0].transpose(1, 2)

    def attend(q, k, v):
        out = F.scaled_dot_product_attention(turned(q), turned(k), v, attn_mask=sees)
        return rearrange(out, "b h n d -> b n (h d)")

    image = model.img_in(torch.cat([target, *(tokens for tokens, _ in context)], 1))
    words = model.txt_in(text)
    for block in model.double_blocks:
        i = modulation(block.img_mod.lin, texts, length, 6)
        t = modulation(block.txt_mod.lin, 0, texts, 6)
        qi, ki, vi = heads(block.img_attn.qkv((1 + i[1]) * norm(image) + i[0]))
        qt, kt, vt = heads(block.txt_attn.qkv((1 + t[1]) * norm(words) + t[0]))
        qi, ki = block.img_attn.norm.query_norm(qi), block.img_attn.norm.key_norm(ki)
        qt, kt = block.txt_attn.norm.query_norm(qt), block.txt_attn.norm.key_norm(kt)
        out = attend(torch.cat((qt, qi), 2), torch.cat((kt, ki), 2), torch.cat((vt, vi), 2))
        words = words + t[2] * block.txt_attn.proj(out[:, :texts])
        words = words + t[5] * block.txt_mlp((1 + t[4]) * norm(words) + t[3])
        image = image + i[2] * block.img_attn.proj(out[:, texts:])
        image = image + i[5] * block.img_mlp((1 + i[4]) * norm(image) + i[3])
    x = torch.cat((words, image), 1)
    for block in model.single_blocks:
        m = modulation(block.modulation.lin, 0, length, 3)
        qkv, mlp = block.linear1((1 + m[1]) * norm(x) + m[0]).split((3 * config.width, block.hidden), -1)
        q, k, v = heads(qkv)
        out = attend(block.norm.query_norm(q), block.norm.key_norm(k), v)
        x = x + m[2] * block.linear2(torch.cat((out, F.gelu(mlp, approximate="tanh")), -1))
    x = x[:, texts : texts + target.shape[1]]
    shift, scale = model.final_layer.adaLN_modulation[1](vec)[:, None].chunk(2, -1)
    return model.final_layer.linear((1 + scale) * norm(x) + shift)


@pytest.mark.parametrize("contexts", [0, 1, 2, 3])
@torch.no_grad()
def test_cached_context_equals_masked_attention(contexts):
    model = random_transformer()
    target, text, pooled, times, context = inputs(contexts=contexts)
    ids = picture_ids(0, ROWS, COLUMNS)
    cached = model(target, text, pooled, times, None, ids, context)
    masked = masked_forward(model, target, text, pooled, times, ids, context)
    assert difference(cached, masked) <= rounding(TERMS)
    assert cached.abs().max() > 0.01


@torch.no_grad()
def test_a_prefix_computed_before_equals_one_computed_now():
    model = random_transformer()
    target, text, pooled, times, context = inputs(contexts=2)
    ids = picture_ids(0, ROWS, COLUMNS)
    prefixes = [model.prefill(tokens, where) for tokens, where in context]
    prepared = model.prepare(text, ids, prefixes=prefixes)
    made = model.evaluate(target, prepared, model.modulate(model.vector(times, pooled)))
    assert torch.equal(made, model(target, text, pooled, times, None, ids, context))


@torch.no_grad()
def test_a_prefix_holds_no_more_memory_than_it_says():
    tokens, where = inputs()[-1][0]
    prefix = random_transformer().prefill(tokens, where)
    parts = [part for block in prefix.blocks for part in block]
    assert sum(part.untyped_storage().nbytes() for part in parts) == prefix.bytes


@torch.no_grad()
def test_keys_and_values_are_of_the_picture_alone():
    """Bit-equal whatever the prompt, the noise and the time of the edits around them."""
    model = random_transformer()
    _, _, _, _, context = inputs()
    tokens, where = context[0]
    first = model.prefill(tokens[:1], where)
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        model(
            torch.randn(1, N, 64, generator=g),
            torch.randn(1, 5, 32, generator=g),
            torch.randn(1, 32, generator=g),
            torch.rand(1, generator=g),
            None,
            picture_ids(0, ROWS, COLUMNS),
            [(tokens[:1], where)],
        )
        again = model.prefill(tokens[:1], where)
        for a, b in zip(first.blocks, again.blocks):
            assert torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)


@pytest.mark.parametrize("attention", ["full", "prefix"])
@torch.no_grad()
def test_a_batch_of_three_equals_three_singles(attention):
    model = random_transformer(context_attention=attention)
    target, text, pooled, times, context = inputs(batch=3)
    ids = picture_ids(0, ROWS, COLUMNS)
    together = model(target, text, pooled, times, None, ids, context)
    for i in range(3):
        item = slice(i, i + 1)
        alone = model(
            target[item], text[item], pooled[item], times[item], None, ids, [(t[item], w) for t, w in context]
        )
        assert difference(together[item], alone) <= rounding(TERMS)


@torch.no_grad()
def test_one_prefix_serves_a_batch_of_variants():
    model = random_transformer()
    target, text, pooled, times, context = inputs(batch=3)
    ids = picture_ids(0, ROWS, COLUMNS)
    tokens, where = context[0]
    prepared = model.prepare(text, ids, prefixes=[model.prefill(tokens[:1], where)])
    shared = model.evaluate(target, prepared, model.modulate(model.vector(times, pooled)))
    repeated = model(target, text, pooled, times, None, ids, [(tokens[:1].expand(3, -1, -1), where)])
    assert difference(shared, repeated) <= rounding(TERMS)


@pytest.mark.parametrize("guidance", [False, True])
@torch.no_grad()
def test_modulations_of_all_steps_at_once_equal_one_by_one(guidance):
    model = random_transformer(guidance_embed=guidance)
    pooled = torch.randn(2, 32)
    strength = torch.full((2,), 2.5) if guidance else None
    for t, every in zip([1.0, 0.5, 0.1], model.modulations([1.0, 0.5, 0.1], pooled, strength)):
        single_step = model.modulate(model.vector(torch.full((2,), t), pooled, strength))
        pairs = [(every.final.shift, single_step.final.shift)]
        pairs += [pair for a, b in zip(every.single, single_step.single) for pair in zip(a[0], b[0])]
        pairs += [(a[1][1].gate, b[1][1].gate) for a, b in zip(every.double, single_step.double)]
        # Sums over the sinusoids, over the two layers of an embedder and over the modulation's own.
        assert max(difference(*pair) for pair in pairs) <= rounding(256 + 3 * model.config.width)


def test_missing_guidance_is_refused():
    model = random_transformer(guidance_embed=True)
    with pytest.raises(ValueError, match="guidance"):
        model.vector(torch.ones(1), torch.ones(1, 32))


def test_before_training_the_velocity_is_zero():
    model = Transformer(TINY.transformer)
    model.initialize()
    target, text, pooled, times, context = inputs()
    made = model(target, text, pooled, times, None, picture_ids(0, ROWS, COLUMNS), context)
    assert torch.equal(made, torch.zeros_like(made))


def test_rotary_scores_depend_on_relative_positions_only():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 1, 1, 1, 32, generator=g), torch.randn(1, 1, 1, 1, 32, generator=g)
    axes = (8, 12, 12)

    def score(a, b):
        first, second = (
            apply_rotary(x, rotary_table(torch.tensor([p]), axes, 1e4)) for x, p in ((q, a), (k, b))
        )
        return (first * second).sum()

    assert score([0.0, 3, 4], [1.0, 5, 9]) == pytest.approx(
        score([2.0, 13, 0], [3.0, 15, 5]).item(), abs=1e-4
    )
    assert abs(score([0.0, 0, 0], [0.0, 0, 1]) - score([0.0, 0, 0], [0.0, 1, 0])) > 1e-3


def test_rotary_leaves_position_zero_as_it_is():
    x = torch.randn(1, 1, 2, 3, 32)
    assert torch.equal(apply_rotary(x, rotary_table(torch.zeros(1, 3), (8, 12, 12), 1e4)), x)


def test_packing_is_reversible_with_channels_slowest():
    latents = torch.arange(2 * 16 * 4 * 6, dtype=torch.float32).reshape(2, 16, 4, 6)
    tokens = pack(latents)
    assert tokens.shape == (2, 6, 64)
    assert torch.equal(tokens[0, 0, :4], latents[0, 0, :2, :2].flatten())
    assert torch.equal(unpack(tokens, 4, 6), latents)


def test_presets_are_consistent():
    for preset in PRESETS.values():
        config = preset.transformer
        assert config.in_channels == 4 * preset.autoencoder.latent_channels
        assert config.text_width == preset.t5.width and config.pooled_width == preset.clip.width
        assert all(side % 16 == 0 for size in preset.sizes for side in size)
    assert len(DEV.sizes) == 17


@torch.no_grad()
def test_a_predicted_picture_gives_the_velocity_toward_it():
    model = random_transformer(prediction="picture")
    target, text, pooled, _, context = inputs()
    ids, times = picture_ids(0, ROWS, COLUMNS), torch.tensor([0.02, 0.7])
    velocity = model(target, text, pooled, times, None, ids, context)
    prepared = model.prepare(text, ids, context)
    picture = model.evaluate(target, prepared, model.modulate(model.vector(times, pooled)))
    assert torch.equal(velocity[1], (target[1] - picture[1]) / times[1])
    assert torch.equal(velocity[0], (target[0] - picture[0]) / 0.1)  # times near 0 are kept from it


@torch.no_grad()
def test_the_region_head_adds_nothing_before_training_and_then_reaches_the_velocity():
    plain, headed = random_transformer(), random_transformer(region_after=1)
    headed.load_state_dict(plain.state_dict(), strict=False)
    for parameter in headed.region_head.parameters():
        parameter.zero_()
    target, text, pooled, times, context = inputs()
    prepared = headed.prepare(text, picture_ids(0, ROWS, COLUMNS), context)
    mod = headed.modulate(headed.vector(times, pooled))
    velocity, region = headed.evaluate_with_region(target, prepared, mod)
    without, nothing = plain.evaluate_with_region(target, prepared, mod)
    assert nothing is None and region.shape == (2, N) and not region.any()
    assert torch.equal(velocity, without)
    headed.region_head.back.weight.copy_(torch.randn(headed.config.width, 1))
    headed.region_head.logit.weight.copy_(torch.randn(1, headed.config.width))
    velocity, region = headed.evaluate_with_region(target, prepared, mod)
    assert region.std() > 0 and (velocity - without).abs().max() > 1e-3


@torch.no_grad()
def test_output_gates_pass_target_and_source_to_the_prediction():
    plain, gated = random_transformer(), random_transformer(output_gates=True)
    channels = plain.config.in_channels
    for name, parameter in gated.state_dict().items():
        value = plain.state_dict()[name]
        parameter.zero_()[: len(value)] = value  # gates of 0 pass nothing
    target, text, pooled, times, context = inputs()
    ids = picture_ids(0, ROWS, COLUMNS)
    velocity = plain(target, text, pooled, times, None, ids, context)
    assert torch.equal(gated(target, text, pooled, times, None, ids, context), velocity)

    source = context[0][0]
    gated.final_layer.linear.bias[channels : 2 * channels] = 0.5
    gated.final_layer.linear.bias[2 * channels :] = torch.linspace(-1, 2, channels)
    expected = velocity + 0.5 * target + torch.linspace(-1, 2, channels) * source
    made = gated(target, text, pooled, times, None, ids, context)
    assert torch.allclose(made, expected, atol=1e-5)
    made = gated(target, text, pooled, times, None, ids)  # nothing is edited
    without = plain(target, text, pooled, times, None, ids)
    assert torch.allclose(made, without + 0.5 * target, atol=1e-5)


@torch.no_grad()
def test_an_output_mlp_adds_what_the_network_steers_it_to():
    plain, made = random_transformer(), random_transformer(output_mlp=12)
    channels = plain.config.in_channels
    for name, value in plain.state_dict().items():
        made.state_dict()[name][: len(value)] = value
    target, text, pooled, times, context = inputs()
    ids, source = picture_ids(0, ROWS, COLUMNS), context[0][0]
    velocity = plain(target, text, pooled, times, None, ids, context)
    steering = torch.linspace(-1, 2, 24)  # the same everywhere, whatever the network has seen
    made.final_layer.linear.weight[channels:] = 0
    made.final_layer.linear.bias[channels:] = steering
    first, second = made.output_mlp.tokens, made.output_mlp.out

    def added(seen):
        gate, value = (F.linear(seen, first.weight, first.bias) + steering).chunk(2, dim=-1)
        return F.linear(F.gelu(gate, approximate="tanh") * value, second.weight, second.bias)

    expected = velocity + added(torch.cat((target, source.expand_as(target)), -1))
    found = made(target, text, pooled, times, None, ids, context)
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    expected = plain(target, text, pooled, times, None, ids) + added(
        torch.cat((target, torch.zeros_like(target)), -1)
    )  # nothing is edited
    found = made(target, text, pooled, times, None, ids)
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_an_untrained_output_mlp_adds_nothing():
    network = Transformer(dataclasses.replace(TINY.transformer, output_mlp=12))
    network.initialize()
    assert not network.output_mlp.out.weight.any() and network.output_mlp.tokens.weight.any()


def test_a_region_head_must_sit_between_single_blocks():
    with pytest.raises(ValueError, match="region_after must be 0 to 1, got 2"):
        random_transformer(region_after=2)


def test_each_target_may_have_positions_of_its_own():
    model = random_transformer()
    target, text, pooled, times, context = inputs()
    all_ids = picture_ids(0, 5, 5)
    own = torch.stack([all_ids[:N], all_ids[9 : 9 + N]])
    together = model(target, text, pooled, times, None, own, context)
    for i, ids in enumerate(own):
        part = slice(i, i + 1)
        picture = [(tokens[part], places) for tokens, places in context]
        alone = model(target[part], text[part], pooled[part], times[part], None, ids, picture)
        assert difference(together[part], alone) <= rounding(TERMS)
    assert difference(
        together, model(target, text, pooled, times, None, own.flip(0), context)
    ) > 100 * rounding(TERMS)


def test_positions_advance_by_the_step_of_the_preset():
    whole, half = random_transformer(), random_transformer(position_step=0.5)
    target, text, pooled, times, context = inputs()
    ids = picture_ids(0, ROWS, COLUMNS)
    scale = torch.tensor([1.0, 0.5, 0.5])
    closer = [(tokens, places * scale) for tokens, places in context]
    expected = whole(target, text, pooled, times, None, ids * scale, closer)
    assert torch.equal(half(target, text, pooled, times, None, ids, context), expected)
    assert not torch.equal(half(target, text, pooled, times, None, ids * scale, closer), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_rotation_equals_that_of_complex_numbers_with_gradients(monkeypatch, dtype):
    x = torch.randn(2, 9, 2, 3, 32, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    table = rotary_table(picture_ids(0, 3, 3), (8, 12, 12), 1e4)
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", partial(bool, compiling))
        turned = apply_rotary(x, table)
        results.append((turned, *torch.autograd.grad(turned.float().pow(3).sum(), x)))
    for complex_, separate in zip(*results):
        assert complex_.dtype == dtype and torch.equal(complex_, separate)
