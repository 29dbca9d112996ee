"""Distances of approximations to the exact result, and those of fewer steps."""

from dataclasses import replace

import pytest

from kontext.bench import approximations
from kontext.bench.peer import as_full
from kontext.bench.run import Run
from kontext.engine import Editor


def measured(editor, folder, **settings):
    with Run(folder, {}) as run:
        approximations.measure(editor, run, **settings)
        result = run.result("approximations", "x", approximations.FIGURES)
        html = "".join(approximations.sections(result))
    rows = {row: groups["test"] for row, groups in result["rows"].items()}
    assert all(row in html for row in rows)
    return rows


def test_step_caches_of_larger_thresholds_compute_less_and_are_compared_with_fewer_steps(tmp_path):
    rows = measured(Editor.load("nano", device="cpu"), tmp_path, size=256, n=1, steps=20)
    caches = [f"step cache {threshold}" for threshold in ("0.01", "0.02", "0.05")]
    assert set(rows) == {"exact", *caches, *(f"fewer steps in the time of {name}" for name in caches)}
    exact = rows["exact"]
    assert exact["rms"]["mean"] == exact["dE"]["mean"] == 0 and exact["evaluations"]["mean"] == 20
    counts = [rows[name]["evaluations"]["mean"] for name in caches]
    assert 20 > counts[0] > counts[1] > counts[2] >= 6
    for name in caches:
        fewer = rows[f"fewer steps in the time of {name}"]
        assert 0 < rows[name]["rms"]["mean"] < 1 and fewer["total"]["mean"] > 0


def test_products_in_fp8_are_measured_against_exact_ones_and_fewer_steps(tmp_path):
    settings = {"size": 64, "n": 2, "steps": 4}
    made = approximations.edits(Editor.load("tiny-random", device="cpu", fp8=True), **settings)
    rows = measured(Editor.load("tiny-random", device="cpu"), tmp_path, fp8=made, **settings)
    assert {"fp8", "fewer steps in the time of fp8"} <= set(rows)
    assert 0 < rows["fp8"]["rms"]["mean"] < 5 and rows["fp8"]["evaluations"]["mean"] == 4
    assert rows["fp8"]["total"]["mean"] == pytest.approx(sum(ms for _, ms, _ in made) / 2)


def test_a_refreshed_context_is_measured_in_models_with_full_attention(tmp_path):
    model = as_full(Editor.load("tiny-random").model)
    assert model.preset.transformer.context_attention == "full"
    rows = measured(Editor(replace(model)), tmp_path, size=64, n=1, steps=6)
    assert rows["context refresh 2"]["evaluations"]["mean"] == 6
    assert 0 < rows["context refresh 2"]["rms"]["mean"] < rows["context refresh 4"]["rms"]["mean"]
    assert rows["context refresh 4, step cache 0.02"]["rms"]["mean"] > 0
    assert rows["regions"]["evaluations"]["mean"] == 6
