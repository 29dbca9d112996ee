"""The three published layouts, as tiny made-up sets."""

import json

import pytest
from PIL import Image

from kontext.bench import layouts
from kontext.errors import BadRequest, NotFound


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), "teal").save(path)


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")


def test_kontextbench(tmp_path):
    rows = [
        {
            "file_name": "a.png",
            "instruction": "make it night",
            "category": "Instruction Editing - Global",
            "key": "0",
        },
        {"file_name": "b/c.png", "instruction": "write 'TEA'", "category": "Text Editing", "key": "1"},
    ]
    for row in rows:
        picture(tmp_path / "test" / row["file_name"])
    write_lines(tmp_path / "test" / "metadata.jsonl", rows)
    name, tasks = layouts.load(tmp_path)
    assert name == "kontextbench" and [t.key for t in tasks] == ["0", "1"]
    assert tasks[1].picture == tmp_path / "test" / "b" / "c.png" and tasks[1].category == "Text Editing"
    assert tasks[0].prompt == "make it night" and tasks[0].result == "0.png"


def gedit_row(language, instruction):
    return {
        "key": "k1",
        "task_type": "color_alter",
        "instruction": instruction,
        "instruction_language": language,
    }


def test_gedit_as_exported_pictures(tmp_path):
    rows = [
        gedit_row("en", "a red car") | {"file_name": "x.png"},
        gedit_row("cn", "红色的车") | {"file_name": "x.png"},
    ]
    picture(tmp_path / "x.png")
    write_lines(tmp_path / "metadata.jsonl", rows)
    name, tasks = layouts.load(tmp_path)
    assert name == "gedit" and [t.language for t in tasks] == ["en", "cn"]
    assert tasks[1].prompt == "红色的车" and tasks[1].result == "fullset/color_alter/cn/k1.png"


def test_gedit_as_parquet_or_a_clear_refusal(tmp_path):
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        (tmp_path / "train.parquet").write_bytes(b"PAR1")
        with pytest.raises(BadRequest, match="pyarrow"):
            layouts.load(tmp_path)
        return
    row = gedit_row("en", "a red car") | {"input_image": {"bytes": b"picture", "path": None}}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "train.parquet")
    name, tasks = layouts.load(tmp_path)
    assert name == "gedit" and tasks[0].picture == b"picture"


def test_imgedit(tmp_path):
    picture(tmp_path / "animal" / "1.png")
    table = {"1082": {"id": "animal/1.png", "prompt": "a smooth shell", "edit_type": "alter"}}
    (tmp_path / "basic_edit.json").write_text(json.dumps(table))
    name, tasks = layouts.load(tmp_path)
    assert name == "imgedit" and tasks[0].category == "alter" and tasks[0].result == "1082.png"


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(NotFound, match="no benchmark found"):
        layouts.load(tmp_path)
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": "gone.png", "instruction": "x", "key": "7"}])
    with pytest.raises(NotFound, match="gone.png.*'7'"):
        layouts.load(tmp_path)
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": "gone.png", "prompt": "x"}])
    with pytest.raises(BadRequest, match="no 'instruction'"):
        layouts.load(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{nonsense")
    with pytest.raises(BadRequest, match="line 1"):
        layouts.load(tmp_path)
