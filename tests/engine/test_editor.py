"""The edit path: seeds, batches, stores, previews, cancel and guidance.

Also every request that must be refused.
"""

import threading
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from kontext.bench.speed import as_full
from kontext.checkpoint import load_model
from kontext.checkpoint.placement import Placement
from kontext.engine import Editor, EditRequest
from kontext.engine.guidance import Guidance
from kontext.engine.sampling import Batch, sample
from kontext.errors import BadCheckpoint, BadPicture, BadRequest, Cancelled, DeviceUnavailable, NotFound
from kontext.model.tokens import picture_ids
from kontext.pictures import PhotoWarning
from kontext.session.provenance import SETTINGS, read_chain
from support.device import simulated
from support.numeric import TINY_TERMS, difference, rounding


def noise(width=64, height=64, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pixels(result):
    return np.asarray(result.picture)


def test_second_prompt_costs_no_encode_and_no_prefill(editor, count_calls):
    editor.edit(noise(), "make it red", steps=2)
    counts = count_calls(editor)
    editor.edit(noise(), "make it blue", steps=2)
    assert counts == {"encode": 0, "decode": 1, "prefill": 0, "evaluate": 2, "t5": 1}


def test_same_prompt_is_encoded_once(editor, count_calls):
    editor.edit(noise(), "make it red")
    counts = count_calls(editor)
    editor.edit(noise(seed=1), "make it red")
    assert counts["t5"] == 0


@pytest.mark.parametrize("background", [False, True])
def test_prefill_leaves_nothing_of_the_picture_to_compute(editor, count_calls, background):
    future = editor.prefill(noise(), background=background)
    if background:
        future.result(timeout=60)
    counts = count_calls(editor)
    editor.edit(Image.fromarray(noise()), "make it red", steps=1)
    assert counts == {"encode": 0, "decode": 1, "prefill": 0, "evaluate": 1, "t5": 1}


def test_a_closed_editor_leaves_no_thread_and_can_be_used_again(random_model):
    before = set(threading.enumerate())
    with Editor(random_model) as editor:
        assert editor.prefill_in_background(noise()).result(timeout=60) is None
        started = set(threading.enumerate()) - before
        assert started
    assert not started & set(threading.enumerate())
    editor.close()
    editor.prefill_in_background(noise()).result(timeout=60)
    editor.close()


def test_a_result_saves_the_history_of_what_was_edited(editor, tmp_path):
    first = editor.edit(noise(), "make it red", seed=1, steps=1).save(tmp_path / "red.png")
    second = editor.edit(first, "make it blue", seed=2, steps=1).save(first)
    assert [(link.kind, link.seed) for link in read_chain(second)] == [
        ("source", None),
        ("edit", 1),
        ("edit", 2),
    ]


def test_stored_prefix_is_bit_equal_whatever_the_prompt_and_seed(editor):
    editor.edit(noise(), "make it red", seed=1)
    store = editor.contexts._cache._entries
    before = {key: value for key, (value, _) in store.items() if key[0] == "prefix"}
    editor.edit(noise(), "something else entirely", seed=2, steps=5)
    fresh = Editor(editor.model)
    fresh.edit(noise(), "a third", seed=3)
    for key, prefix in before.items():
        again, _ = fresh.contexts._cache._entries[key]
        for a, b in zip(prefix.blocks, again.blocks):
            assert torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)


def test_first_and_second_context_have_prefixes_of_their_own(editor):
    editor.edit(noise(), "make it red", references=[noise()])
    kept = [key for key in editor.contexts._cache._entries if key[0] == "prefix"]
    assert sorted(key[1] for key in kept) == [(1, 0, 0), (2, 0, 0)]


def test_store_stays_within_its_bytes_and_forgets_the_oldest(random_model):
    editor = Editor(random_model, context_bytes=400_000)
    for seed in range(6):
        editor.edit(noise(seed=seed), "make it red", steps=1)
        assert editor.contexts.bytes <= 400_000
    assert len(editor.contexts._cache) >= 1


