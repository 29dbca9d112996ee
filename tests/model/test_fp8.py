"""Products in 8-bit floats: as near to exact ones as their rounding allows, on devices that have them."""

import pytest
import torch
import torch.nn.functional as F

from kontext.errors import BadCheckpoint, DeviceUnavailable
from kontext.model import fp8
from kontext.model.fp8 import E4M3, Fp8Linear, Fp8Rows, check_fp8, has_row_scales, multiplies_in_fp8
from kontext.model.linear import linear_rows, weight_rows
from kontext.model.lora import AdaptedLinear, Change, LowRank
from kontext.model.storage_formats import FP8, scaled_format
from kontext.model.stored import CHUNK_NUMBERS, PLAIN, StoredMatrix
from support.device import simulated

ROWS, COLUMNS, TOKENS = 96, 256, 40
ROUNDING = 2**-4  # the largest relative error of rounding to 3 bits of mantissa


@pytest.fixture(autouse=True)
def _untried():
    """What devices can do is tried once; here they change."""
    has_row_scales.cache_clear()
    yield
    has_row_scales.cache_clear()


def plain(weight):
    return StoredMatrix(tuple(weight.shape), PLAIN, (lambda: weight,), weight.nbytes, "file: w")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer_of(weight, bias=None, dtype=torch.float32, resident=True):
    layer = Fp8Linear([plain(weight)], bias, dtype)
    if resident:
        layer.make_resident()
    return layer


