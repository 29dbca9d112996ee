"""Every call of the Editor on simulated devices (`tests/support/device.py`), and their failures in words."""

import dataclasses
import functools
import operator
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from kontext.checkpoint import load_model
from kontext.checkpoint.model import random_model
from kontext.engine import Editor, EditRequest
from kontext.errors import BadCheckpoint, Cancelled, DeviceUnavailable, OutOfMemory
from support.device import simulated

PICTURE = Image.radial_gradient("L").resize((80, 64)).convert("RGB")
OTHER = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
MASK = Image.new("L", PICTURE.size)
MASK.paste(255, (8, 8, 40, 40))
MARKUP = Image.new("RGBA", PICTURE.size)
MARKUP.paste((255, 0, 0, 255), (10, 10, 30, 30))
CLEAR = PICTURE.copy()
CLEAR.putalpha(MASK)


def in_a_session(editor):
    session = editor.open(PICTURE)
    session.edit("a hat", seed=1, steps=2)
    session.edit("a hat, red", seed=2, steps=2)
    session.undo()
    return session.edit("a scarf", seed=3, steps=2).picture  # read while the session's store exists


def cancelled(editor):
    stop = threading.Event()
    with pytest.raises(Cancelled):
        editor.edit(PICTURE, "x", steps=4, on_step=lambda info: stop.set(), cancel=stop)


def previews(editor):
    shown = []
    editor.edit(PICTURE, "x", seed=1, steps=2, on_step=lambda info: shown.append(info.preview()))
    assert len(shown) == 2
    return shown[-1]


def batch(editor):
    ask = EditRequest(picture=PICTURE, prompt="blue", seed=1, steps=2)
    requests = [ask, EditRequest(picture=OTHER, prompt="red", seed=2, steps=2, box=(4, 4, 30, 30)), ask]
    return editor.edit_batch(requests)[1].picture


def prefilled(editor):
    editor.prefill(OTHER, background=True).result()
    editor.prefill(PICTURE)
    return editor.edit(PICTURE, "x", seed=1, steps=2).picture


def with_a_refreshed_context(editor):
    tiny = editor.model.preset
    full = dataclasses.replace(tiny.transformer, context_attention="full", region_after=None)
    model = random_model(dataclasses.replace(tiny, transformer=full), device=editor.model.device)
    model.autoencoder.to(next(editor.model.autoencoder.parameters()).dtype)
    return Editor(model).edit(PICTURE, "x", seed=1, steps=4, context_refresh=2).picture


CALLS = {
    "edit": lambda editor: editor.edit(PICTURE, "blue hair", seed=1, steps=2).picture,
    "variants": lambda editor: editor.variants(PICTURE, "blue", 2, seed=1, steps=2)[1].picture,
    "box": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=3, box=(4, 4, 20, 20)).picture,
    "variants in a box": lambda editor: editor.variants(PICTURE, "x", 2, seed=1, box=(4, 4, 9, 9))[0].picture,
    "mask": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=3, mask=MASK).picture,
    "markup": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=3, markup=MARKUP).picture,
    "references": lambda editor: (
        editor.edit(PICTURE, "x", seed=1, steps=2, references=[OTHER, OTHER]).picture
    ),
    "generate": lambda editor: editor.generate("a tree", seed=1, steps=2).picture,
    "generate from a reference": lambda editor: (
        editor.generate("a", seed=1, steps=2, references=[OTHER]).picture
    ),
    "previews": previews,
    "no lock": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=2, lock=False).picture,
    "no regions": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=2, regions=False).picture,
    "size": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=2, size="96x96").picture,
    "guidance": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=2, guidance=3).picture,
    "transparent": lambda editor: editor.edit(CLEAR, "x", seed=1, steps=2, mask=MASK).picture,
    "strength": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=4, strength=0.5).picture,
    "ab2": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=3, sampler="ab2").picture,
    "midpoint": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=2, sampler="midpoint").picture,
    "step cache": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=9, step_cache=1).picture,
    "canvas": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=2, canvas=96).picture,
    "negative prompt": lambda editor: (
        editor.edit(PICTURE, "x", seed=1, steps=2, negative_prompt="y", guidance_steps="1-1").picture
    ),
    "nag": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=2, negative_prompt="y", nag=3).picture,
    "expand": lambda editor: editor.edit(PICTURE, "x", seed=1, steps=2, expand="0,0,16,8").picture,
    "offset references": lambda editor: (
        editor.edit(PICTURE, "x", seed=1, steps=2, references=[OTHER], reference_layout="offset").picture
    ),
    "stitched references": lambda editor: (
        editor.edit(PICTURE, "x", seed=1, steps=2, references=[OTHER], reference_layout="stitch").picture
    ),
    "locate": lambda editor: editor.locate(PICTURE, "x"),
    "context refresh": with_a_refreshed_context,
    "session": in_a_session,
    "prefill": prefilled,
    "batch": batch,
    "cancel": cancelled,
}
DEVICES = [(name, dtype) for name in ("cuda", "mps") for dtype in ("float32", "bfloat16")]


def editor_of(device, dtype):
    model = load_model("tiny-random", device=device)
    model.autoencoder.to(getattr(torch, dtype))
    return Editor(model)