def test_model_evaluations_and_guidance(editor, count_calls):
    counts = count_calls(editor)
    plain = editor.edit(noise(), "make it red", seed=1, steps=3, guidance=1, lock=False)
    guided = editor.edit(noise(), "make it red", seed=1, steps=3, guidance=3, lock=False)
    assert plain.evaluations == 3 and guided.evaluations == 6
    assert counts["evaluate"] == 6  # both halves of guidance run as one batch
    assert not np.array_equal(pixels(plain), pixels(guided))


def test_guidance_is_the_formula_over_two_evaluations(random_model):
    transformer = random_model.transformer
    generator = torch.Generator().manual_seed(0)
    text, empty = torch.randn(2, 1, 6, random_model.preset.transformer.text_width, generator=generator)
    pooled, nothing = torch.randn(2, 1, random_model.preset.transformer.pooled_width, generator=generator)
    z, ids = torch.randn(1, 16, 64, generator=generator), picture_ids(0, 4, 4)
    with torch.no_grad():
        batch = Batch(noise=z, ids=ids, text=text, pooled=pooled, negative=(empty, nothing))
        result = sample(transformer, batch, [1.0, 0.0], Guidance(true=2.5)).tokens
        time = torch.ones(1)
        conditional = transformer(z, text, pooled, time, None, ids)
        unconditional = transformer(z, empty, nothing, time, None, ids)
    expected = z - (unconditional + 2.5 * (conditional - unconditional))
    assert difference(result, expected) <= 6 * rounding(TINY_TERMS)  # the sum takes 2.5 + 2.5 + 1 velocities


@pytest.mark.parametrize(
    "size_spec, size", [("match", (90, 50)), ("64x64", (64, 64)), ("1:2", (25, 50)), ((70, 30), (70, 30))]
)
def test_result_has_exactly_the_size_asked_for(editor, size_spec, size):
    result = editor.edit(noise(90, 50), "make it red", size=size_spec)
    assert result.size == result.picture.size == size
    assert ("cropped" in " ".join(result.warnings)) == (size_spec != "match" and size_spec != (90, 50))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_references_of_mixed_sizes(editor, count):
    references = [noise(40 + 30 * i, 90 - 20 * i, i) for i in range(count)]
    result = editor.edit(noise(), "make it red", references=references)
    assert result.size == (64, 64) and result.settings["references"] == count


def test_references_change_the_result_and_their_order_matters(editor):
    a, b = noise(seed=1), noise(seed=2)
    results = [
        pixels(editor.edit(noise(), "make it red", seed=1, lock=False, references=references))
        for references in ((), (a,), (a, b), (b, a))
    ]
    for i, item in enumerate(results):
        assert not any(np.array_equal(item, other) for other in results[:i])


def test_generation_without_and_with_references(editor):
    result = editor.generate("a cat", seed=1)
    assert result.size == (64, 64) and result.region is None and result.changed_fraction == 1
    assert editor.generate("a cat", size="30x90", references=[noise()]).size == (30, 90)


def test_every_step_has_a_preview(editor):
    steps, shown = [], []

    def on_step(step):
        steps.append((step.index, step.steps))
        shown.append(step.preview())

    editor.edit(noise(90, 50), "make it red", steps=4, on_step=on_step)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    # the canvas is 80x48, and the picture 80x44 of it
    assert all(preview.mode == "RGB" and preview.size == (80, 44) for preview in shown)
    editor.generate("a cat", steps=1, on_step=lambda step: shown.append(step.preview()))
    assert shown[-1].size == (16, 16)  # two pixels a latent, for 16 channels


def test_cancel_stops_within_one_step(editor, count_calls):
    counts, cancel = count_calls(editor), threading.Event()
    with pytest.raises(Cancelled, match="step 3 of 50"):
        editor.edit(
            noise(),
            "make it red",
            steps=50,
            cancel=cancel,
            on_step=lambda step: step.index == 2 and cancel.set(),
        )
    assert counts["evaluate"] == 2 and counts["decode"] == 1  # the codec's view of the source


def test_result_tells_how_it_was_made(editor):
    result = editor.edit(noise(), "Make it red", steps=3)
    assert result.model == "tiny-random" and result.steps == 3 and result.prompt == "Make it red"
    assert set(result.seconds) == {"load", "encode", "text", "sample", "decode", "total"}
    assert 0 <= result.seed < 2**32
    again = editor.edit(
        noise(), result.prompt, seed=result.seed, steps=result.steps, guidance=result.guidance
    )
    assert np.array_equal(pixels(result), pixels(again))


