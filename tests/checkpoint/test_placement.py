"""Streamed and packed weights on a device: the same bits as resident ones, two blocks at a time."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from kontext.checkpoint import load_model, open_checkpoint, random_model, save_model
from kontext.checkpoint.convert import convert
from kontext.checkpoint.names import PARTS
from kontext.checkpoint.placement import Placement
from kontext.engine import Editor
from kontext.errors import Cancelled
from kontext.model.fp8 import Fp8Linear
from kontext.model.linear import StoredLinear, StoredWeight
from support import packed_files
from support.device import simulated
from support.packed_files import WIDE, velocity

BLOCKS = [f"transformer.double_blocks.{i}" for i in range(2)] + [
    f"transformer.single_blocks.{i}" for i in range(3)
]
TYPES = dict.fromkeys(PARTS, torch.bfloat16)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same random model in bfloat16, as our folder and as diffusers', and with a transformer of Q4_K."""
    home = tmp_path_factory.mktemp("files")
    save_model(random_model(WIDE), home / "float32")
    convert(home / "float32", home / "bfloat16", "kontext", dtype="bfloat16")
    convert(home / "float32", home / "diffusers", "diffusers", dtype="bfloat16")
    convert(home / "float32", home / "Q4_K", "kontext", dtype="bfloat16")
    random, tensors = np.random.default_rng(0), {}
    for name, tensor in open_checkpoint(home / "bfloat16").parts["transformer"].weights.items():
        if len(tensor.shape) == 2 and tensor.shape[1] % 256 == 0:
            tensors[name] = ("Q4_K", packed_files.random_blocks("Q4_K", *tensor.shape, random))
        else:
            tensors[name] = ("F32", tensor.read().float().numpy())
    (home / "Q4_K" / "transformer.safetensors").unlink()
    packed_files.write_gguf(home / "Q4_K" / "transformer.gguf", tensors)
    return home


def placed(path, device="cpu", **settings):
    placement = Placement(torch.device(device), TYPES, **settings)
    return load_model(path, place=lambda *_: placement)


STREAMED = {
    "all": frozenset(PARTS),
    "some blocks": frozenset(BLOCKS[1::2]),
    "modulations": frozenset(
        [f"{block}.{mod}" for block in BLOCKS[:2] for mod in ("img_mod", "txt_mod")]
        + [f"{block}.modulation" for block in BLOCKS[2:]]
    ),
    "text": frozenset({"t5", "clip"}),
}


@pytest.mark.parametrize("file", ["bfloat16", "diffusers", "Q4_K"])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_streamed_weights_give_the_bits_of_resident_ones(files, file, device):
    with simulated("cuda" if device == "cpu" else device):
        expected = velocity(placed(files / file, device, expanded=False))
        assert torch.equal(velocity(placed(files / file, device)), expected)
        for streamed in STREAMED.values():
            assert torch.equal(velocity(placed(files / file, device, streamed=streamed)), expected)


@pytest.mark.parametrize("file, device", [("bfloat16", "cuda"), ("diffusers", "cpu"), ("Q4_K", "cuda")])
def test_products_in_fp8_give_the_same_bits_wherever_the_weights_are(files, file, device):
    with simulated("cuda"):
        exact = velocity(placed(files / file, device))
        model = placed(files / file, device, fp8=True)
        expected = velocity(model)
        assert model.fp8 and 0.002 < (expected - exact).norm() / exact.norm() < 0.1
        for streamed in ("all", "some blocks"):
            made = placed(files / file, device, streamed=STREAMED[streamed], expanded=False, fp8=True)
            assert torch.equal(velocity(made), expected)


