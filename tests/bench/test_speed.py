"""Timing and memory on random weights, and the same weights in diffusers with the same output."""

import numpy as np
import pytest
import torch

from kontext.bench import peer, rows, speed
from kontext.bench.items import draw_item
from kontext.bench.run import Run
from kontext.engine import Editor
from kontext.errors import BadRequest


@pytest.fixture(scope="module")
def editor():
    return Editor.load("tiny-random")


def test_stages_and_evaluations_are_recorded_for_each_number_of_steps(editor, tmp_path):
    with Run(tmp_path, {}) as run:
        latency = speed.measure(editor, run, runs=2, size=64, steps=[1, 2])
        result = run.result("speed", "tiny-random", speed.FIGURES, latency=latency)
        html = "".join(speed.sections(result))
    assert set(latency) == {"model new@1", "model seen@1", "model new@2", "model seen@2"}
    assert all(0 < t["p50"] <= t["p95"] for t in latency.values())
    cells = result["rows"]["model new@2"]["test"]
    assert cells["evaluations"]["mean"] == 2 and cells["evaluations"]["n"] == 2
    stages = sum(cells[stage]["mean"] for stage in speed.STAGES)
    assert 0.5 * cells["total"]["mean"] < stages <= cells["total"]["mean"]
    assert "edits a second in a batch" in html and "<svg" in html


def test_diffusers_gives_the_same_picture_from_the_same_weights(editor, tmp_path):
    with Run(tmp_path, {}) as run:
        facts = speed.against_diffusers(editor, run, pairs=2, size=64, steps=2)
        result = run.result("speed", "tiny-random", speed.FIGURES, latency={}, diffusers=facts)
        html = "".join(speed.sections(result))
    assert 0 <= facts["largest difference"] <= 1e-4
    assert set(facts["ratio"]) == {"ours, full", "ours, prefix", "ours, prefix cached", speed.WHOLE}
    assert all(low <= middle <= high for low, middle, high in facts["ratio"].values())
    assert result["rows"]["diffusers for ours, full"]["test"]["total"]["n"] == 2
    assert "A B A B" in html


def test_a_different_output_is_an_error_not_a_speed(editor, tmp_path, monkeypatch):
    right = speed.ours
    monkeypatch.setattr(speed, "ours", lambda *input_picture: right(*input_picture) + 2e-4)
    with Run(tmp_path, {}) as run, pytest.raises(BadRequest, match="differ"):
        speed.against_diffusers(editor, run, pairs=1, size=64, steps=1)


def test_diffusers_can_be_scored_like_any_row(editor, monkeypatch):
    monkeypatch.setattr("kontext.bench.peer.Peer.edit.__defaults__", (2,))
    edited, invented = (draw_item("test", category, 0, 64) for category in ("local", "generate"))
    (made, facts), (left, refused) = rows.answer("diffusers", [edited, invented], editor)
    text, pooled = editor.prompts.states(edited.prompt)
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(edited.seed))
    picture = torch.from_numpy(edited.sample.source.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected = speed.ours(
            speed.as_full(editor.model), speed.EncodedInputs(picture, text, pooled, noise, 2, 1.0)
        )
    assert np.abs(made / 255 - expected[0].permute(1, 2, 0).numpy()).max() <= 0.51 / 255
    assert facts["refused"] == 0 and facts["seconds"] > 0
    assert refused == {"refused": 1.0} and np.array_equal(left, invented.input_picture)


def test_a_picture_seen_before_gives_the_same_result(editor):
    text, pooled = editor.prompts.states("x")
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = speed.EncodedInputs(torch.rand(1, 3, 64, 64), text, pooled, noise, 2, 1.0)
    cached = {}
    with torch.inference_mode():
        first, again = (
            speed.ours(editor.model, inputs, cached),
            speed.ours(editor.model, inputs, cached),
        )
        assert torch.equal(first, again) and torch.equal(first, speed.ours(editor.model, inputs))
    assert len(cached) == 1


def test_memory_counts_what_was_held():
    before = speed.memory_mib("cpu")
    held = np.ones(32 * 2**20)
    held += 1
    assert speed.memory_mib("cpu") >= max(before, 256)


def test_both_engines_share_the_weights_in_memory(editor):
    from diffusers import FluxTransformer2DModel

    model = peer.as_full(editor.model)
    assert peer.as_full(model).transformer is model.transformer
    theirs = peer.diffusers_network(FluxTransformer2DModel, model, "transformer")
    ours = {parameter.untyped_storage().data_ptr() for parameter in model.transformer.parameters()}
    copied = [p for p in theirs.parameters() if p.untyped_storage().data_ptr() not in ours]
    assert sum(p.nbytes for p in copied) < 0.05 * sum(p.nbytes for p in theirs.parameters())


def test_differences_of_shorter_types_are_reported(editor, tmp_path):
    model = peer.as_full(editor.model)
    for part in (model.transformer, model.autoencoder, model.t5, model.clip):
        part.to(torch.bfloat16)
    with Run(tmp_path, {}) as run:
        facts = speed.against_diffusers(Editor(model), run, pairs=1, size=64, steps=2)
    assert speed.TOLERANCE < facts["largest difference"] < 0.1