def test_an_edit_in_fp8_is_near_the_exact_one_and_says_so():
    settings = {"seed": 3, "steps": 4, "lock": False, "regions": False}
    exact, eight = Editor.load("nano", device="cpu"), Editor.load("nano", device="cpu", fp8=True)
    assert eight.model.fp8 and not exact.model.fp8
    assert eight.model.fingerprint == exact.model.fingerprint
    made, expected = (e.edit(noise(256, 256), "make it night", **settings) for e in (eight, exact))
    distance = np.sqrt(np.square(pixels(made).astype(float) - pixels(expected)).mean())
    assert 0.05 < distance < 5  # levels of 255
    assert (made.settings["fp8"], expected.settings["fp8"]) == (True, False)
    assert (
        pixels(eight.edit(noise(256, 256), "make it night", **settings)).tobytes() == pixels(made).tobytes()
    )


def test_variants_in_fp8_are_near_single_edits():
    editor = Editor.load("tiny-random", device="cpu", fp8=True)
    several = editor.variants(noise(), "a hat", 3, seed=5, lock=False)
    single = editor.edit(noise(), "a hat", seed=6, lock=False)
    # each token has its own scale, whatever else is in the batch; sums are in another order
    assert np.abs(pixels(several[1]).astype(int) - pixels(single)).max() <= 1


def test_a_refreshed_context_works_in_fp8():
    model = as_full(Editor.load("tiny-random", device="cpu").model)
    model.source = model.weights()
    editor = Editor(model)
    exact = pixels(editor.edit(noise(), "a hat", seed=1, steps=6, lock=False)).astype(float)
    model.place(Placement(fp8=True))
    editor = Editor(model)
    made = [
        pixels(editor.edit(noise(), "a hat", seed=1, steps=6, lock=False, context_refresh=n)) for n in (1, 2)
    ]
    assert editor.model.fp8 and not np.array_equal(*made)
    assert all(0 < np.sqrt(np.square(picture - exact).mean()) < 3 for picture in made)


def test_fp8_is_refused_where_it_cannot_work():
    with simulated("mps"), pytest.raises(DeviceUnavailable, match=r"fp8 needs an NVIDIA GPU .* got mps"):
        Editor.load("tiny-random", device="mps", fp8=True)
    with simulated("cuda") as device:
        device.capability = (8, 0)
        with pytest.raises(DeviceUnavailable, match="cuda has 8.0: load the model without fp8"):
            Editor.load("tiny-random", device="cuda", fp8=True)


def test_fp8_without_a_layer_that_fits_is_refused(monkeypatch):
    monkeypatch.setattr("kontext.checkpoint.placement.multiplies_in_fp8", lambda name, shape: False)
    for memory in (None, "1GB"):
        with pytest.raises(BadRequest, match="fp8 needs linear layers whose sides are divisible by 16"):
            Editor.load("tiny-random", device="cpu", memory=memory, fp8=True)


def test_a_photograph_warns_and_names_what_to_do(editor):
    data = pytest.importorskip("skimage.data")
    (warning,) = [item for item in editor.edit(Image.fromarray(data.rocket()), "make it red").warnings]
    assert isinstance(warning, PhotoWarning) and "dev" in warning and "dB" not in warning
    drawing = Image.new("RGB", (427, 640), "white")
    ImageDraw.Draw(drawing).ellipse((90, 90, 300, 400), fill="red", outline="black", width=5)
    assert not editor.edit(drawing, "make it blue").warnings


def test_a_saved_edit_is_not_judged_again(editor, tmp_path):
    data = pytest.importorskip("skimage.data")
    first = editor.edit(Image.fromarray(data.rocket()), "make it red", box=(0, 0, 9, 9))
    saved = first.save(tmp_path / "rocket.png")
    assert any(isinstance(item, PhotoWarning) for item in first.warnings)
    assert not any(isinstance(item, PhotoWarning) for item in editor.edit(saved, "make it blue").warnings)


def test_a_drawing_that_the_codec_keeps_does_not_warn(painting_editor):
    drawing = Image.new("RGB", (128, 128), (250, 220, 120))
    ImageDraw.Draw(drawing).ellipse((30, 30, 90, 90), fill=(60, 120, 200))
    painting_editor.model.transformer.paint = lambda pixels: pixels[:, 40:60, 40:60].fill_(1)
    assert painting_editor.edit(drawing, "make it red").warnings == ()


