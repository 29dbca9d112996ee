"""Every suite from items to page: an exact editor gets full marks, one that does nothing gets none."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kontext import world
from kontext.bench import drift, identity, quality, report, rows, style, text
from kontext.bench.items import at_size, draw_item, size_for
from kontext.bench.run import Run
from kontext.errors import BadRequest

SIZE = 64


def key(item):
    return (b"" if item.sample.source is None else item.input_picture.tobytes()), item.prompt


class Exact:
    """Returns a known answer for each picture and sentence; refuses what it does not know."""

    def __init__(self, items=()):
        self.answers = {key(item): item for item in items}

    def edit(self, picture, prompt, **settings):
        item = self.answers.get((picture.tobytes(), prompt))
        if item is None:
            raise BadRequest("never seen")
        return SimpleNamespace(picture=Image.fromarray(item.sample.target), seconds={"total": 0.25})

    def generate(self, prompt, **settings):
        assert settings["size"] == f"{SIZE}x{SIZE}"
        item = self.answers[b"", prompt]
        return SimpleNamespace(picture=Image.fromarray(item.sample.target), seconds={"total": 0.25})


def finished(run, suite, figures, sections):
    result = run.result(suite, "exact", figures)
    json.dumps(result, allow_nan=False)
    html = report.page(result, sections(result))
    assert 'src="http' not in html and "href" not in html  # nothing is fetched
    return result, html


def test_quality(tmp_path):
    categories, names = ("local", "generate"), ("copy", "random", "oracle", "model@4", "model+lock@4")
    editor = Exact([draw_item("test", category, 0, SIZE) for category in categories])
    with Run(tmp_path, {}) as run:
        quality.measure(editor, run, n=1, size=SIZE, rows=names, categories=categories)
        result, html = finished(run, "quality", quality.FIGURES, lambda r: quality.sections(run, r, SIZE))
    success = {row: groups["test"]["success"]["mean"] for row, groups in result["rows"].items()}
    assert success == {"copy": 0, "random": 0, "oracle": 1, "model@4": 1, "model+lock@4": 1}
    assert result["rows"]["model@4"]["test"]["seconds"]["mean"] == 0.25
    assert (tmp_path / "pictures" / "model@4" / "test" / "local" / "0000.png").is_file()
    assert "Best: model+lock@4" in html and "Failures of model+lock@4: none" in html


def test_what_the_editor_refuses_counts_as_unchanged_and_is_recorded(tmp_path):
    with Run(tmp_path, {}) as run:
        quality.measure(Exact(), run, n=1, size=SIZE, rows=["model@4"], categories=("local",))
        result, html = finished(run, "quality", quality.FIGURES, lambda r: quality.sections(run, r, SIZE))
    cells = result["rows"]["model@4"]["test"]
    assert cells["refused"]["mean"] == 1 and cells["success"]["mean"] == 0 and cells["keep@5"]["mean"] == 1
    assert "nothing done 1" in html


def test_a_resumed_run_makes_nothing_twice(tmp_path):
    editor = Exact([draw_item("test", "local", i, SIZE) for i in range(2)])
    with Run(tmp_path, {}) as run:
        quality.measure(editor, run, n=1, size=SIZE, rows=["model@4"], categories=("local",))
    del editor.answers[next(iter(editor.answers))]
    with Run(tmp_path, {}, resume=True) as run:
        quality.measure(editor, run, n=2, size=SIZE, rows=["model@4"], categories=("local",))
        assert [r.figures["success"] for r in run.records] == [1, 1]


def test_drift_to_page(tmp_path):
    with Run(tmp_path, {}) as run:
        drift.measure(None, run, n=1, size=SIZE, rows=["copy", "oracle"], kinds=("nothing", "back"))
        result, html = finished(run, "drift", drift.FIGURES, lambda r: drift.sections(run, r, SIZE))
    assert result["rows"]["oracle"]["test/back"]["sr@10"]["mean"] == 1
    assert result["rows"]["copy"]["test/back"]["sr@1"]["mean"] == 0
    assert result["rows"]["copy"]["test/nothing"]["sr@10"]["mean"] == 1
    assert "<svg" in html


def test_the_matcher_reads_the_word_and_only_the_word():
    item = text.find("test", 0, 128)
    word = item.full.after["sign"]["word"]
    assert text.matched(item, item.sample.target) == word
    other = next(w for w in text.WORDS if len(w) == len(word) and w != word)
    scene = item.full.after | {"sign": item.full.after["sign"] | {"word": other}}
    assert text.matched(item, at_size(world.render(scene), 128)) == other
    assert text.score(item, item.sample.target, None)["matched"] == 1
    assert text.score(item, item.input_picture, None)["matched"] == 0


def test_letters_are_counted():
    assert text.letter_errors("TEA", "TEA") == 0
    assert text.letter_errors("TEE", "TEA") == pytest.approx(1 / 3)
    assert text.letter_errors("", "TEA") == text.letter_errors("ANYTHING", "TEA") == 1


def test_glyphs_are_compared_whatever_their_color():
    letters = np.full((20, 40, 3), 240, np.uint8)
    letters[5:15, 5:10] = letters[5:15, 20:25] = 30
    assert text.glyph_overlap(letters, letters) == 1
    assert text.glyph_overlap(np.roll(letters, 2, axis=1), letters) == pytest.approx(3 / 7)
    assert text.glyph_overlap(np.full_like(letters, 9), letters) == 0


def test_ocr_reads_a_plain_word():
    pytest.importorskip("rapidocr")
    read = text.reader()
    item = text.find("test", 3, 256)
    said = [read(item.sample.target[text._writing(item)])]
    assert text.letter_errors(said[0], item.full.after["sign"]["word"]) <= 0.34


def test_style_tells_looks_apart_and_catches_copies():
    item = style.find("style_reference", 0, 128)
    right = style.score(item, item.sample.target)
    assert (
        right["style"] == right["content"] == right["score"] == right["success"] == 1 and right["copied"] == 0
    )
    other = next(s for s in style.STYLES if s != item.full.after["style"])
    wrong = style.score(item, at_size(world.render(item.full.after | {"style": other}), 128))
    assert wrong["style"] == wrong["pixels"] == wrong["colors"] == wrong["edges"] == 0
    copied = style.score(item, item.input_picture)
    assert copied["copied"] == 1 and copied["content"] == 0 and copied["score"] == 0


def test_colors_and_edges_do_not_care_where_things_are():
    item = style.find("style_reference", 0, 128)
    mirrored = style.score(item, np.ascontiguousarray(item.sample.target[:, ::-1]))
    assert mirrored["colors"] == 1


def test_identity_tells_who_it_is():
    scene = identity.find(0, SIZE).full.after
    truth = at_size(world.render(scene), SIZE)
    assert identity.retained(truth, scene, SIZE) == {"kept": 1.0, "rank-1": 1.0}
    c = scene["character"]
    shade = next(s for s in identity.SKINS if s != c["skin"])
    cloth = "green" if c["cloth_color"] != "green" else "red"
    changed = {**scene, "character": {**c, "skin": shade, "cloth_color": cloth}}
    one_off = identity.retained(at_size(world.render(changed), SIZE), scene, SIZE)
    assert 0.3 < one_off["kept"] < 1
    other = next(identity._gallery(scene))
    assert identity.retained(at_size(world.render(other), SIZE), scene, SIZE)["rank-1"] == 0


def test_the_gallery_has_a_hundred_different_characters():
    scene = identity.find(0, SIZE).full.after
    others = [json.dumps(item["character"], sort_keys=True) for item in identity._gallery(scene)]
    assert len(set(others)) == identity.GALLERY - 1
    poses = {(json.loads(o)["x"], json.loads(o)["expression"], json.loads(o)["family"]) for o in others}
    assert len(poses) == 1


def test_rows_are_multiplied_by_steps_and_unknown_ones_refused():
    assert rows.row_names(["copy", "model"], [1, 4]) == ["copy", "model@1", "model@4"]
    with pytest.raises(BadRequest, match="rows are copy"):
        rows.row_names(["magic"], [4])
    assert size_for(None, 64) == 64
    with pytest.raises(BadRequest, match="size must be one of 256, 128, 64, got 100"):
        size_for(None, 100)
