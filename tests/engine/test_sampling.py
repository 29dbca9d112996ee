"""A picture depends on its seed and its request alone, not on what the program around has set in torch."""

from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image

from kontext import checkpoint
from kontext.engine import Editor, EditRequest
from kontext.engine.device import computing
from kontext.engine.guidance import Guidance
from kontext.engine.pipeline import _Clock
from kontext.engine.plan import plan_request
from kontext.engine.sampling import (
    REST_END,
    REST_REFRESH,
    REST_WARM_UP,
    Batch,
    _Field,
    sample,
    seeded_noise,
)
from kontext.errors import Cancelled
from kontext.flow import SAMPLERS, schedule
from kontext.model.presets import PRESETS
from kontext.model.tokens import picture_ids


@contextmanager
def default_type(kind):
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def global_seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        torch.rand(7)
        yield


SETTINGS = {
    "float64": lambda: default_type(torch.float64),
    "bfloat16": lambda: default_type(torch.bfloat16),
    "float16": lambda: default_type(torch.float16),
    "meta": lambda: default_device("meta"),
    "seed": global_seed,
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "grad": torch.enable_grad,
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def made(model):
    """The bytes of an edit of every path: locked, guided with a reference, from words; nothing cached."""
    editor = Editor(model)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    results = [
        editor.edit(picture, "make it red", seed=3, steps=2),
        editor.edit(picture, "make it red", seed=3, steps=2, lock=False, guidance=2.0, references=picture),
        editor.generate("a cat", seed=4, steps=2),
    ]
    return b"".join(result.picture.tobytes() for result in results)


@pytest.fixture(scope="module")
def expected(random_model):
    return made(random_model)


@pytest.mark.parametrize("name", SETTINGS)
def test_same_seed_same_bytes_whatever_is_set_in_torch(random_model, expected, name):
    with SETTINGS[name]():
        assert made(random_model) == expected


@pytest.mark.parametrize("name", ["float64", "bfloat16", "meta", "seed"])
def test_noise_is_float32_on_the_processor_whatever_is_set_in_torch(name):
    before = seeded_noise(7, 8, 8)
    with SETTINGS[name]():
        found = seeded_noise(7, 8, 8)
    assert found.dtype == torch.float32 and found.device.type == "cpu" and torch.equal(found, before)


def test_global_generator_is_left_as_it_was(random_model):
    before = torch.get_rng_state()
    made(random_model)
    assert torch.equal(torch.get_rng_state(), before)


def test_samplers_count_their_evaluations_and_give_other_pictures(random_model):
    editor = Editor(random_model)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    results = {
        sampler: editor.edit(picture, "make it red", seed=3, steps=4, lock=False, sampler=sampler)
        for sampler in (None, *SAMPLERS)
    }
    assert {name: result.evaluations for name, result in results.items()} == {
        **{None: 4, "euler": 4},
        **{"ab2": 4, "midpoint": 8},
    }
    made_by = {name: result.picture.tobytes() for name, result in results.items()}
    assert made_by[None] == made_by["euler"] and len(set(made_by.values())) == 3
    assert results["ab2"].settings["sampler"] == "ab2"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_both_evaluations_of_a_step_take_part_in_its_guidance(random_model, sampler):
    result = Editor(random_model).edit(
        np.zeros((64, 64, 3), np.uint8),
        "make it red",
        steps=3,
        lock=False,
        sampler=sampler,
        negative_prompt="blurry",
        guidance_steps="2-2",
    )
    assert result.evaluations == {"euler": 4, "ab2": 4, "midpoint": 8}[sampler]


def test_cancelling_names_the_step_whatever_the_sampler(random_model):
    class AfterFive:
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked > 5

    with pytest.raises(Cancelled, match="stopped at step 3 of 4"):
        Editor(random_model).edit(
            np.zeros((64, 64, 3), np.uint8),
            "make it red",
            steps=4,
            lock=False,
            sampler="midpoint",
            cancel=AfterFive(),
        )


def test_midpoint_is_nearer_to_exact_than_euler_at_equal_evaluations():
    """With the shipped model, in latents; docs/sampling.md has more figures."""
    editor = Editor.load("nano", device="cpu")
    picture = Image.open(files("kontext") / "examples" / "stage.png")
    request = EditRequest(picture=picture, prompt="Put on sunglasses", seed=1)
    job = plan_request(request, editor.prompts, editor.pipeline.loras)
    shift = editor.model.preset.sampling.shift

    def tokens(sampler, steps):
        times = schedule(steps, 64, shift)
        return sample(editor.model.transformer, batch, times, Guidance(), sampler=sampler).tokens

    with computing(torch.device("cpu")):
        batch = editor.pipeline._batch([job], _Clock())
        exact = tokens("midpoint", 100)
        first, second = tokens("euler", 16), tokens("midpoint", 8)
    assert (second - exact).square().mean() < 0.7 * (first - exact).square().mean()


@pytest.fixture(scope="module")
def copying_editor():
    """An editor whose last layer passes nothing but the source's tokens, through its output gates."""
    preset = PRESETS["tiny"]
    transformer = replace(
        preset.transformer, output_gates=True, prediction="picture", context_attention="prefix"
    )
    model = checkpoint.random_model(replace(preset, name="copying", transformer=transformer))
    channels = preset.transformer.in_channels
    with torch.no_grad():
        linear = model.transformer.final_layer.linear
        linear.weight.zero_()
        linear.bias.zero_()[2 * channels :] = 1
    return Editor(model)


@pytest.mark.parametrize("options", [{}, {"box": (10, 6, 30, 24)}, {"lock": False}, {"steps": 7}])
def test_output_gates_see_the_source_at_the_computed_tokens(copying_editor, options):
    pictures = [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8))
        for i in range(2)
    ]
    requests = [
        EditRequest(prompt="red", picture=picture, seed=i, **options) for i, picture in enumerate(pictures)
    ]
    for picture, result in zip(pictures, copying_editor.edit_batch(requests)):
        if options.get("lock", True):
            assert result.changed_fraction == 0
        alone = copying_editor.edit(picture, "blue", **{**options, "steps": 1}).picture
        difference = np.abs(np.asarray(result.picture, dtype=int) - np.asarray(alone, dtype=int))
        assert difference.max() <= 1  # a batch is decoded with other roundings