def test_only_the_linear_layers_of_blocks_multiply_in_fp8(files):
    model = placed(files / "bfloat16", fp8=True)
    layers = {name for name, layer in model.transformer.named_modules() if isinstance(layer, Fp8Linear)}
    streams = [f"{s}_{part}" for s in ("img", "txt") for part in ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")]
    assert layers == {
        *(f"double_blocks.{i}.{name}" for i in range(2) for name in streams),
        *(f"single_blocks.{i}.linear{j}" for i in range(3) for j in (1, 2)),
    }
    with simulated("cuda") as device:
        sizes = [device.placed_bytes]
        for settings in ({}, {"fp8": True}):
            model = placed(files / "bfloat16", "cuda", **settings)
            sizes.append(device.placed_bytes)
            numbers = {n: m.in_features * m.out_features for n, m in _linears(model) if n in layers}
            outputs = sum(m.out_features for n, m in _linears(model) if n in layers)
            del model
    saved = 2 * sum(numbers.values()) - (sum(numbers.values()) + 4 * outputs)  # one byte, and a scale a row
    assert sizes[1] - sizes[2] == saved


def _linears(model):
    modules = model.transformer.named_modules()
    return [(n, m) for n, m in modules if isinstance(m, torch.nn.Linear | StoredLinear)]


def test_a_model_in_fp8_still_has_the_weights_of_its_file(files):
    model, exact = placed(files / "bfloat16", fp8=True), placed(files / "bfloat16")
    for name, tensor in exact.weights()["transformer"].items():
        assert torch.equal(model.weights()["transformer"][name].read(), tensor.read()), name
    assert model.fingerprint == exact.fingerprint
    model.place(Placement(torch.device("cpu"), TYPES))
    assert not model.fp8 and torch.equal(velocity(model), velocity(exact))


@pytest.mark.parametrize("file", ["bfloat16", "Q4_K"])
def test_two_blocks_are_on_the_device_at_a_time(files, file):
    with simulated("cuda") as device:
        model = placed(files / file, "cuda", streamed=frozenset({"transformer", "t5", "clip"}))
        blocks = [*model.transformer.double_blocks, *model.transformer.single_blocks]
        sizes = [sum(m.bytes for m in block.modules() if isinstance(m, StoredWeight)) for block in blocks]
        seen = []

        def look(*_):
            model.transformer.stream.settle()
            seen.append(_fetched(blocks))

        for block in blocks:
            block.register_forward_pre_hook(look)
        velocity(model)
        assert len(seen) == len(blocks)
        assert max(map(len, seen)) <= 2 and any(len(at) == 2 for at in seen)
        assert all(i in at for i, at in enumerate(seen))
        assert not _fetched(blocks) and sum(sizes) > 2.5 * max(sizes)
        assert device.placed_bytes < sum(sizes) / 2


def test_streamed_weights_are_kept_in_page_locked_memory_as_far_as_it_goes(files, monkeypatch):
    streamed = frozenset({"transformer"})
    with simulated("cuda"):
        model = placed(files / "bfloat16", "cuda", streamed=streamed)
        expected = velocity(model)
        sizes = [m.bytes for m in model.transformer.modules() if isinstance(m, StoredLinear)]
        pinned = []
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t.nbytes) or t.clone())
        half = sum(sizes) // 2
        model = placed(files / "bfloat16", "cuda", streamed=streamed, pinned_bytes=half)
        for _ in range(2):
            assert torch.equal(velocity(model), expected)
            assert 0.5 * half < sum(pinned) <= half

        def locked(_):
            raise RuntimeError("cannot lock more memory")

        monkeypatch.setattr(torch.Tensor, "pin_memory", locked)
        model = placed(files / "bfloat16", "cuda", streamed=streamed, pinned_bytes=2**40)
        assert torch.equal(velocity(model), expected)


def _fetched(blocks):
    return [
        i
        for i, block in enumerate(blocks)
        if any(m.is_fetched for m in block.modules() if isinstance(m, StoredWeight))
    ]


def test_an_edit_that_is_cancelled_leaves_no_streamed_weights_behind(files):
    stop = threading.Event()
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    with simulated("cuda"):
        model = placed(files / "bfloat16", "cuda", streamed=frozenset({"transformer", "t5"}))
        with Editor(model) as editor, pytest.raises(Cancelled):
            editor.edit(picture, "x", steps=4, on_step=lambda info: stop.set(), cancel=stop)
        layers = [m for m in model.transformer.modules() if isinstance(m, StoredWeight)]
        assert layers and not any(layer.is_fetched for layer in layers)


def test_packed_weights_take_the_memory_of_their_file(files):
    with simulated("cuda") as device:
        model = placed(files / "Q4_K", "cuda", expanded=False)
        layers = [m for m in model.transformer.modules() if isinstance(m, StoredLinear)]
        stored = sum(layer.bytes for layer in layers)
        assert all(layer.is_fetched for layer in layers)
        assert stored < 0.3 * sum(2 * layer.in_features * layer.out_features for layer in layers)
        before = device.placed_bytes
        del model, layers
        assert device.placed_bytes <= before - stored