def test_nothing_changed_is_a_warning(painting_editor, scene, editor):
    result = painting_editor.edit(scene, "make it red")
    assert result.changed_fraction == 0 and any("nothing changed" in item for item in result.warnings)
    painting_editor.model.transformer.paint = lambda pixels: pixels[:, 40:60, 40:60].fill_(1)
    result = painting_editor.edit(scene, "make it red")
    assert result.changed_fraction > 0 and not any("nothing changed" in item for item in result.warnings)
    assert not any("nothing changed" in item for item in editor.generate("a tree", steps=1).warnings)


def test_nano_s_own_drawings_are_not_taken_for_photographs():
    """The example of the library through three turns, on which a stricter measure fired."""
    from importlib.resources import files

    editor = Editor.load("nano", device="cpu")
    picture = (files("kontext") / "examples" / "library.png").read_bytes()
    for prompt in ("Make the hair blue", "Change the background to a beach", "Make the shirt green"):
        result = editor.edit(picture, prompt, seed=1)
        assert not any("photograph" in warning for warning in result.warnings), prompt
        picture = result.picture


@pytest.mark.parametrize("lock", [True, False])
@pytest.mark.parametrize("name", ["nano-random", "tiny-random"])  # with a region head, and without one
def test_values_that_overflow_are_an_error_and_not_an_unchanged_picture(name, lock):
    model = load_model(name)
    with torch.no_grad():
        for block in model.transformer.double_blocks:
            block.img_attn.proj.weight.fill_(1e36)
            block.img_mlp[2].weight.fill_(1e36)
    side = model.preset.sizes[0][0]
    with pytest.raises(BadCheckpoint, match="not finite"):
        Editor(model).edit(noise(side), "make it red", steps=2, lock=lock)


def test_a_result_carries_all_that_repeats_it(editor):
    result = editor.edit(noise(), "make it red", steps=1)
    assert set(SETTINGS) <= set(result.settings) | {field.name for field in fields(result)}


def test_a_result_is_not_judged_again(painting_editor, scene, tmp_path):
    """What a model painted can look like a photograph; as a picture, from a file, copied."""
    painting_editor.model.transformer.paint = lambda pixels: pixels[:, 40:60, 40:60].fill_(1)
    first = painting_editor.edit(scene, "a square", seed=1)
    saved = first.save(tmp_path / "first.png")

    def judged(picture):
        return any(
            "photograph" in item for item in painting_editor.edit(picture, "a square", seed=2).warnings
        )

    assert any("photograph" in item for item in first.warnings)
    assert not any(map(judged, (first.picture, first.picture.copy(), saved, Image.open(saved))))
    assert judged(np.asarray(first.picture))


def test_a_session_judges_its_first_picture_alone(painting_editor, scene):
    painting_editor.model.transformer.paint = lambda pixels: pixels[:, 40:60, 40:60].fill_(1)
    session = painting_editor.open(scene)
    judged = []
    for turn in (session.edit("a square", seed=1), session.edit("a square", seed=2), *session.variants(2)):
        judged.append(any("photograph" in item for item in turn.result_info["warnings"]))
    assert judged == [True, False, False, False]


def test_a_new_box_or_mask_costs_no_prefill_and_markup_is_shown_to_the_model(editor, count_calls):
    editor.edit(noise(), "make it red", steps=1)
    counts = count_calls(editor)
    editor.edit(noise(), "make it red", steps=1, box=(5, 5, 30, 30))
    editor.edit(noise(), "make it red", steps=1, mask=mask())
    assert counts["prefill"] == 0
    strokes = np.zeros((64, 64, 4), np.uint8)
    strokes[10:40, 10:12] = strokes[10:40, 40:42] = (255, 0, 0, 255)
    editor.edit(noise(), "make it red", steps=1, markup=strokes)
    assert counts["prefill"] == 1


def mask(width=64, height=64, value=255):
    return Image.new("L", (width, height), value)


