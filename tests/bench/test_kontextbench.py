"""A published set from folder to scores, with a judge that answers, babbles, dawdles and fails."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image, ImageOps

from kontext.bench import kontextbench, report
from kontext.bench.judge import Judge, NoScore
from kontext.bench.run import Run
from kontext.errors import BadRequest

CATEGORIES = ["Text Editing", "Style Reference"]


class Inverter:
    """An editor that inverts the picture, and refuses one prompt."""

    def __init__(self):
        self.asked = []

    def edit(self, picture, prompt, **settings):
        self.asked.append(prompt)
        if "impossible" in prompt:
            raise BadRequest("no such thing")
        image = ImageOps.invert(Image.open(picture).convert("RGB"))
        return SimpleNamespace(picture=image, seconds={"total": 0.5})


class ScriptedJudge(Judge):
    def viescore(self, source, result, prompt):
        if "babble" in prompt:
            raise NoScore("answer not understood")
        assert source.getpixel((0, 0)) == (0, 128, 128) and result.getpixel((0, 0)) == (255, 127, 127)
        return {"sc": 8.0, "pq": 2.0, "overall": 4.0}


@pytest.fixture
def folder(tmp_path):
    prompts = ["make it red", "babble", "impossible", "write 'TEA'"]
    rows = []
    (tmp_path / "set" / "test").mkdir(parents=True)
    for i, prompt in enumerate(prompts):
        Image.new("RGB", (32, 24), "teal").save(tmp_path / "set" / "test" / f"{i}.png")
        row = {"file_name": f"{i}.png", "instruction": prompt, "category": CATEGORIES[i % 2], "key": str(i)}
        rows.append(json.dumps(row))
    (tmp_path / "set" / "test" / "metadata.jsonl").write_text("\n".join(rows))
    return tmp_path / "set"


def test_a_run_survives_and_names_what_has_no_score(folder, tmp_path):
    with Run(tmp_path / "run", {"suite": "kontextbench"}) as run:
        layout, figures = kontextbench.measure(Inverter(), run, folder, judge=ScriptedJudge("http://x", "m"))
        result = run.result("kontextbench", "inverter", figures)
        html = report.page(result, kontextbench.sections(run, folder, result))
    assert layout == "kontextbench" and result["n"] == 4
    assert result["rows"]["model"]["en"]["overall"] == pytest.approx(
        {"mean": 4.0, "low": 4.0, "high": 4.0, "n": 2}
    )
    missing = {m["item"].split("/")[-1]: m["why"] for m in result["unscored"]}
    assert "not understood" in missing["1"] and "no such thing" in missing["2"] and len(missing) == 2
    assert (tmp_path / "run" / "results" / "0.png").is_file()
    assert "no such thing" in html and "make it red" in html and 'src="data:image' in html


def test_resuming_makes_nothing_twice_and_tries_the_missing_again(folder, tmp_path):
    first, second = Inverter(), Inverter()
    with Run(tmp_path / "run", {}) as run:
        kontextbench.measure(first, run, folder, judge=ScriptedJudge("http://x", "m"), n=2)
    with Run(tmp_path / "run", {}, resume=True) as run:
        kontextbench.measure(second, run, folder, judge=ScriptedJudge("http://x", "m"))
        assert len(run.records) == 4
    assert first.asked == ["make it red", "babble"] and second.asked == ["impossible", "write 'TEA'"]


def test_pairs_against_another_systems_results(folder, tmp_path):
    class Prefers(ScriptedJudge):
        def better(self, source, first, second, prompt):
            return 1.0

    others = tmp_path / "others"
    others.mkdir()
    Image.new("RGB", (32, 24)).save(others / "0.png")
    with Run(tmp_path / "run", {}) as run:
        kontextbench.measure(Inverter(), run, folder, judge=Prefers("http://x", "m"), against=others, n=2)
        first, second = run.records
    assert first.figures["wins"] == 1.0 and not first.note
    assert "wins" not in second.figures and "is not there" in second.note


def test_without_a_judge_pictures_are_made_and_timed(folder, tmp_path):
    with Run(tmp_path / "run", {}) as run:
        _, figures = kontextbench.measure(Inverter(), run, folder, n=1)
        result = run.result("kontextbench", "inverter", figures)
    assert set(result["rows"]["model"]["en"]) == {"seconds"} and not result["unscored"]
