"""The recipe: all stages in order, in calls that pause and go on; what is left is a model in small files."""

import json
from pathlib import Path

import pytest

import kontext.train
from kontext.checkpoint import load_model
from kontext.train.recipe import follow
from kontext.train.run import Paused, TrainingRun

TINY = Path(kontext.train.__file__).parent / "configs" / "recipe-tiny.toml"


def test_a_run_pauses_saved_when_the_time_of_its_call_is_over(tmp_path):
    run, saved = TrainingRun(tmp_path, steps=9, seconds=None, warmup=1, decay_share=0.0, call_seconds=0.0), []
    with pytest.raises(Paused):
        run.pause_if_due(lambda: saved.append(run.step))
    assert saved == [0]
    TrainingRun(tmp_path, steps=9, seconds=None, warmup=1, decay_share=0.0).pause_if_due(saved.clear)
    assert saved == [0]


@pytest.mark.slow
def test_the_whole_recipe_in_calls_of_any_length(tmp_path):
    out, export, calls = tmp_path / "runs", tmp_path / "shipped", 1
    while not follow(TINY, out, call_seconds=4.0, export=export):
        calls += 1
        assert calls < 60
    assert calls > 1
    model = load_model(export)
    assert model.preset.sampling.steps == 2
    files = list(export.glob("*.safetensors"))
    assert all(file.stat().st_size <= 0.25 * 2**20 for file in files) and len(files) > 4
    for name, steps in (("autoencoder", 10), ("flow", 8), ("turns", 8), ("student", 8)):
        lines = [json.loads(line) for line in (out / name / "log.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == steps and any("pace" in line for line in lines)
    assert follow(TINY, out)  # nothing is left to do
