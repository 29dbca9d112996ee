"""Normalized attention guidance against the formulas of its paper (Chen et al., arXiv 2505.21179)."""

import dataclasses

import pytest
import torch

from kontext.model.attention_guidance import AttentionGuidance
from kontext.model.presets import TINY
from kontext.model.rope import apply_rotary, rotary_table
from kontext.model.tokens import picture_ids
from kontext.model.transformer import Transformer
from support.numeric import difference, rounding

TERMS = 4 * 500
"""Of the transformer's longest sums: three blocks and the projections around them."""


def paper(prompt, negative, phi, tau, alpha):
    """One token's guided features, number by number: extrapolation, L1 normalization, refinement."""
    far = [p + phi * (p - n) for p, n in zip(prompt, negative)]
    ratio = sum(map(abs, far)) / sum(map(abs, prompt))
    limited = [value * min(ratio, tau) / ratio for value in far]
    return [alpha * value + (1 - alpha) * p for value, p in zip(limited, prompt)]


@pytest.mark.parametrize("scale, limit, share", [(5.0, 2.5, 0.25), (3.0, 1.1, 0.5), (30.0, 2.5, 1.0)])
def test_guided_features_are_those_of_the_paper(scale, limit, share):
    attended = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(1))
    found = AttentionGuidance(scale, limit, share)(attended, text_rows=3)
    assert torch.equal(found[:, :3], attended[:, :3]) and torch.equal(found[0, 3:], found[1, 3:])
    stated = [
        paper(*pair, scale - 1, limit, share)
        for pair in zip(attended[0, 3:].tolist(), attended[1, 3:].tolist())
    ]
    assert difference(found[0, 3:], torch.tensor(stated)) <= rounding(6 * 16)


def test_growth_of_a_token_is_limited():
    attended = torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(2))
    found = AttentionGuidance(20.0, limit=1.5, share=1.0)(attended, text_rows=0)[0]
    growth = found.abs().sum(-1) / attended[0].abs().sum(-1)
    assert growth.max() <= 1.5 * (1 + 1e-5) and growth.max() > 1.49


def network(context_attention):
    torch.manual_seed(0)
    config = dataclasses.replace(
        TINY.transformer, context_attention=context_attention, guidance_embed=True, depth_double=2
    )
    transformer = Transformer(config).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return transformer


def attention(q, k, v, others=None):
    """Softmax attention of one prompt's sequence, (rows, heads, width) each."""
    if others is not None:
        k, v = (
            torch.cat((k, others.keys[0].transpose(0, 1))),
            torch.cat((v, others.values[0].transpose(0, 1))),
        )
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)


def stated(transformer, picture, texts, mod, tables, guide, prefix):
    """The network over one picture and two texts, one after the other, as the paper describes it."""
    picture_rows = len(picture)
    blocks = iter(prefix or [None] * 99)

    def both(streams_of, others):
        """Attention of the picture with each text; returns the guided picture and the two texts."""
        texts_out, pictures_out = [], []
        for which in (0, 1):
            (qk, v), rows = streams_of(which), len(texts[which])
            qk = apply_rotary(qk[None], tables[which])[0]
            out = attention(qk[:, 0], qk[:, 1], v[:, 0], others)
            texts_out.append(out[:rows])
            pictures_out.append(out[rows:])
        lines = zip(pictures_out[0].tolist(), pictures_out[1].tolist())
        return torch.tensor(
            [paper(p, n, guide.scale - 1, guide.limit, guide.share) for p, n in lines]
        ), texts_out

    def joined(block_text, block_picture, text_mod, picture_mod, which):
        parts = [
            stream.project(part_mod.modulated_norm(rows[None]))
            for stream, part_mod, rows in (
                (block_text, text_mod, texts[which]),
                (block_picture, picture_mod, picture),
            )
        ]
        return tuple(torch.cat([part[i][0] for part in parts]) for i in (0, 1))

    for block, (picture_mod, text_mod) in zip(transformer.double_blocks, mod.double):
        guided, texts_out = both(
            lambda which: joined(block.txt_attn, block.img_attn, text_mod[0], picture_mod[0], which),  # noqa: B023
            next(blocks),
        )
        finish = block._finish
        texts = [
            finish(text[None], out[None], text_mod, block.txt_attn, block.txt_mlp)[0]
            for text, out in zip(texts, texts_out)
        ]
        picture = finish(picture[None], guided[None], picture_mod, block.img_attn, block.img_mlp)[0]

    for block, (branch,) in zip(transformer.single_blocks, mod.single):

        def project(which):
            rows = branch.modulated_norm(torch.cat((texts[which], picture))[None])  # noqa: B023
            qkv = block.linear1(rows)[..., : 3 * block.width].unflatten(-1, (3, block.heads, -1))  # noqa: B023
            return block.norm(qkv[:, :, :2])[0], qkv[0, :, 2:]  # noqa: B023

        guided, texts_out = both(project, next(blocks))

        def update(rows, attended):
            mlp = block.linear1(branch.modulated_norm(rows[None]))[0, :, 3 * block.width :]  # noqa: B023
            joined = torch.cat((attended, torch.nn.functional.gelu(mlp, approximate="tanh")), -1)
            return rows + branch.gate[0] * block.linear2(joined)  # noqa: B023

        texts, picture = [update(*pair) for pair in zip(texts, texts_out)], update(picture, guided)
    assert len(picture) == picture_rows
    return transformer.final_layer(picture[None], mod.final)


@torch.no_grad()
@pytest.mark.parametrize("context_attention", ["full", "prefix"])
def test_the_network_equals_its_plain_statement(context_attention):
    transformer = network(context_attention)
    config, generator = transformer.config, torch.Generator().manual_seed(3)

    def noise(*shape):
        return torch.randn(shape, generator=generator)

    target, text, pooled = noise(1, 12, 64), noise(2, 5, config.text_width), noise(1, config.pooled_width)
    ids, context = picture_ids(0, 3, 4), [(noise(1, 6, 64), picture_ids(1, 2, 3))]
    guide = AttentionGuidance(5.0)
    vector = transformer.vector(torch.tensor([0.7]), pooled, torch.tensor([2.5]))
    twice = transformer.modulate(vector.repeat(2, 1))
    prepared = transformer.prepare(
        text, ids, [(tokens.repeat(2, 1, 1), ids_) for tokens, ids_ in context], guidance=guide
    )
    found = transformer.evaluate(target.repeat(2, 1, 1), prepared, twice)

    mod, full = transformer.modulate(vector), context_attention == "full"
    rows = torch.cat((target, *(tokens for tokens, _ in context)), 1) if full else target
    all_ids = torch.cat((torch.zeros(5, 3), ids, *(ids_ for _, ids_ in context if full)))
    table = rotary_table(all_ids, config.axes, config.theta)
    prefix = None if full else transformer.prefill(*context[0]).blocks
    texts = list(transformer.txt_in(text))
    expected = stated(transformer, transformer.img_in(rows)[0], texts, mod, (table, table), guide, prefix)[
        :, :12
    ]
    assert torch.equal(found[0], found[1])
    assert difference(found[:1], expected) <= rounding(TERMS)
    plain = transformer.evaluate(target, transformer.prepare(text[:1], ids, context), mod)
    assert difference(plain, expected) > 0.01
