"""What is stored in fewer bits stands for the numbers that other code makes of it; layers use these."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kontext.errors import BadCheckpoint
from kontext.model.ggml import FORMATS
from kontext.model.linear import StoredEmbedding, StoredLinear, weight_rows
from kontext.model.storage_formats import FP8, floats_of_fp8, ggml_format, hadamard, scaled_format
from kontext.model.stored import CHUNK_NUMBERS, PLAIN, StoredMatrix, joined_dense
from support import packed_files

ROWS, COLUMNS = 48, 512


def plain(weight, name="w"):
    return StoredMatrix(tuple(weight.shape), PLAIN, (lambda: weight,), weight.nbytes, name)


def blocks_of(kind, rows=ROWS, seed=0):
    pytest.importorskip("gguf")
    return packed_files.random_blocks(kind, rows, COLUMNS, np.random.default_rng(seed))


def packed(kind, rows=ROWS, seed=0):
    data = torch.from_numpy(blocks_of(kind, rows, seed))
    return StoredMatrix((rows, COLUMNS), ggml_format(FORMATS[kind]), (lambda: data,), data.nbytes, kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_expand_to_the_bits_of_the_gguf_package(kind):
    import gguf

    known, type_ = FORMATS[kind], gguf.GGMLQuantizationType[kind]
    assert (known.number, known.numbers, known.bytes) == (int(type_), *gguf.GGML_QUANT_SIZES[type_])
    expected = packed_files.blocks_as_numbers(kind, blocks_of(kind))
    made = packed(kind).dequantize(torch.float32)
    assert torch.equal(made, expected) and 0.003 < expected.std() < 0.3


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_all_8_bit_floats_are_what_pytorch_says(dtype):
    data = torch.arange(256, dtype=torch.uint8).view(dtype)
    expected = data.float()
    kept = expected.isfinite()
    assert torch.equal(floats_of_fp8(data)[kept], expected[kept])
    assert kept.sum() >= 248


def test_the_rotation_is_the_regular_hadamard_matrix_and_its_own_inverse():
    x = torch.randn(7, 256, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(hadamard(x), x @ packed_files.rotation(256), atol=1e-5)
    assert torch.allclose(hadamard(hadamard(x)), x, atol=1e-5)
    with pytest.raises(ValueError, match="power of 4"):
        hadamard(torch.zeros(2, 32))


@pytest.mark.parametrize("kind", ["Q4_K", "Q8_0"])
def test_rows_and_chunks_are_parts_of_the_whole(kind, monkeypatch):
    matrix = packed(kind)
    whole = matrix.dequantize(torch.float32)
    assert torch.equal(matrix.rows(5, 17).dequantize(torch.float32), whole[5:17])
    monkeypatch.setitem(CHUNK_NUMBERS, "cpu", 3 * COLUMNS)  # 16 chunks
    assert torch.equal(matrix.dequantize(torch.float32), whole)
    assert torch.equal(matrix.dequantize(torch.bfloat16), whole.bfloat16())


def test_plain_numbers_of_the_type_wanted_are_not_copied():
    weight = torch.randn(4, 8).bfloat16()
    assert plain(weight).dequantize(torch.bfloat16).data_ptr() == weight.data_ptr()
    assert torch.equal(plain(weight).dequantize(torch.float32), weight.float())


@pytest.mark.parametrize("fetched", [False, True])
@pytest.mark.parametrize("kind", [*FORMATS, "fp8", "bfloat16"])
def test_a_stored_linear_equals_one_of_the_expanded_weight(kind, fetched):
    generator = torch.Generator().manual_seed(1)
    weight = 0.05 * torch.randn(ROWS, COLUMNS, generator=generator)
    if kind == "fp8":
        data, scale = (weight / 0.01).to(torch.float8_e4m3fn), torch.tensor(0.01)
        size = data.nbytes + scale.nbytes
        matrix = StoredMatrix((ROWS, COLUMNS), scaled_format("fp8"), (lambda: data, lambda: scale), size)
        numbers = (data.float() * scale).bfloat16()
    elif kind == "bfloat16":
        matrix, numbers = plain(weight.bfloat16()), weight.bfloat16()
    else:
        matrix = packed(kind)
        numbers = packed_files.blocks_as_numbers(kind, blocks_of(kind)).bfloat16()
    bias = torch.randn(ROWS, generator=generator).bfloat16()
    x = torch.randn(2, 9, COLUMNS, generator=generator).bfloat16()
    layer = StoredLinear([matrix], bias, torch.bfloat16)
    if fetched:
        layer.fetch()
    assert torch.equal(layer.weight, numbers)
    assert torch.equal(layer(x), F.linear(x, numbers, bias))
    assert torch.equal(weight_rows(layer, slice(7, 20)), numbers[7:20])
    assert (layer.in_features, layer.out_features) == (COLUMNS, ROWS)
    layer.release()
    assert torch.equal(layer(x), F.linear(x, numbers, bias))


def test_parts_of_a_linear_act_as_one_without_being_joined(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    pieces = [torch.randn(rows, 32, generator=generator) for rows in (8, 8, 8, 32)]
    bias, x = torch.randn(56, generator=generator), torch.randn(3, 32, generator=generator)
    layer = StoredLinear([plain(piece) for piece in pieces], bias, torch.float32)
    joined = torch.cat(pieces)
    # the products of parts may add in another order than one product: a rounding of sums of 32 terms
    assert (layer(x) - F.linear(x, joined, bias)).abs().max() <= 1e-5
    assert torch.equal(layer.weight, joined)
    for rows in (slice(0, 56), slice(6, 9), slice(8, 24), slice(20, 50)):
        assert torch.equal(weight_rows(layer, rows), joined[rows])
    mixed = StoredLinear([plain(pieces[0]), packed_rows(pieces[1])], None, torch.float32)
    assert torch.equal(mixed.weight, torch.cat((pieces[0], pieces[1].to(torch.float8_e5m2).float())))


def packed_rows(weight):
    data = weight.to(torch.float8_e5m2)
    return StoredMatrix(tuple(weight.shape), FP8, (lambda: data,), data.nbytes)


def test_an_embedding_reads_the_rows_asked_for():
    weight = torch.randn(20, 8)
    ids = torch.tensor([[3, 3], [19, 0]])
    assert torch.equal(StoredEmbedding([plain(weight)], torch.float32)(ids), F.embedding(ids, weight))
    matrix = packed("Q6_K")
    embedded = StoredEmbedding([matrix], torch.float32)(ids)
    assert torch.equal(embedded, F.embedding(ids, matrix.dequantize(torch.float32)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_named_when_a_stored_weight_is_first_used(value):
    weight = torch.ones(4, 8)
    weight[2, 3] = value
    for matrix in (plain(weight, "file: layer"), packed_rows(weight)):
        layer = StoredLinear([plain(torch.ones(3, 8)), matrix], None, torch.float32)
        with pytest.raises(BadCheckpoint, match=f"{matrix.name} holds 1 numbers"):
            layer(torch.ones(1, 8))
    nan = torch.full((2, 8), float("nan")).to(torch.float8_e4m3fn)
    only = StoredMatrix((2, 8), FP8, (lambda: nan,), 16, "n")
    with pytest.raises(BadCheckpoint, match="n holds 16 numbers"):
        StoredLinear([only], None, torch.bfloat16)(torch.ones(1, 8).bfloat16())


def test_matrices_of_different_forms_are_joined_in_one_type():
    first, second = torch.randn(3, 16), torch.randn(2, 16)
    joined = joined_dense([plain(first), packed_rows(second)], torch.bfloat16)
    assert torch.equal(joined, torch.cat((first, second.to(torch.float8_e5m2).float())).bfloat16())
