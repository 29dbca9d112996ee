"""A batch edits each picture exactly once, even if processes are killed.

Bad pictures are reported and skipped.
"""

import csv
import hashlib
import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import support
from kontext.batch.run import JOURNAL, PARTS, Journal, run
from kontext.batch.tasks import Task, from_folder, from_table
from kontext.errors import BadCheckpoint, BadRequest, Busy, NotFound
from kontext.failures import explain
from kontext.session.provenance import read_chain
from support.tint import TintEditor, full_disk, no_weights, noise, tint

VICTIM = Path(support.__file__).with_name("victim.py")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for index in range(6):
        noise(index).save(tmp_path / "in" / ("deep" if index % 2 else ".") / f"p{index}.png")
    return tmp_path / "in"


def outputs(folder):
    """Finished pictures. What vanishes while we look (the folder of parts) is none."""
    return {
        (Path(root) / name).relative_to(folder).as_posix(): (status.st_ino, status.st_mtime_ns)
        for root, _, names in os.walk(folder)
        for name in names
        if PARTS not in Path(root).parts and not name.endswith(".db") and not name.startswith(JOURNAL)
        for status in [os.stat(Path(root) / name)]
    }


def right(source, made, prompt="blue", seed=7):
    expected = tint(Image.open(source), prompt, seed)[0]
    return np.array_equal(np.asarray(Image.open(made)), np.asarray(expected))


