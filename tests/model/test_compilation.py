"""Blocks that run by torch.compile: which ones, how often they are compiled, and what they give.

Graphs are counted by a backend that runs them as they are; one test compiles them by inductor.
"""

import logging

import numpy as np
import pytest
import torch

from kontext.bench.peer import as_full
from kontext.checkpoint.lora import write_lora
from kontext.checkpoint.placement import Placement
from kontext.engine import Editor
from kontext.errors import DeviceUnavailable
from kontext.loras import Lora
from kontext.model import compilation
from kontext.model.compilation import EAGER, can_be_compiled, check_compile, compile_failure
from support.device import simulated

COMPILE = torch.compile
CPU = torch.device("cpu")


def noise(seed=0, height=64, width=64):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(result):
    return np.asarray(result.picture).astype(int)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are compiled, by a backend that runs them as they are."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda function, **given: COMPILE(function, backend=backend, **given)
    )
    monkeypatch.setattr("kontext.engine.editor.check_compile", lambda device: None)
    torch._dynamo.reset()
    yield made
    torch._dynamo.reset()


def deep_editor(**given):
    """An editor of full attention with several blocks of each type, as [dev] has."""
    model = as_full(Editor.load("tiny-random", device="cpu", dtype=torch.float32).model)
    transformer = model.transformer
    transformer.backend = None  # it has the blocks before
    for blocks in (transformer.double_blocks, transformer.single_blocks):
        blocks.extend([type_of_block(transformer, blocks[0]) for _ in range(2)])
    return Editor(model, **given)


def type_of_block(transformer, block):
    config = transformer.config
    sizes = (config.width, config.heads, config.mlp_ratio)
    more = (config.qkv_bias,) if hasattr(block, "img_attn") else ()
    made = type(block)(*sizes, *more).eval().requires_grad_(False)
    made.load_state_dict(block.state_dict())
    return made


@pytest.mark.slow
def test_compiled_blocks_give_what_eager_ones_do(monkeypatch):
    failure = compile_failure(CPU)
    if failure is not None:
        pytest.skip(failure)
    monkeypatch.setattr("kontext.engine.editor.check_compile", lambda device: None)
    compiled, eager = (
        Editor.load("tiny-random", device="cpu", dtype=torch.float32, compile=compile)
        for compile in (True, False)
    )
    made, expected = (
        editor.generate("a hat", seed=3, steps=2, size=(64, 64)) for editor in (compiled, eager)
    )
    assert np.abs(pixels(made) - pixels(expected)).max() <= 1  # rounding at the edge of a level
    assert (made.settings["compile"], expected.settings["compile"]) == (True, False)


def test_equal_blocks_steps_and_edits_share_graphs(graphs):
    editor = deep_editor(compile=True)
    assert len(editor.model.transformer.calls.compiled) == 7
    first = editor.edit(noise(), "a hat", seed=1, steps=3, lock=False)
    assert first.settings["compile"] and len(graphs) == 3  # a double block, a single one, the last single one
    editor.edit(noise(1), "blue", seed=2, steps=6, lock=False)
    assert len(graphs) == 3
    eager = deep_editor().edit(noise(), "a hat", seed=1, steps=3, lock=False)
    assert np.abs(pixels(first) - pixels(eager)).max() <= 1 and len(graphs) == 3
    refreshed = editor.edit(noise(), "a hat", seed=1, steps=6, lock=False, context_refresh=2)
    assert len(graphs) == 9  # with the recording of the context, and with a recorded one
    eager = deep_editor().edit(noise(), "a hat", seed=1, steps=6, lock=False, context_refresh=2)
    assert np.abs(pixels(refreshed) - pixels(eager)).max() <= 1


def test_a_prefilled_context_is_compiled_too(graphs):
    editor = Editor.load("tiny-random", device="cpu", compile=True)
    assert editor.model.transformer.backend is None  # no kernels of the CPU
    editor.prefill(noise())
    assert len(graphs) == 3
    editor.prefill(noise(1))
    editor.edit(noise(1), "a hat", seed=1, lock=False)
    assert len(graphs) == 6


