"""Plans add up to at most the limit, and what is placed on a device stays within them."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kontext.checkpoint import random_model, save_model
from kontext.checkpoint.convert import convert
from kontext.checkpoint.layouts import empty_module
from kontext.checkpoint.names import PARTS
from kontext.checkpoint.tensors import LazyTensor, stored
from kontext.engine import Editor, memory_plan
from kontext.engine.memory_plan import computing_types, make_plan
from kontext.engine.memory_sizes import Workload, usual_workload
from kontext.errors import BadRequest, OutOfMemory
from kontext.memory import parse_memory
from kontext.model.fp8 import multiplies_in_fp8
from kontext.model.ggml import FORMATS
from kontext.model.presets import PRESETS
from kontext.model.storage_formats import FP8, ggml_format
from kontext.model.stored import PLAIN, StoredMatrix
from support.device import simulated
from support.packed_files import WIDE

GB = 10**9
DEV = PRESETS["dev"]
CUDA = torch.device("cuda")


@functools.cache
def dev_weights(kind):
    """The full model's tensors without data.

    The transformer in the given type, T5 in 16 bits (8 bits with a GGUF transformer).
    """
    parts = {}
    for part in PARTS:
        module = empty_module(part, getattr(DEV, part))
        parts[part] = {name: _as(part, kind, t) for name, t in stored(module.state_dict()).items()}
    return parts


def _as(part, kind, tensor):
    if part == "t5" and kind in FORMATS:
        kind = "Q8_0"
    elif part in ("t5", "clip"):
        kind = "float16"
    if part == "autoencoder" or len(tensor.shape) != 2:
        return LazyTensor(tensor.shape, torch.float32, tensor.read)
    dtype = torch.bfloat16
    if kind in FORMATS and tensor.shape[1] % FORMATS[kind].numbers == 0:
        format = FORMATS[kind]
        size, made = tensor.count // format.numbers * format.bytes, ggml_format(format)
    elif kind == "fp8":
        size, made, dtype = tensor.count, FP8, torch.float8_e4m3fn
    else:
        dtype = torch.float16 if kind == "float16" else torch.bfloat16
        size, made = 2 * tensor.count, PLAIN
    return LazyTensor(tensor.shape, dtype, tensor.read, "", (StoredMatrix(tensor.shape, made, (), size),))


def plan_of(kind, limit, device=CUDA, workload=None, fp8=False):
    parts = dev_weights(kind)
    types = computing_types(parts, CUDA) if device.type != "cpu" else dict.fromkeys(PARTS, torch.float32)
    return make_plan(parts, DEV, int(limit), device, types, workload, fp8)


KINDS = ["bfloat16", "fp8", "Q8_0", "Q6_K", "Q4_K"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("card", [8, 12, 16, 24, 48])
def test_every_card_runs_every_type_of_file(kind, card):
    plan = plan_of(kind, card * GB)
    assert plan.bytes == sum(row.bytes for row in plan.rows) <= card * GB
    assert all(row.bytes >= 0 for row in plan.rows)
    if card == 48:
        assert not plan.streamed_blocks and plan.expanded == (kind != "bfloat16")
    if card == 24 and kind == "bfloat16":
        assert (
            not plan.streamed_blocks and plan.modulations_streamed
        )  # a quarter of the weights, once an edit
    if kind == "Q4_K" and card >= 12:
        assert not plan.streamed_blocks


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([*KINDS, "Q5_K", "Q4_0", "IQ4_XS"]),
    limit=st.integers(6 * GB, 60 * GB),
    device=st.sampled_from(["cuda", "mps", "cpu"]),
    side=st.sampled_from([256, 512, 1024]),
    references=st.integers(0, 3),
    batch=st.integers(1, 4),
    fp8=st.booleans(),
)
def test_a_plan_adds_up_to_at_most_its_limit(kind, limit, device, side, references, batch, fp8):
    workload = Workload((side, side), ((side, side),) * (1 + references), 512, 28, batch)
    try:
        plan = plan_of(kind, limit, torch.device(device), workload, fp8)
    except OutOfMemory as error:
        assert "GB of memory is too little" in str(error)
        return
    assert plan.bytes == sum(row.bytes for row in plan.rows) <= limit
    placement = plan.placement()
    assert (placement.expanded, placement.device.type, placement.fp8) == (plan.expanded, device, fp8)
    blocks = [*plan.streamed_blocks]
    assert len(set(blocks)) == len(blocks) <= len(plan.sizes.blocks) == 57
    assert all(placement.streams(f"{block}.linear1") for block in blocks)
    smaller = plan.smaller()
    assert smaller is None or (smaller.bytes < plan.bytes and smaller.fp8 == fp8)
    assert plan.max_batch(workload, 16) >= (1 if plan.bytes <= limit else 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("card", [16, 24, 48])
def test_blocks_in_fp8_take_one_byte_a_number_whatever_the_file(kind, card):
    plan = plan_of(kind, card * GB, fp8=True)
    assert not plan.streamed_blocks and plan.bytes <= card * GB
    (row,) = [row for row in plan.rows if row.what == "57 of 57 blocks"]
    weights = [(n, t) for n, t in dev_weights(kind)["transformer"].items() if multiplies_in_fp8(n, t.shape)]
    assert len(weights) == 19 * 8 + 38 * 2
    numbers, scales = sum(t.count for _, t in weights), 4 * sum(t.shape[0] for _, t in weights)
    # the biases and the scales of the norms stay: a thousandth
    assert numbers + scales < row.bytes < 1.001 * (numbers + scales)
    if kind == "bfloat16" and card == 16:
        assert plan_of(kind, card * GB).streamed_blocks


def test_a_larger_limit_never_gives_a_slower_plan():
    for kind in KINDS:
        plans = [plan_of(kind, limit * GB) for limit in (7, 8, 10, 12, 16, 20, 24, 32, 48, 80)]
        streamed = [len(plan.streamed_blocks) for plan in plans]
        assert streamed == sorted(streamed, reverse=True)
        for smaller, larger in zip(plans, plans[1:]):
            assert smaller.text_streamed >= larger.text_streamed or smaller.expanded < larger.expanded
            assert smaller.expanded <= larger.expanded


def test_the_groups_of_a_plan_are_all_of_the_model():
    parts = dev_weights("bfloat16")
    sizes = plan_of("bfloat16", 48 * GB).sizes
    assert len(sizes.blocks) == len(sizes.modulations) == 57 and len(sizes.t5_blocks) == 24
    counted = sum(
        t.count * (4 if part == "autoencoder" else 2) for part, w in parts.items() for t in w.values()
    )
    assert sizes.dense == counted
    assert sum(p.dense for p in sizes.modulations) > 0.26 * 2 * 11_901_408_320


def test_what_is_too_little_is_said_with_what_would_do():
    with pytest.raises(
        OutOfMemory, match=r"2 GB of memory is too little: an edit at 800x1328 needs \d"
    ) as caught:
        plan_of("Q4_K", 2 * GB)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("8GB", 8 * GB),
        ("8 gb", 8 * GB),
        ("12GiB", 12 * 2**30),
        ("1.5g", 1_500_000_000),
        ("900mb", 900_000_000),
    ]
    + [(12345, 12345), ("12345", 12345), ("auto", None), (None, None)],
)
def test_sizes_of_memory_are_understood(given, size):
    assert parse_memory(given) == size


@pytest.mark.parametrize("given", ["", "eight", "8TB", "-8GB", "0", 0, -5, True, "8GB5", "nan", "1e9", 2.5j])
def test_other_words_for_memory_are_refused(given):
    with pytest.raises(BadRequest, match="auto or a size"):
        parse_memory(given)


# On a simulated device


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("files")
    save_model(random_model(WIDE), home / "float32")
    convert(home / "float32", home / "bfloat16", "kontext", dtype="bfloat16")
    return home


PICTURE = Image.radial_gradient("L").resize((64, 64)).convert("RGB")


def edited(editor):
    with editor:
        return editor.edit(PICTURE, "a hat", seed=1, steps=2, lock=False)


@pytest.fixture
def little(monkeypatch):
    """Small models have small limits: nothing for the driver, and any size is planned."""
    monkeypatch.setattr(memory_plan, "RESERVED", {})
    monkeypatch.setattr(memory_plan, "is_small", lambda _: False)


def _whole(folder, device="cuda"):
    with simulated(device) as simulation:
        simulation.total_bytes = 2**40
        editor = Editor.load(folder, device=device)
        assert not editor.plan.streamed_blocks and not editor.plan.text_streamed
        return edited(editor).picture.tobytes(), (editor.plan.bytes - editor.plan.cache_bytes) * 51 // 50


def test_what_is_placed_in_fp8_stays_within_every_plan(files, little):
    with simulated("cuda"):
        plan = Editor.load(files / "bfloat16", device="cuda", memory="1GB", fp8=True).plan
    most, expected, seen = (plan.bytes - plan.cache_bytes) * 51 // 50, None, set()
    for share in (1.0, 0.7, 0.6, 0.5, 0.45, 0.4):
        with simulated("cuda") as simulation:
            try:
                editor = Editor.load(files / "bfloat16", device="cuda", memory=int(share * most), fp8=True)
            except OutOfMemory:
                break
            plan = editor.plan
            seen.add((plan.text_streamed, plan.modulations_streamed, plan.streamed_blocks))
            made = edited(editor)
            assert simulation.peak_bytes <= plan.bytes <= share * most, str(plan)
            expected = expected or made.picture.tobytes()
            assert made.picture.tobytes() == expected or plan.strip_elements
    assert len(seen) >= 3 and any(blocks for *_, blocks in seen)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_what_is_placed_stays_within_every_plan(files, little, device, monkeypatch):
    expected, most = _whole(files / "bfloat16")
    seen = set()
    for share in (1.0, 0.8, 0.6, 0.45, 0.35, 0.25, 0.2):
        with simulated(device) as simulation:
            try:
                editor = Editor.load(files / "bfloat16", device=device, memory=int(share * most))
            except OutOfMemory:
                break
            plan = editor.plan
            seen.add(
                (plan.text_streamed, plan.modulations_streamed, plan.strip_elements, plan.streamed_blocks)
            )
            made = edited(editor)
            assert simulation.peak_bytes <= plan.bytes <= share * most, str(plan)
            assert not made.warnings or "memory" not in made.warnings[-1]
            assert (made.picture.tobytes() == expected) or plan.strip_elements or device == "mps"
    assert len(seen) >= 4


def test_plans_are_not_far_above_what_is_used(files, little):
    with simulated("cuda") as simulation:
        editor = Editor.load(files / "bfloat16", device="cuda", memory="1GB")
        edited(editor)
        assert simulation.peak_bytes >= 0.6 * (editor.plan.bytes - editor.plan.cache_bytes)


def test_memory_that_runs_out_all_the_same_takes_the_next_smaller_plan(files, little):
    expected, most = _whole(files / "bfloat16")
    with simulated("cuda") as simulation:
        editor = Editor.load(files / "bfloat16", device="cuda", memory=most)
        simulation.total_bytes = int(0.7 * simulation.peak_bytes)  # another program takes the rest
        made = edited(editor)
        assert "memory ran out; made with a smaller plan: " in made.warnings[-1]
        assert editor.plan.bytes < most and (made.picture.tobytes() == expected or editor.plan.strip_elements)
        again = edited(editor)  # the plan stays
        assert not any("memory" in warning for warning in again.warnings)
        simulation.total_bytes = 1000
        for _ in range(2):
            with pytest.raises(OutOfMemory, match="out of memory on cuda"):
                edited(editor)
        simulation.total_bytes = most
        assert edited(editor).picture.size == PICTURE.size


def test_variants_that_do_not_fit_together_are_made_in_parts(files, little):
    with simulated("cuda") as simulation:
        editor = Editor.load(files / "bfloat16", device="cuda")
        simulation.peak_bytes = simulation.placed_bytes
        alone = editor.edit(PICTURE, "a hat", seed=3, steps=2, lock=False)
        simulation.total_bytes = int(simulation.peak_bytes * 1.02)
        made = editor.variants(PICTURE, "a hat", 4, seed=1, steps=2, lock=False)
        assert [result.seed for result in made] == [1, 2, 3, 4]
        assert all("made in parts" in " ".join(result.warnings) for result in made)
        assert made[2].picture.tobytes() == alone.picture.tobytes()


def test_a_plan_says_how_many_pictures_fit_together(files, little):
    with simulated("cuda") as simulation:
        plan = Editor.load(files / "bfloat16", device="cuda", memory="1GB").plan
        limit = int(1.05 * (plan.bytes - plan.cache_bytes))
        editor = Editor.load(files / "bfloat16", device="cuda", memory=limit)
        assert editor.plan.max_batch(usual_workload(WIDE), 16) < 16
        simulation.peak_bytes = 0
        editor.variants(PICTURE, "a hat", 8, seed=1, steps=2, lock=False)
        assert simulation.peak_bytes <= limit


def test_small_models_without_a_limit_need_no_plan():
    editor = Editor.load("tiny-random", device="cpu")
    assert editor.plan is None
    limited = Editor.load("tiny-random", device="cpu", memory="1GB")
    assert limited.plan is not None and limited.plan.expanded
    a, b = (e.edit(PICTURE, "x", seed=1, steps=2).picture.tobytes() for e in (editor, limited))
    assert a == b
    with pytest.raises(OutOfMemory, match="too little"):
        Editor.load("tiny-random", device="cpu", memory="1MB")
