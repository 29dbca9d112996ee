"""Two runs side by side, and the page and plots that show one."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from kontext.bench import compare, plots, report
from kontext.bench.quality import FIGURES
from kontext.bench.run import Record, Run
from kontext.errors import BadRequest, NotFound


def a_run(folder, gain=0.0, n=40, **more):
    rng = np.random.default_rng(0)
    with Run(folder, {}) as run:
        for i in range(n):
            hard = float(rng.random())
            figures = {"combined": 0.5 * hard + gain, "edit_error": hard - gain, "success": 1.0}
            row = Record(
                f"test/local/{i}", "model@4", "local", "test", f"{i}", figures, "", "", more.get("sum", "s")
            )
            run.add(row)
        return run.result(more.get("suite", "quality"), "m", FIGURES)


def test_a_small_gain_on_the_same_items_is_proven(tmp_path):
    first, second = a_run(tmp_path / "a"), a_run(tmp_path / "b", gain=0.02, n=50)
    cells = compare.compare(first, second, FIGURES)["model@4"]["test"]
    assert cells["combined"].n == 40 and cells["combined"].mean == pytest.approx(0.02)
    assert compare.verdict(cells["combined"], FIGURES["combined"]) == "better"
    assert compare.verdict(cells["edit_error"], FIGURES["edit_error"]) == "better"  # less of it is better
    assert compare.verdict(cells["success"], FIGURES["success"]) == "no proven difference"
    back = compare.compare(second, first, FIGURES)["model@4"]["test"]
    assert compare.verdict(back["combined"], FIGURES["combined"]) == "worse"


def test_what_cannot_be_compared_is_refused(tmp_path):
    first = a_run(tmp_path / "a")
    with pytest.raises(BadRequest, match="different suites"):
        compare.compare(first, a_run(tmp_path / "b", suite="text"), FIGURES)
    with pytest.raises(BadRequest, match="not the same in both"):
        compare.compare(first, a_run(tmp_path / "c", sum="other"), FIGURES)
    with pytest.raises(NotFound):
        compare.load(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BadRequest, match="not a run"):
        compare.load(tmp_path / "x.json")


def test_a_run_survives_the_way_through_its_file(tmp_path):
    result = a_run(tmp_path / "a")
    (tmp_path / "a.json").write_text(json.dumps(result))
    assert compare.load(tmp_path / "a.json") == result


def test_names_of_earlier_versions_are_still_read(tmp_path):
    result = a_run(tmp_path / "a")
    record = result["items"][0]
    old = {**record, "row": "diffusers beside ours, prefix seen", "figures": {"colours": 0.5, "pixels": 1.0}}
    (tmp_path / "a.json").write_text(json.dumps({**result, "items": [old]}))
    (loaded,) = compare.load(tmp_path / "a.json")["items"]
    assert loaded["row"] == "diffusers for ours, prefix cached"
    assert loaded["figures"] == {"colors": 0.5, "pixels": 1.0}


def test_plots_are_well_formed_and_keep_order():
    svg = plots.lines({"a & b": [(1, 10, 5, 15), (4, 30, 25, 35)], "c": [(2, float("nan"), 0, 0)]}, "x", "y")
    drawn = ElementTree.fromstring(svg.split("</svg>")[0] + "</svg>")
    points = [p for p in drawn.iter("polyline")][0].get("points").split()
    (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in points)
    assert x1 < x2 and y1 > y2  # SVG counts downwards
    assert "a &amp; b" in svg and len(list(drawn.iter("circle"))) == 2
    assert "no values" in plots.lines({"a": []}, "x", "y")


@pytest.mark.parametrize("x", [0.0, 3.0])
def test_a_single_point_can_be_plotted(x):
    assert "<circle" in plots.lines({"a": [(x, 50.0, 50.0, 50.0)]}, "x", "y")


def test_the_page_escapes_what_it_shows_and_names_what_is_missing(tmp_path):
    with Run(tmp_path, {"prompt": "<script>"}) as run:
        run.add(Record("i<1>", "model", "c", "s", "1", {}, note="judge <away>"))
        result = run.result("kontextbench", "m", FIGURES)
    card = report.Card({"result": np.zeros((8, 8, 3), np.uint8)}, "<b>", "f")
    html = report.page(result, [report.sheet("Best", [card])])
    assert "<script>" not in html and "<b>" not in html and "judge &lt;away&gt;" in html
    assert "Without a score: 1" in html and "data:image/webp;base64," in html