def start(*arguments):
    command = [sys.executable, str(VICTIM), "batch", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end_of_group(process, seconds=20):
    """Wait until nothing that the process started is left."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("processes of a killed batch are still there")


def test_bad_pictures_are_told_skipped_and_tried_again(folder, tmp_path):
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / "notes.txt").write_text("no picture")
    first = start(folder, "blue", "-o", tmp_path / "out", "--json")
    text, errors = first.communicate()
    answer = json.loads(text)
    assert first.returncode == 1 and (answer["total"], answer["done"], answer["before"]) == (7, 6, 0)
    assert [Path(failure["picture"]).name for failure in answer["failed"]] == ["broken.png"]
    assert "failed:" in errors and "broken.png" in errors and "Traceback" not in errors
    made = outputs(tmp_path / "out")
    assert set(made) == {path.relative_to(folder).as_posix() for path in folder.rglob("p*.png")}
    assert all(right(folder / name, tmp_path / "out" / name) for name in made)
    assert [link.prompt for link in read_chain(tmp_path / "out" / "p0.png")] == ["", "blue"]

    noise(99).save(folder / "broken.png")
    again = start(folder, "blue", "-o", tmp_path / "out")
    text, errors = again.communicate()
    assert again.returncode == 0 and "7 of 7 pictures" in text and "6 by earlier runs" in text
    assert made.items() <= outputs(tmp_path / "out").items()


def kill_until_done(folder, out, kills, seed, workers):
    """Start, kill at a random moment, look, again; then let it finish."""
    draw, before = random.Random(seed), {}
    for _ in range(kills):
        process = start(folder, "blue", "-o", out, "--workers", workers, "--model", "tint:0.03")
        stop = time.monotonic() + 60
        while time.monotonic() < stop and process.poll() is None and outputs(out).keys() <= before.keys():
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        end_of_group(process)
        now = outputs(out)
        assert before.items() <= now.items()  # nothing lost, nothing made twice
        assert all(
            right(folder / name, out / name) for name in now.keys() - before.keys()
        )  # nothing half-written
        before = now
    last = start(folder, "blue", "-o", out, "--workers", workers, "--model", "tint:0.03", "--json")
    answer = json.loads(last.communicate()[0])
    assert (answer["done"], answer["failed"], answer["before"]) == (answer["total"], [], len(before))
    now = outputs(out)
    assert before.items() <= now.items() and len(now) == answer["total"]
    assert all(right(folder / name, out / name) for name in now) and not (out / PARTS).exists()
    return len(before)


def test_a_killed_batch_goes_on_with_nothing_lost_or_done_twice(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(40):
        noise(index).save(tmp_path / "in" / f"{index}.png")
    assert 0 < kill_until_done(tmp_path / "in", tmp_path / "out", kills=3, seed=1, workers=2) < 40


@pytest.mark.slow
def test_fifty_kills_of_a_batch(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(900):
        noise(index).save(tmp_path / "in" / f"{index}.png")
    kill_until_done(tmp_path / "in", tmp_path / "out", kills=50, seed=2, workers=2)


def test_a_picture_that_kills_its_worker_fails_alone(tmp_path):
    rows = [
        {"picture": f"{index}.png", "prompt": "die" if index == 3 else "blue", "seed": index}
        for index in range(6)
    ]
    for index in range(6):
        noise(index).save(tmp_path / f"{index}.png")
    (tmp_path / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    process = start(tmp_path / "table.jsonl", "-o", tmp_path / "out", "--workers", 2, "--json")
    answer = json.loads(process.communicate()[0])
    assert process.returncode == 1 and answer["done"] == 5
    assert [(failure["output"], failure["reason"][:11]) for failure in answer["failed"]] == [
        ("3.png", "the worker ")
    ]
    for index in {*range(6)} - {3}:
        assert right(tmp_path / f"{index}.png", tmp_path / "out" / f"{index}.png", seed=index)


def test_a_crash_between_name_and_note_makes_nothing_again(folder, tmp_path):
    tasks = from_folder(folder, "blue", {}, ".png", tmp_path / "out")
    journal = Journal(tmp_path / "out")
    assert journal.begin(tasks, "tint") == set()
    (tmp_path / "out" / "p0.png").write_bytes(b"finished, named, but not noted")
    journal.db.close()
    again = Journal(tmp_path / "out")
    assert again.begin(tasks, "tint") == {"p0.png"}
    again.close()


def test_a_finished_picture_that_was_deleted_is_made_again(folder, tmp_path):
    out = tmp_path / "out"
    tasks = from_folder(folder, "blue", {"seed": 7}, ".png", out)
    run(tasks, out, TintEditor.load)
    made = outputs(out)
    (out / "p0.png").unlink()
    again = run(tasks, out, TintEditor.load)
    assert (again.before, again.done, again.total) == (5, 6, 6)
    assert right(folder / "p0.png", out / "p0.png")
    del made["p0.png"]
    assert made.items() <= outputs(out).items()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_result_is_kept(folder, tmp_path):
    tasks = from_folder(folder, "blue", {"seed": 7}, ".png", tmp_path / "out")
    journal = Journal(tmp_path / "out")
    journal.begin(tasks, "")
    journal.close()
    name = tmp_path / "out" / "p0.png"
    os.mkfifo(name)
    with pytest.raises(BadRequest, match="a device, pipe or socket"):
        run(tasks, tmp_path / "out", TintEditor.load)
    assert name.is_fifo()


def test_an_output_folder_holds_one_batch_and_one_process(folder, tmp_path):
    tasks = from_folder(folder, "blue", {}, ".png", tmp_path / "out")
    journal = Journal(tmp_path / "out")
    journal.begin(tasks, "nano")
    with pytest.raises(Busy, match="another process is working on this batch"):
        run(tasks, tmp_path / "out", TintEditor.load)
    journal.close()
    others = [(from_folder(folder, "red", {}, ".png", tmp_path), "nano"), (tasks, "dev")]
    others += [(from_folder(folder, "blue", {"seed": 1}, ".png", tmp_path), "nano")]
    for other, model in others:
        with pytest.raises(BadRequest, match="made with another"):
            run(other, tmp_path / "out", TintEditor.load, model=model)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "p0.png").write_bytes(b"precious")
    with pytest.raises(BadRequest, match="p0.png already exists"):
        run(tasks, tmp_path / "mine", TintEditor.load)
    assert (tmp_path / "mine" / "p0.png").read_bytes() == b"precious"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / JOURNAL).write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(BadRequest, match="not a batch journal"):
        run(tasks, tmp_path / "other", TintEditor.load)


def test_what_keeps_the_editor_from_loading_ends_the_batch(folder, tmp_path):
    tasks = from_folder(folder, "blue", {}, ".png", tmp_path / "out")
    with pytest.raises(BadCheckpoint, match="no such weights"):
        run(tasks, tmp_path / "out", no_weights)
    assert outputs(tmp_path / "out") == {}


def test_a_disk_that_is_too_full_for_the_journal_is_told(folder, tmp_path):
    journal = Journal(tmp_path / "out")
    journal.db.execute("PRAGMA max_page_count = 3")
    tasks = [Task(str(folder / "p0.png"), "blue", f"{index}.png") for index in range(500)]
    with pytest.raises(sqlite3.OperationalError) as raised:
        journal.begin(tasks, "tint")
    assert explain(raised.value) == "no space left on the disk of the database"
    journal.close()


def test_a_full_disk_ends_the_batch_and_the_next_run_resumes(folder, tmp_path):
    out = tmp_path / "out"
    tasks = from_folder(folder, "blue", {}, ".png", out)
    with pytest.raises(OSError) as raised:
        run(tasks, out, full_disk)
    assert explain(raised.value) == f"{out}: no space left on the disk"
    assert outputs(out) == {} and not (out / PARTS).exists()
    assert run(tasks, out, TintEditor.load).done == len(tasks)


def test_names_of_outputs_are_distinct_and_stay_inside(tmp_path):
    for name in ("a.jpg", "a.png", "b.png", "sub/a.webp", "A.bmp", ".hidden/c.png", "out/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise(1).save(tmp_path / name)
    tasks = from_folder(tmp_path, "blue", {}, ".png", tmp_path / "out")
    assert sorted(task.output for task in tasks) == [
        "A.bmp.png",
        "a.jpg.png",
        "a.png.png",
        "b.png",
        "sub/a.png",
    ]
    with pytest.raises(BadRequest, match="cannot be written among the source pictures"):
        from_folder(tmp_path, "blue", {}, ".png", tmp_path / "sub" / "..")
    with pytest.raises(BadRequest, match="PROMPT"):
        from_folder(tmp_path, "", {}, ".png", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRequest, match="no pictures"):
        from_folder(tmp_path / "empty", "blue", {}, ".png", tmp_path / "out")


def test_tables_are_read_with_their_types(tmp_path):
    table = tmp_path / "table.csv"
    with open(table, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(
            file, ["picture", "prompt", "output", "seed", "guidance", "box", "references"]
        )
        writer.writeheader()
        writer.writerow(
            dict(picture="a.png", prompt="给她,\nthe hat", output="x/1.jpg", seed="5", guidance="2.5")
        )
        writer.writerow(dict(picture="/b.png", box="1,2,3,4", references="c.png | d.png"))
        writer.writerow(dict(picture="sub/b.png"))
    first, second, third = from_table(table, "all of them", {"seed": 9, "steps": 3}, ".png")
    assert (first.picture, first.prompt, first.output) == (
        str(tmp_path / "a.png"),
        "给她,\nthe hat",
        "x/1.jpg",
    )
    assert first.settings == {"seed": 5, "guidance": 2.5, "steps": 3}
    assert (second.picture, second.prompt, second.output) == ("/b.png", "all of them", "b.png.png")
    assert second.settings["box"] == [1, 2, 3, 4]
    assert second.settings["references"] == [str(tmp_path / "c.png"), str(tmp_path / "d.png")]
    assert third.output == "b.png-2.png" and third.settings == {"seed": 9, "steps": 3}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "x"}, "line 1: a row needs a picture"),
        ({"picture": "a.png", "seed": "many"}, "line 1: seed must be a whole number, 0 to"),
        ({"picture": "a.png", "box": "1,2,3"}, "line 1: box must be X,Y,W,H, got '1,2,3'"),
        ({"picture": "a.png", "colour": "red"}, "unknown column 'colour'; known columns are picture, prompt"),
        ({"picture": "a.png", "output": "../a.png"}, "'../a.png' is not a .png, .jpg or .webp name inside"),
        ({"picture": "a.png", "output": "/etc/a.png"}, "is not a .png"),
        ({"picture": "a.png", "output": "c:a.png"}, "is not a .png"),
        ({"picture": "a.png", "output": "a.exe"}, "is not a .png"),
        ({"picture": "a.png", "output": ".kontext-parts/a.png"}, "is not a .png"),  # goes at the end
        ({"picture": "a.png", "output": "x/.kontext-batch.db.png"}, "is not a .png"),
        ({"picture": "a.png", "prompt": 5}, "prompt must be text, got 5"),
        ([1], "not an object"),
    ],
)
def test_wrong_rows_say_which_and_why(tmp_path, row, says):
    (tmp_path / "table.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadRequest, match=says):
        from_table(tmp_path / "table.jsonl", "blue", {}, ".png")


def test_wrong_tables_are_refused(tmp_path):
    with pytest.raises(NotFound):
        from_table(tmp_path / "nothing.csv", "blue", {}, ".png")
    for content in (b"", b"{", b"\xff\xfe\x00", b'{"picture": "a.png", "output": "x.png"}\n' * 2):
        (tmp_path / "table.jsonl").write_bytes(content)
        with pytest.raises(BadRequest):
            from_table(tmp_path / "table.jsonl", "blue", {}, ".png")


# Files of all names and kinds


def encoded(index, format):
    buffer = io.BytesIO()
    noise(index).save(buffer, format)
    return buffer.getvalue()


def test_whatever_opens_is_a_task_and_so_is_what_should_have(tmp_path):
    files = {
        "a.jfif": encoded(1, "JPEG"),
        "b.jpe": encoded(2, "JPEG"),
        "C.PNG": encoded(3, "PNG"),
        "no ending": encoded(4, "PNG"),
        "wrong.dat": encoded(5, "BMP"),
        "d.pgm": encoded(6, "PPM"),
        "IMG_1.HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "phone": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "e.jxl": b"",
        "drawing.svg": b"<svg/>",
        "cut.webp": encoded(7, "WEBP")[:40],
    }
    others = {
        "notes.txt": b"BM, P6 1 1 and II*",
        "table.csv": b"picture\na.png\n",
        "clip.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
        "data.bin": bytes(range(256)) * 10,
        "zeros": b"\0" * 5000,
        "empty": b"",
        ".hidden.png": encoded(1, "PNG"),
    }
    for name, data in (files | others).items():
        (tmp_path / name).write_bytes(data)
    tasks = from_folder(tmp_path, "blue", {}, ".png", tmp_path / "out")
    assert {Path(task.picture).name for task in tasks} == set(files)


def test_names_that_are_no_text_or_very_long_get_names_that_can_be_stored(tmp_path):
    inputs = tmp_path / "in"
    inputs.mkdir()
    long = "x" * 251 + ".png"
    chinese = "长" * 83 + ".jpg"  # 253 bytes, of which an ending of 5 leaves no room
    for index, name in enumerate([b"caf\xe9.png", long.encode(), chinese.encode()]):
        try:
            (inputs / os.fsdecode(name)).write_bytes(encoded(index, "PNG"))
        except OSError:
            pytest.skip("this file system stores no such names")
    tasks = from_folder(inputs, "blue", {}, ".webp", tmp_path / "out")
    outputs = {task.output for task in tasks}
    name = os.fsdecode(b"caf\xe9.webp")  # text in a Latin-1 locale
    assert (name if name.isprintable() else "caf%E9.webp") in outputs and len(outputs) == 3
    assert all(len(os.fsencode(name)) <= 255 and name.endswith(".webp") for name in outputs)
    again = from_folder(inputs, "blue", {}, ".webp", tmp_path / "out")
    assert [task.output for task in again] == [task.output for task in tasks]
    done = run(tasks, tmp_path / "out", TintEditor.load)
    assert (done.done, done.failed) == (3, [])
    assert outputs <= set(os.listdir(tmp_path / "out"))


def noted(folder, out):
    """Outputs by picture of a run that does nothing, as its journal notes them."""
    journal = Journal(out)
    tasks = journal.named(from_folder(folder, "blue", {}, ".png", out), "tint")
    journal.begin(tasks, "tint")
    journal.close()
    return {Path(task.picture).name: task.output for task in tasks}


def test_pictures_added_later_leave_the_names_of_others_alone(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    noise(1).save(folder / "a.png")
    assert noted(folder, out) == {"a.png": "a.png"}
    noise(2).save(folder / "a.jpg")
    both = {"a.png": "a.png", "a.jpg": "a.jpg.png"}
    assert noted(folder, out) == both
    (folder / "a.png").unlink()
    assert noted(folder, out) == {"a.jpg": "a.jpg.png"}
    noise(1).save(folder / "a.png")
    noise(3).save(folder / "A.bmp")
    assert noted(folder, out) == both | {"A.bmp": "A.bmp.png"}


def test_a_journal_of_an_earlier_version_is_continued(tmp_path):
    (tmp_path / "in").mkdir()
    noise(1).save(tmp_path / "in" / "a.png")
    (task,) = from_folder(tmp_path / "in", "blue", {}, ".png", tmp_path / "out")
    (tmp_path / "out").mkdir()
    noise(2).save(tmp_path / "out" / "a.png")
    db = sqlite3.connect(tmp_path / "out" / JOURNAL)
    facts = {"picture": task.picture, "prompt": "blue", "output": "a.png", "settings": {}}
    digest = hashlib.sha256(json.dumps([facts, "tint"], sort_keys=True).encode()).hexdigest()
    db.execute("CREATE TABLE task (output TEXT PRIMARY KEY, digest TEXT, done INTEGER)")
    db.execute("INSERT INTO task VALUES ('a.png', ?, 1)", (digest,))
    db.commit()
    db.close()
    for content in (1, 1, 3):  # the content of inputs is recorded by the first run that knows of it
        noise(content).save(tmp_path / "in" / "a.png")
        journal = Journal(tmp_path / "out")
        if content == 3:
            with pytest.raises(BadRequest, match="in/a.png has changed since"):
                journal.begin(journal.named([task], "tint"), "tint")
        else:
            assert journal.begin(journal.named([task], "tint"), "tint") == {"a.png"}
        journal.close()
