"""Tables from spreadsheets and by hand: everything in them is used, or refused with its line."""

import json

import pytest

from kontext.batch.tasks import from_table
from kontext.errors import BadRequest
from support.tint import noise


def read(path, data, prompt="blue"):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return from_table(path, prompt, {}, ".png")


TABLE = 'picture;prompt;seed;guidance;;\r\na.png;"给她; a ""hat""";7.0;2,5;;\r\n;;;;;\r\n\r\nb.png;two\r\n'


ENCODINGS = [
    "utf-8",
    "utf-8-sig",
    *(f"utf-{bits}{order}" for bits in (16, 32) for order in ("", "-le", "-be")),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_csv_of_spreadsheets(tmp_path, encoding, separator):
    text = TABLE.replace("2,5", '"2,5"').replace("; a", "# a").replace(";", separator).replace("# a", "; a")
    first, second = read(tmp_path / "table.csv", text.encode(encoding))
    assert (first.prompt, first.settings) == ('给她; a "hat"', {"seed": 7, "guidance": 2.5})
    assert (second.prompt, second.settings) == ("two", {})
    assert first.picture == str(tmp_path / "a.png")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t", "t.CSV"])
def test_line_ends_and_names_of_csv(tmp_path, ends, name):
    text = ends.join(["", "sep=;" if ends != "\r" else "", "Picture ; SEED", "a.png;1", '"b.png"; 2', ""])
    tasks = read(tmp_path / name, text.lstrip())
    assert [task.settings["seed"] for task in tasks] == [1, 2]


@pytest.mark.parametrize(
    "cell, value",
    [("7", 7), ("7.0", 7), ("7,0", 7), (" 7 ", 7), ("7.00", 7), ("+7", 7), ("9007199254740991.0", 2**53 - 1)],
)
def test_whole_numbers_in_cells(tmp_path, cell, value):
    (task,) = read(tmp_path / "t.csv", f"picture;seed\na.png;{cell}")
    assert task.settings["seed"] == value and type(task.settings["seed"]) is int


@pytest.mark.parametrize(
    "cell, said",
    [
        ("3.7", "must be a whole number.*got '3.7'"),
        ("3,7", "must be a whole number"),
        ("1.000", "is ambiguous"),
        ("1,000", "is ambiguous"),
        ("1.23457E+09", "lost digits"),
        ("-1", "must be 0 to"),
        ("9007199254740992", "must be 0 to"),
        ("nan", "must be a whole number"),
        ("0x10", "must be a whole number"),
        ("TRUE", "must be a whole number"),
        ("٣", "must be a whole number"),
    ],
)
def test_numbers_that_are_not_whole_are_refused_with_their_line(tmp_path, cell, said):
    with pytest.raises(BadRequest, match=f"t.csv, line 3: seed .*{said}"):
        read(tmp_path / "t.csv", f"picture;seed\na.png;1\nb.png;{cell}\n")


@pytest.mark.parametrize(
    "row, said",
    [
        ({"seed": 3.7}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"seed": 1e300}, "seed must be a whole number"),
        ({"steps": 0}, "steps must be 1 to 200"),
        ({"guidance": float("nan")}, "guidance must be 1 to 30, got nan"),
        ({"guidance": "2.5.1"}, "guidance must be a number"),
        ({"guidance": 31}, "guidance must be 1 to 30"),
        ({"size": "big"}, "size 'big' is invalid"),
        ({"box": [1, 2, 3.5, 4]}, "box must be a whole number"),
        ({"references": [5]}, "references must be picture paths"),
        ({"references": "a|b|c|d"}, "at most 3"),
        ({"prompt": "cut \ud83d"}, "half of a character"),
        ({"prompt": "a\0b"}, "control character"),
        ({"mask": "a\0b"}, "is not a valid file name"),
        ({"output": "a\ud800.png"}, "is not a .png"),
        ({"output": "a" * 260 + ".png"}, "longer than 255 bytes"),
    ],
)
def test_json_lines_are_refused_with_their_line(tmp_path, row, said):
    lines = [json.dumps({"picture": "a.png", "seed": 1.0}), "", json.dumps({"picture": "b.png", **row})]
    with pytest.raises(BadRequest, match=f"line 3: .*{said}"):
        read(tmp_path / "t.jsonl", "\n".join(lines))