def test_parts_of_a_picture_and_guided_attention_run_eagerly(graphs):
    editor = Editor.load("tiny-random", device="cpu", compile=True)
    editor.prefill(noise())
    made = len(graphs)
    editor.edit(noise(), "a hat", seed=1, steps=2, box=(8, 8, 24, 24))
    editor.edit(noise(), "a hat", seed=1, steps=2, lock=False, negative_prompt="a cap", nag=3.0)
    assert len(graphs) == made


def test_edits_with_loras_run_eagerly(graphs, tmp_path):
    editor = Editor.load("tiny-random", device="cpu", compile=True)
    calls, transformer = editor.model.transformer.calls, editor.model.transformer
    rows, columns = transformer.single_blocks[0].linear1.weight.shape
    matrices = {"single_blocks.0.linear1": (torch.randn(4, columns), torch.randn(rows, 4))}
    write_lora(tmp_path / "knit.safetensors", matrices, alpha=4)
    lora = Lora(path=str(tmp_path / "knit.safetensors"))
    result = editor.edit(noise(), "a hat", seed=1, lock=False, loras=[lora])
    assert not graphs and result.settings["compile"] is False
    assert transformer.calls is calls and editor.edit(noise(), "a hat", seed=1).settings["compile"]


def test_streamed_blocks_run_eagerly(graphs, caplog):
    model = Editor.load("tiny-random", device="cpu").model
    model.source = model.weights()
    model.place(Placement(streamed=frozenset({"transformer.double_blocks.0"})))
    transformer = model.transformer
    assert not can_be_compiled(transformer.double_blocks[0])
    exact = pixels(Editor(model).edit(noise(), "a hat", seed=1, lock=False))
    editor = Editor(model, compile=True)
    assert transformer.calls.compiled == frozenset(transformer.single_blocks)
    assert np.array_equal(pixels(editor.edit(noise(), "a hat", seed=1, lock=False)), exact)
    assert len(graphs) == 4  # two of single blocks, for the context and for the target
    model.place(Placement(streamed=frozenset({"transformer"})))
    with caplog.at_level(logging.WARNING, "kontext"):
        editor = Editor(model, compile=True)
    assert not editor.model.compiled and "no block is compiled" in caplog.text


def test_streamed_modulations_leave_blocks_compiled(graphs):
    model = Editor.load("tiny-random", device="cpu").model
    model.source = model.weights()
    model.place(Placement(streamed=frozenset({"transformer.single_blocks.0.modulation"})))
    assert can_be_compiled(model.transformer.single_blocks[0])


def test_products_in_fp8_are_compiled(graphs):
    given = {"seed": 1, "steps": 2, "lock": False}
    made, eager = (
        Editor.load("tiny-random", device="cpu", fp8=True, compile=compile).edit(noise(), "a hat", **given)
        for compile in (True, False)
    )
    assert made.settings["fp8"] and made.settings["compile"] and len(graphs) == 6
    assert np.array_equal(pixels(made), pixels(eager))


def test_devices_that_do_not_compile_are_refused_in_one_line(monkeypatch):
    with simulated("mps"), pytest.raises(DeviceUnavailable, match="compile needs CUDA or a CPU; got mps"):
        Editor.load("tiny-random", device="mps", compile=True)
    monkeypatch.setattr(compilation, "compile_failure", lambda device: "no C++ compiler was found")
    with pytest.raises(
        DeviceUnavailable, match=r"does not work on cpu \(no C\+\+ compiler was found\); load"
    ):
        check_compile(CPU)


def test_copies_of_a_compiled_transformer_run_eagerly(graphs):
    editor = Editor.load("tiny-random", device="cpu", compile=True)
    assert editor.model.transformer.__getstate__()["calls"] is EAGER