@pytest.mark.parametrize(
    "error, said, change",
    [
        (BadRequest, "prompt is empty", {"prompt": "  "}),
        (BadRequest, "prompt is empty", {"prompt": None}),
        (BadRequest, "tokens", {"prompt": "make it " + "very " * 40 + "red"}),
        (BadRequest, "1 to 200", {"steps": 0}),
        (BadRequest, "1 to 200", {"steps": 201}),
        (BadRequest, "1 to 200", {"steps": 2.5}),
        (BadRequest, "1 to 30", {"guidance": 0.5}),
        (BadRequest, "1 to 30", {"guidance": float("nan")}),
        (BadRequest, "1 to 30", {"guidance": 31}),
        (BadRequest, "seed", {"seed": -1}),
        (BadRequest, "seed", {"seed": 2**60}),
        (BadRequest, "seed", {"seed": "x"}),
        (BadRequest, "at most 4", {"references": [noise()] * 4}),
        (BadRequest, "not inside", {"box": (60, 60, 10, 10)}),
        (BadRequest, "not inside", {"box": (-1, 0, 10, 10)}),
        (BadRequest, "not inside", {"box": (5, 5, 0, 10)}),
        (BadRequest, "is invalid", {"box": (5.5, 5, 10, 10)}),
        (BadRequest, "is invalid", {"box": (5, 5, 10)}),
        (BadRequest, "is invalid", {"box": "5,5,a,b"}),
        (BadRequest, "must be equal", {"mask": mask(63)}),
        (BadRequest, "is empty", {"mask": mask(value=0)}),
        (
            BadRequest,
            "in common",
            {"mask": Image.fromarray(np.pad(noise()[:9, :9, 0] | 1, (0, 55))), "box": (40, 40, 9, 9)},
        ),
        (BadRequest, "must be equal", {"markup": noise(63, channels=4)}),
        (BadRequest, "transparent", {"markup": noise()}),
        (BadRequest, "empty", {"markup": np.zeros((64, 64, 4), np.uint8)}),
        (BadRequest, "must be 16 to 16384", {"size": "1x1"}),
        (BadRequest, "must be 16 to 16384", {"size": "20000x20000"}),
        (BadRequest, "is invalid", {"size": "huge"}),
        (BadPicture, "0 bytes", {"picture": b""}),
        (BadPicture, "too small", {"picture": noise(1, 1)}),
        (NotFound, "no such file", {"picture": "/nowhere.png"}),
        (NotFound, "no such file", {"references": ["/nowhere.png"]}),
    ],
)
def test_bad_requests_are_refused_in_one_line_before_any_computation(
    editor, count_calls, error, said, change
):
    counts = count_calls(editor)
    given = {"picture": noise(), "prompt": "make it red", **change}
    with pytest.raises(error, match=said) as refused:
        editor.edit(given.pop("picture"), given.pop("prompt"), **given)
    assert "\n" not in str(refused.value)
    assert not any(counts.values())


@pytest.mark.parametrize("change", [{"box": (0, 0, 9, 9)}, {"mask": mask()}, {"markup": noise(channels=4)}])
def test_pointing_needs_a_picture(editor, change):
    with pytest.raises(BadRequest, match="give the picture"):
        editor.edit_batch([EditRequest(prompt="a cat", **change)])


def test_unknown_device_is_refused():
    with pytest.raises(BadRequest, match="device 'quantum'"):
        Editor.load("tiny-random", device="quantum")


def test_open_starts_a_session_on_the_picture(editor):
    session = editor.open(Image.fromarray(noise()))
    session.edit("make it red")
    assert np.array_equal(np.asarray(session.picture)[..., :3].shape, (64, 64, 3))
    session.undo()
    assert np.array_equal(np.asarray(session.picture), noise())


def test_contexts_kept_for_some_steps_come_near_to_exact(random_model):
    editor = Editor(as_full(random_model))

    def edited(refresh, steps=6):
        settings = {"seed": 1, "steps": steps, "lock": False}
        return pixels(editor.edit(noise(), "x", context_refresh=refresh, **settings)).astype(float)

    assert np.array_equal(edited(4, steps=1), edited(1, steps=1))
    assert np.array_equal(edited(1), edited(None))
    distances = [np.abs(edited(refresh) - edited(1)).mean() for refresh in (2, 6)]
    assert 0 < distances[0] < distances[1] < 10