@pytest.fixture(scope="module")
def full_model(random_model):
    tiny = random_model.preset
    config = replace(tiny.transformer, context_attention="full", region_after=None)
    return checkpoint.model.random_model(replace(tiny, transformer=config))


def full_batch(model, seed=0):
    """Noise, source and one context of 4 x 4 tokens; tokens of the middle are what an edit would change."""
    generator = torch.Generator().manual_seed(seed)
    config = model.transformer.config
    tokens = torch.randn(3, 1, 16, config.in_channels, generator=generator)
    text = torch.randn(1, 5, config.text_width, generator=generator)
    pooled = torch.randn(1, config.pooled_width, generator=generator)
    batch = Batch(
        noise=tokens[0],
        ids=picture_ids(0, 4, 4),
        text=text,
        pooled=pooled,
        context=[(tokens[1], picture_ids(1, 4, 4))],
        source=tokens[1],
    )
    middle = torch.zeros(4, 4, dtype=torch.bool)
    middle[1:3, 1:3] = True
    return batch, middle.flatten()


@torch.inference_mode()
def test_tokens_outside_of_a_region_stay_visible_in_full_attention(full_model):
    batch, middle = full_batch(full_model)
    times = schedule(12, 16, 3.0)
    field = _Field(full_model.transformer, batch, times, Guidance())
    exact = field(batch.noise, times[0])
    field.work_on(middle)
    found = field(batch.noise, times[0])
    torch.testing.assert_close(found[:, middle], exact[:, middle], rtol=1e-4, atol=1e-4)
    toward_source = (batch.noise - batch.source) / times[0]
    torch.testing.assert_close(found[:, ~middle], toward_source[:, ~middle], rtol=0, atol=0)


@pytest.mark.parametrize("steps", [8, 12, 28])
@torch.inference_mode()
def test_full_attention_computes_all_tokens_in_the_first_six_and_the_last_two_steps(
    full_model, monkeypatch, steps
):
    batch, middle = full_batch(full_model)
    counts, kept = [], []

    def count(target, prepared, *others):
        counts.append(target.shape[1])
        kept.append(prepared.context is None)
        return outputs(target, prepared, *others)

    outputs = full_model.transformer._outputs
    monkeypatch.setattr(full_model.transformer, "_outputs", count)
    monkeypatch.setattr(full_model.transformer, "backend", None)
    sample(full_model.transformer, batch, schedule(steps, 16, 3.0), Guidance(), lambda estimate: middle)
    between = max(0, steps - REST_WARM_UP - REST_END)
    assert (
        counts == [16] * (steps - between)
        if not between
        else (counts == [16] * REST_WARM_UP + [4] * between + [16] * REST_END)
    )
    inner = kept[REST_WARM_UP : REST_WARM_UP + between]
    assert inner == [i % REST_REFRESH > 0 for i in range(between)]  # computed anew at every eighth


def test_regions_are_off_in_full_attention_unless_they_are_asked_for(full_model):
    editor = Editor(full_model)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def edit(regions):
        result = editor.edit(picture, "x", seed=1, steps=12, box=(16, 16, 16, 16), regions=regions)
        return np.asarray(result.picture)

    default, without, asked = edit(None), edit(False), edit(True)
    assert np.array_equal(default, without) and not np.array_equal(default, asked)
    outside = np.ones(picture.shape[:2], bool)
    outside[16:32, 16:32] = False
    assert np.array_equal(asked[outside], picture[outside])