@pytest.mark.parametrize(
    "text, said",
    [
        ("picture,prompt\na.png,red, and blue\n", "line 2: the value .* is in column 3, which has no name"),
        ("picture;;seed\na.png;lost;1\n", "line 2: the value 'lost' is in column 2"),
        ('picture,prompt\na.png,"open\nb.png,x\n', "line 2: cannot be read as CSV"),
        ("picture,seed,Seed\na.png,1,2\n", "duplicate column 'seed'"),
        ("picture,color\na.png,red\n", "unknown column 'color'"),
        (b"picture,prompt\na.png,caf\xe9\n", "line 2: the text is not UTF-8; save the table as CSV UTF-8"),
        ('{"picture": "a.png", "seed": 1, "seed": 2}', "line 1: .*duplicate key"),
        ("picture\n", "no rows"),
    ],
)
def test_nothing_in_a_table_is_left_out_silently(tmp_path, text, said):
    with pytest.raises(BadRequest, match=said):
        read(tmp_path / "table", text)


@pytest.mark.parametrize("name", ["x.png", "x.csv", "x"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF"])
def test_a_picture_is_not_a_table(tmp_path, name, format):
    noise(1).save(tmp_path / name, format)
    with pytest.raises(BadRequest, match=f"{name}: a picture, not a table; kontext edit edits it"):
        from_table(tmp_path / name, "blue", {}, ".png")


@pytest.mark.parametrize(
    "data, encoding",
    [(b"\xff\xfe\0\0a\0\0\0b", "UTF-32"), (b"\xff\xfea\0b", "UTF-16"), (b"\xef\xbb\xbf\xff", "UTF-8")],
)
def test_damaged_text_is_refused_with_its_encoding(tmp_path, data, encoding):
    with pytest.raises(BadRequest, match=f"the text is not {encoding}; save"):
        read(tmp_path / "t.csv", data)


def test_lines_are_counted_where_cells_have_several(tmp_path):
    with pytest.raises(BadRequest, match="line 4: seed"):
        read(tmp_path / "t.csv", 'picture,prompt,seed\na.png,"one\ntwo",1\nb.png,"three\nfour",x\n')


@pytest.mark.parametrize(
    "cell, value", [("yes", True), ("TRUE", True), ("1", True), ("no", False), (" Off ", False), ("0", False)]
)
def test_switches_in_cells(tmp_path, cell, value):
    (task,) = read(tmp_path / "t.csv", f"picture;lock;regions\na.png;{cell};{cell}")
    assert task.settings == {"lock": value, "regions": value}


def test_switches_in_json_are_true_or_false(tmp_path):
    (task,) = read(tmp_path / "t.jsonl", '{"picture": "a.png", "regions": false}')
    assert task.settings == {"regions": False}
    with pytest.raises(BadRequest, match="line 1: lock must be True or False, got 'maybe'"):
        read(tmp_path / "u.jsonl", '{"picture": "a.png", "lock": "maybe"}')


def test_blanks_around_the_cells_of_a_spreadsheet_are_no_part_of_them(tmp_path):
    (task,) = read(tmp_path / "t.csv", "picture , prompt , output\n a b.png , make it red , x.png \n")
    assert (task.picture, task.prompt, task.output) == (str(tmp_path / "a b.png"), "make it red", "x.png")


@pytest.mark.parametrize("name", ["picture", "mask", "markup"])
def test_addresses_are_no_file_names(tmp_path, name):
    row = {"picture": "a.png", name: "https://a.example/b.png"}
    with pytest.raises(BadRequest, match=f"line 1: {name} 'https://a.example/b.png' is a URL"):
        read(tmp_path / "t.jsonl", json.dumps(row))
