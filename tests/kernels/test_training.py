"""Training on the kernels: outputs and gradients are those of PyTorch."""

import dataclasses

import pytest
import torch

from kontext.kernels import use_training_kernels
from kontext.kernels.library import kernels_for, training_kernels
from kontext.kernels.training import TrainingTransformer
from kontext.kernels.training_passes import Passes
from kontext.model.presets import NANO_256, TINY
from kontext.model.tokens import picture_ids
from kontext.model.transformer import Transformer

TARGETS, SOURCES, TEXT, SIDE = 8, 2, 11, 5
BACKENDS = ("avx512bf16", "avx512", "avx2", "neon")


def random_transformer(preset, **changes):
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(preset.transformer, context_attention="prefix", **changes))
    for parameter in model.parameters():
        spread = 1.2 / model.config.width**0.5 if parameter.ndim > 1 else 0.3
        torch.nn.init.normal_(parameter, std=spread)
    return model


def relative(made, expected):
    return float((made.float() - expected).norm() / expected.norm())


def evaluated(model, bfloat16, contexts, own_positions=False):
    """Outputs of a step of training, and the gradients of everything that goes in: {name: tensor}.

    own_positions: those of each target are different.
    """
    generator = torch.Generator().manual_seed(1)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    config, n = model.config, SIDE * SIDE
    target, weights = noise(TARGETS, n, config.in_channels), noise(TARGETS, n, config.in_channels)
    text = noise(TARGETS, TEXT, config.text_width).requires_grad_()
    pooled = noise(TARGETS, config.pooled_width).requires_grad_()
    pictures = [
        (noise(SOURCES, n, config.in_channels), picture_ids(i + 1, SIDE, SIDE)) for i in range(contexts)
    ]
    positions = picture_ids(0, SIDE, SIDE)
    if own_positions:
        positions = torch.stack([positions[torch.randperm(n, generator=generator)] for _ in range(TARGETS)])
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        prefixes = [model.prefill(tokens, ids) for tokens, ids in pictures]
        prepared = model.prepare(text, positions, prefixes=prefixes)
        mod = model.modulate(model.vector(torch.linspace(0, 1, TARGETS), pooled))
        out, region = model.evaluate_with_region(target, prepared, mod)
    loss = (out.float() * weights).mean()
    if region is not None:
        loss = loss + region.float().square().mean()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    found = {"out": out.detach(), "text": text.grad, "pooled": pooled.grad, **gradients}
    return {name: value.clone() for name, value in found.items() if value is not None}


@pytest.fixture(params=BACKENDS)
def chosen(request):
    """The kernels of one backend that computes gradients, and whether their products are bfloat16."""
    kernels = kernels_for(request.param)
    if kernels is None:
        pytest.skip(f"{request.param} does not run here")
    return kernels, request.param == "avx512bf16"


@pytest.mark.parametrize(
    ("contexts", "own_positions"), [(0, False), (1, False), (2, False), (1, True)], ids=str
)
@pytest.mark.parametrize(
    ("preset", "changes"), [(NANO_256, {}), (TINY, {"qkv_bias": False})], ids=["nano-256", "tiny"]
)
def test_gradients_are_those_of_pytorch(chosen, preset, changes, contexts, own_positions):
    kernels, bfloat16 = chosen
    model = random_transformer(preset, **changes)
    exact = evaluated(model, False, contexts, own_positions)
    torchs = evaluated(model, bfloat16, contexts, own_positions)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    model.backend = TrainingTransformer(model, {dtype: Passes(kernels, dtype)})
    made = evaluated(model, bfloat16, contexts, own_positions)
    assert made.keys() == exact.keys()
    for name, expected in exact.items():
        if not bfloat16:
            assert relative(made[name], expected) < 2e-5, name  # another order of float32 sums
        else:  # rounded to 8 bits between operations, as by PyTorch, whose own error is the measure
            assert relative(made[name], expected) < max(0.01, 2 * relative(torchs[name], expected)), name


@pytest.mark.skipif(training_kernels(bfloat16=False) is None, reason="no kernels for this processor")
def test_training_kernels_follow_the_weights():
    model = random_transformer(TINY)
    assert use_training_kernels(model)
    before = evaluated(model, False, 1)["out"]
    with torch.no_grad():
        model.final_layer.linear.bias += 1
    assert torch.allclose(evaluated(model, False, 1)["out"], before + 1, atol=1e-4)


def test_training_kernels_leave_other_networks_to_pytorch(monkeypatch):
    assert not use_training_kernels(random_transformer(TINY).to(torch.bfloat16))
    full = Transformer(dataclasses.replace(TINY.transformer, context_attention="full"))
    assert not use_training_kernels(full) and full.backend is None
    monkeypatch.setenv("KONTEXT_KERNELS", "off")
    model = random_transformer(TINY)
    assert not use_training_kernels(model) and model.backend is None