@functools.cache
def on_the_cpu(dtype, call):
    return CALLS[call](editor_of("cpu", dtype))


@pytest.fixture(scope="module", params=DEVICES, ids=[f"{name}-{dtype}" for name, dtype in DEVICES])
def on_device(request):
    name, dtype = request.param
    with simulated(name):
        return name, dtype, editor_of(name, dtype)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_on_a_device_gives_what_the_cpu_gives(on_device, call):
    name, dtype, editor = on_device
    with simulated(name):
        made = CALLS[call](editor)
    expected = on_the_cpu(dtype, call)
    if made is None:
        return
    assert made.size == expected.size
    distance = _levels(made, expected)
    if dtype == "float32":
        # a device has another GELU, equal to rounding, which moves a level of 255 by one at most
        assert distance.max() <= 1
    else:
        # bfloat16 has 8 bits, and flipped roundings spread through random weights: as near to float32's
        # picture as the CPU's bfloat16 comes, within a half
        exact = on_the_cpu("float32", call)
        assert _levels(made, exact).mean() <= 1.5 * _levels(expected, exact).mean() + 0.5


def _levels(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b))


@pytest.mark.parametrize("boxed", [None, (4, 4, 20, 20)])
def test_more_steps_wait_no_more_often_for_the_device(boxed):
    with simulated("cuda") as device:
        editor = Editor.load("tiny-random", device="cuda")
        editor.edit(PICTURE, "x", seed=1, box=boxed)
        reads = []
        for steps in (2, 8):
            device.reads = 0
            editor.edit(PICTURE, "x", seed=1, steps=steps, box=boxed)
            reads.append(device.reads)
    assert reads[0] == reads[1] <= 24


def test_lora_files_are_merged_on_a_device(tmp_path):
    from safetensors.torch import save_file

    on_cpu = load_model("tiny-random")
    rows, columns = on_cpu.transformer.img_in.weight.shape
    path = tmp_path / "knit.safetensors"
    matrices = {"lora_A": torch.ones(1, columns), "lora_B": torch.ones(rows, 1)}
    save_file({f"transformer.x_embedder.{name}.weight": part for name, part in matrices.items()}, path)
    with simulated("cuda"):
        model = load_model("tiny-random", device="cuda", lora=[path])
        assert str(model.transformer.img_in.weight.device) == "cuda:0"
        merged = model.transformer.img_in.weight.cpu()
    assert torch.equal(merged, on_cpu.transformer.img_in.weight + 1)


def test_the_fastest_device_is_taken_and_a_missing_one_named():
    from kontext.engine.device import available_devices, usable_device

    with simulated("cuda", count=2):
        assert available_devices() == ["cuda:0", "cuda:1", "cpu"] and usable_device().type == "cuda"
        assert usable_device("cuda:1").index == 1 and usable_device("cpu").type == "cpu"
        with pytest.raises(DeviceUnavailable, match=r"'cuda:7' is not available.*cuda:0, cuda:1, cpu"):
            Editor.load("tiny-random", device="cuda:7")
        with pytest.raises(DeviceUnavailable, match="'mps' is not available"):
            usable_device("mps")
    with simulated("mps"):
        assert usable_device().type == "mps"
    with pytest.raises(DeviceUnavailable, match="'gpu' is not known; available:.*cpu"):
        usable_device("gpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_no_memory_on_a_device_is_one_line_and_the_next_edit_works(name):
    with simulated(name) as device:
        editor = Editor.load("tiny-random", device=name)
        device.free_bytes = 2**10
        with pytest.raises(OutOfMemory, match=f"out of memory on {name}.*fewer variants") as caught:
            editor.variants(PICTURE, "x", 4, seed=1, steps=2)
        with pytest.raises(OutOfMemory):
            editor.prefill(PICTURE)
        with pytest.raises(OutOfMemory):
            Editor.load("tiny-random", device=name)
        device.free_bytes = None
        editor.edit(PICTURE, "x", seed=1, steps=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to")],
)
def test_no_memory_on_the_cpu_is_the_same_error(editor, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(editor.pipeline, "run", fail)
    with pytest.raises(OutOfMemory, match="out of memory on cpu"):
        editor.edit(PICTURE, "x")


def test_a_device_that_fails_at_work_is_named_with_what_to_do(editor, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError(
            "CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA"
        )

    monkeypatch.setattr(editor.pipeline, "run", fail)
    with pytest.raises(DeviceUnavailable, match="illegal memory access.*start again") as caught:
        editor.edit(PICTURE, "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("box", [None, (4, 4, 20, 20)])
@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("autoencoder.encoder", "encoder of tiny-random"),
        ("transformer", "transformer of tiny-random"),
        ("autoencoder.decoder", "decoder"),
        ("t5", "T5 encoder"),
        ("clip", "CLIP encoder"),
    ],
)
def test_weights_that_give_nan_are_named_and_give_no_picture(part, named, box):
    model = load_model("tiny-random")
    list(operator.attrgetter(part)(model).parameters())[-1].fill_(float("nan"))
    with pytest.raises(BadCheckpoint, match=f"{named}.*not finite"):
        Editor(model).edit(PICTURE, "x", seed=1, steps=2, box=box)
