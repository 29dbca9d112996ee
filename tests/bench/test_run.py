"""A run's folder: resumable, tied to its settings, safe against a stop in the middle of a line."""

import json
import math

import pytest

from kontext.bench.run import Figure, Record, Run
from kontext.errors import BadRequest

FIGURES = {"success": Figure("success"), "psnr": Figure("PSNR", share=False)}


def record(item, row="model@4", category="local", note="", **figures):
    return Record(item, row, category, "test", item, figures, note)


def test_figures_are_grouped_by_split_and_category_with_equal_weight(tmp_path):
    with Run(tmp_path, {}) as run:
        for i in range(9):
            run.add(record(f"a{i}", success=1.0, psnr=30.0 + i))
        run.add(record("b", category="text", success=0.0, psnr=math.nan))
        rows = run.result("quality", "m", FIGURES)["rows"]["model@4"]
    assert rows["test"]["success"]["mean"] == pytest.approx(0.5)
    assert rows["test/local"]["success"]["n"] == 9 and rows["test/text"]["success"]["mean"] == 0
    assert "psnr" not in rows["test/text"] and rows["test"]["psnr"]["mean"] == pytest.approx(34)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    with Run(tmp_path, {"steps": [4]}) as run:
        run.add(record("a", success=1.0, psnr=math.nan))
        run.add(record("b", note="judge away"))
    with open(tmp_path / "records.jsonl", "a") as lines:
        lines.write('{"item": "c", "row": "mod')  # stopped while writing
    with Run(tmp_path, {"steps": [4]}, resume=True) as run:
        assert run.done("a", "model@4") and not run.done("b", "model@4") and not run.done("c", "model@4")
        run.add(record("b", success=0.0))
        run.add(record("c", success=1.0))
    with Run(tmp_path, {"steps": [4]}, resume=True) as run:
        assert [r.item for r in run.records] == ["a", "b", "c"] and not run.records[1].note
        assert math.isnan(run.records[0].figures["psnr"])


def test_other_settings_or_a_forgotten_resume_are_refused(tmp_path):
    Run(tmp_path, {"steps": [4], "n": 3}).close()
    with pytest.raises(BadRequest, match="--resume"):
        Run(tmp_path, {"steps": [4], "n": 3})
    with pytest.raises(BadRequest, match="steps"):
        Run(tmp_path, {"steps": [8], "n": 3}, resume=True)


def test_the_published_result_is_strict_json(tmp_path):
    with Run(tmp_path, {}) as run:
        run.add(record("a", success=math.nan))
        text = json.dumps(run.result("quality", "m", FIGURES), allow_nan=False)
    assert json.loads(text)["items"][0]["figures"] == {"success": None}