@pytest.mark.parametrize("row_scales", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_is_that_of_rounding_both_factors(dtype, row_scales):
    weight, bias = random(ROWS, COLUMNS).to(dtype), random(ROWS, seed=1).to(dtype)
    x = random(2, TOKENS // 2, COLUMNS, seed=2).to(dtype)
    layer = layer_of(weight, bias, dtype)
    layer.row_scales = row_scales
    made, expected = layer(x), F.linear(x.double(), weight.double(), bias.double())
    assert made.dtype == dtype and made.shape == expected.shape
    # Each factor is off by 2^-4 of itself, in bfloat16 by 2^-9 before, or below the smallest normal number
    # by 2^-10 of its scale; and the output by three roundings to bfloat16.
    each = ROUNDING + 2**-9
    largest_x = x.double().abs().amax(-1, keepdim=True) / 448
    largest_w = weight.double().abs().amax(-1) / 448
    magnitude = F.linear(x.double().abs(), weight.double().abs())
    small = 2**-10 * (largest_x * weight.double().abs().sum(-1) + largest_w * x.double().abs().sum(-1, True))
    bound = (2 * each + each**2) * magnitude + 1.1 * small + 3 * 2**-9 * (magnitude + bias.double().abs())
    assert ((made.double() - expected).abs() <= bound).all()
    # Errors are of either sign: two of 2^-4 / sqrt(12) to 2^-4 / sqrt(3) each, and not none.
    error = (made.double() - expected).norm() / expected.norm()
    assert 0.02 < error < 0.055


@pytest.mark.parametrize("row_scales", [True, False])
def test_every_token_and_every_output_has_its_own_scale(row_scales):
    weight, x = random(ROWS, COLUMNS), random(TOKENS, COLUMNS, seed=1)
    weight *= torch.logspace(-4, 4, ROWS)[:, None]
    x *= torch.logspace(-3, 3, TOKENS)[:, None]
    layer = layer_of(weight)
    layer.row_scales = row_scales
    usual = x.norm(dim=1)[:, None] * weight.norm(dim=1) / COLUMNS**0.5  # of an output
    error = (layer(x) - F.linear(x, weight)) / usual
    for dim in (0, 1):
        assert error.square().mean(dim).sqrt().max() < 0.06  # 0.04 on average


@pytest.mark.parametrize("row_scales", [True, False])
def test_rows_of_zeros_give_zeros(row_scales):
    weight, x, bias = random(ROWS, COLUMNS), random(TOKENS, COLUMNS, seed=1), random(ROWS, seed=2).bfloat16()
    weight[3], x[5] = 0, 0
    layer = layer_of(weight, bias.float())
    layer.row_scales = row_scales
    made = layer(x)
    assert made.isfinite().all()
    assert torch.equal(made[5], bias.float())
    assert torch.equal(made[:, 3], bias.float()[3].expand(TOKENS))
    assert torch.equal(layer_of(weight)(x)[5], torch.zeros(ROWS))


def test_what_is_not_finite_stays_so_to_be_found():
    x = random(4, COLUMNS)
    x[1, 7], x[2, 7] = float("nan"), float("inf")
    made = layer_of(random(ROWS, COLUMNS, seed=1))(x)
    assert not made[1].isfinite().any() and not made[2].isfinite().any() and made[0].isfinite().all()
    for number in (float("nan"), float("inf")):
        weight = random(ROWS, COLUMNS)
        weight[9, 9] = number
        with pytest.raises(BadCheckpoint, match="file: w holds 1 numbers that are NaN or infinite"):
            layer_of(weight)
        with pytest.raises(BadCheckpoint, match="file: w holds 1"):
            layer_of(weight, resident=False)(x)


@pytest.mark.parametrize("scale", ["none", "one", "rows"])
@pytest.mark.parametrize("resident", [True, False])
def test_the_numbers_of_an_fp8_file_are_used_as_they_are(scale, resident):
    data = (300 * random(ROWS, COLUMNS).clamp(-1, 1)).to(E4M3)
    scales = {"none": None, "one": torch.tensor(0.037), "rows": torch.rand(ROWS, 1) + 0.01}[scale]
    if scales is None:
        matrix = StoredMatrix((ROWS, COLUMNS), FP8, (lambda: data,), data.nbytes)
        scales = torch.tensor(1.0)
    else:
        matrix = StoredMatrix(
            (ROWS, COLUMNS), scaled_format("fp8"), (lambda: data, lambda: scales), data.nbytes
        )
    layer = Fp8Linear([matrix, plain(random(32, COLUMNS, seed=4))], None, torch.float32)
    if resident:
        layer.make_resident()
    used = layer._quantized(0, layer.out_features)
    assert torch.equal(used.numbers[:ROWS].view(torch.uint8), data.view(torch.uint8))
    assert torch.equal(used.scales[:ROWS], scales.expand(ROWS, 1))
    assert torch.equal(layer.weight[:ROWS], data.float() * scales)
    if resident and scales.ndim == 0:  # another choice of scales would round again
        assert not torch.equal(Fp8Rows.of(data.float() * scales).dense(torch.float32), data.float() * scales)


def test_chunks_of_a_weight_are_quantized_as_the_whole(monkeypatch):
    weight = random(ROWS, COLUMNS)
    whole = layer_of(weight).weight
    monkeypatch.setitem(CHUNK_NUMBERS, "cpu", 7 * COLUMNS)
    assert torch.equal(layer_of(weight).weight, whole)
    assert 0 < (whole - weight).abs().max() <= ROUNDING * weight.abs().max()


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("rows", [slice(None), slice(0, 16), slice(32, 96), slice(5, 41), slice(90, 96)])
def test_some_rows_are_those_of_the_whole(rows, resident):
    weight, bias, x = random(ROWS, COLUMNS), random(ROWS, seed=1), random(3, 4, COLUMNS, seed=2)
    layer = layer_of(weight, bias, resident=resident)
    assert torch.equal(weight_rows(layer, rows), layer.weight[rows])
    made, whole = linear_rows(layer, x, rows), layer(x)[..., rows]
    assert made.shape == whole.shape and (made - whole).abs().max() <= 2**-8 * whole.abs().max()
    assert torch.equal(layer.exact_weight, weight)
    assert not layer(x[:0]).numel() and layer(x[:0]).shape == (0, 4, ROWS)


def test_a_lora_is_a_branch_beside_the_product():
    weight, bias, x = random(ROWS, COLUMNS), random(ROWS, seed=1), random(5, COLUMNS, seed=2)
    layer = layer_of(weight, bias)
    delta = LowRank(random(48, 4, seed=3), 0.1 * random(4, COLUMNS, seed=4))
    adapted = AdaptedLinear(layer, [(Change(delta, first_row=16), 0.7)], layer.bias)
    expected = layer(x)
    branch = 0.7 * delta.product(x, slice(None))
    expected[:, 16:64] += branch
    assert branch.abs().max() > 1
    # sums in float32, in another order
    assert (adapted(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    magnitude = weight[16:64].norm(dim=1, keepdim=True)
    dora = AdaptedLinear(layer, [(Change(delta, magnitude=magnitude, first_row=16), 1.0)], layer.bias)
    changed = layer.weight[16:64] + delta.dense()
    gain = magnitude / changed.norm(dim=1, keepdim=True)
    expected = layer(x)
    product = expected[:, 16:64] - bias[16:64]
    expected[:, 16:64] = bias[16:64] + gain[:, 0] * (product + delta.product(x, slice(None)))
    assert (dora(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_layers_of_other_shapes_and_places_stay_exact():
    for name in (
        "double_blocks.3.img_attn.qkv.weight",
        "double_blocks.18.txt_mlp.2.weight",
        "single_blocks.37.linear1.weight",
    ):
        assert multiplies_in_fp8(name, (32, 48))
        assert not multiplies_in_fp8(name, (32, 40)) and not multiplies_in_fp8(name, (24, 48))
        assert not multiplies_in_fp8(name, (32,))
    for name in (
        *(
            "img_in.weight",
            "final_layer.linear.weight",
            "time_in.in_layer.weight",
            "region_head.logit.weight",
        ),
        *("double_blocks.0.img_mod.lin.weight", "single_blocks.0.modulation.lin.weight"),
        *("double_blocks.0.img_attn.norm.query_norm.scale", "double_blocks.0.img_attn.qkv.bias"),
    ):
        assert not multiplies_in_fp8(name, (32, 48)), name


# Devices


@pytest.mark.parametrize("capability, row_scales", [((8, 9), False), ((9, 0), True), ((12, 0), True)])
def test_gpus_from_ada_on_multiply_in_fp8(capability, row_scales):
    weight, bias, x = random(ROWS, COLUMNS), random(ROWS, seed=1), random(TOKENS, COLUMNS, seed=2)
    expected = layer_of(weight, bias)(x)
    with simulated("cuda") as device:
        device.capability = capability
        check_fp8(torch.device("cuda"))
        layer = Fp8Linear([plain(weight)], bias.to("cuda"), torch.float32, "cuda")
        layer.make_resident()
        assert layer.row_scales == row_scales
        made = layer(x.to("cuda")).cpu()
    # rounded to bfloat16 once, or three times
    assert (made - expected).abs().max() <= (0 if row_scales else 2**-7) * expected.abs().max()


def test_a_build_that_lacks_row_scales_has_them_applied_to_the_output(monkeypatch):
    """PyTorch 2.10 on Blackwell cards has products with one scale only (pytorch issue 192707)."""
    original = torch._scaled_mm

    def without_row_scales(*given, **named):
        if named["scale_a"].numel() > 1:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED")
        return original(*given, **named)

    monkeypatch.setattr(torch, "_scaled_mm", without_row_scales)
    assert not has_row_scales("cpu")
    check_fp8(torch.device("cpu"))
    weight, x = random(ROWS, COLUMNS), random(TOKENS, COLUMNS, seed=2)
    error = layer_of(weight)(x) - F.linear(x, weight)
    assert 0.02 < error.norm() / F.linear(x, weight).norm() < 0.055


@pytest.mark.parametrize(
    "name, capability, words",
    [
        ("cuda", (8, 6), "cuda:0 has 8.6"),
        ("cuda", (7, 5), "cuda:0 has 7.5"),
        ("mps", None, "got mps"),
    ],
)
def test_other_devices_are_refused_in_one_line(name, capability, words):
    with simulated(name) as device:
        device.capability = capability
        with pytest.raises(DeviceUnavailable, match=words) as caught:
            check_fp8(torch.device("cuda:0" if name == "cuda" else name))
    assert "compute capability 8.9" in str(caught.value) and "\n" not in str(caught.value)


def test_a_build_without_such_products_is_refused(monkeypatch):
    monkeypatch.delattr(torch, "_scaled_mm")
    with pytest.raises(DeviceUnavailable, match="does not multiply 8-bit floats on cpu"):
        check_fp8(torch.device("cpu"))
    monkeypatch.undo()
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with simulated("cuda"), pytest.raises(DeviceUnavailable, match="ROCm"):
        fp8.check_fp8(torch.device("cuda"))
