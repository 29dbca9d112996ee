"""A task knows its input files by their content."""

import os

import pytest

from kontext.batch.run import Journal, run
from kontext.batch.tasks import Task
from kontext.errors import BadRequest
from support.tint import TintEditor, noise


@pytest.mark.parametrize("changed", ["picture.png", "mask.png", "reference.png", "lora.safetensors"])
def test_an_input_that_changed_is_noticed_and_a_copy_of_it_is_none(tmp_path, changed):
    home = tmp_path / "home" / "loras"
    home.mkdir(parents=True)
    place = (home if changed.startswith("lora") else tmp_path) / changed
    for index, name in enumerate(("picture", "mask", "reference")):
        noise(index).save(tmp_path / f"{name}.png")
    (home / "lora.safetensors").write_bytes(b"weights")
    names = {
        "mask": str(tmp_path / "mask.png"),
        "references": [str(tmp_path / "reference.png")],
        "loras": [{"name": "lora", "scale": 1.0}],
    }
    task = Task(str(tmp_path / "picture.png"), "blue", "a.png", names)

    def begin(make=False):
        journal = Journal(tmp_path / "out")
        try:
            done = journal.begin([task], "tint")
            if make:
                noise(5).save(tmp_path / "part.png")
                journal.keep(task, tmp_path / "part.png", task.contents())
            return done
        finally:
            journal.close()

    assert begin(make=True) == set()
    before = place.read_bytes()
    place.write_bytes(before)
    os.utime(place, ns=(1, 1))
    assert begin() == {"a.png"}  # other times, same content
    place.unlink()
    assert begin() == {"a.png"}  # deleted after its edit
    place.write_bytes(b"another" + before)
    with pytest.raises(BadRequest, match=f"{changed} has changed since .*a.png was made from it"):
        begin()
    (tmp_path / "out" / "a.png").unlink()
    assert begin(make=True) == set()
    assert begin() == {"a.png"}


def test_inputs_are_read_when_they_are_edited_and_not_before(tmp_path, monkeypatch):
    names = [f"{index}.png" for index in range(3)]
    for index, name in enumerate(names):
        noise(index).save(tmp_path / name)
    tasks = [Task(str(tmp_path / name), "blue", name) for name in names]
    out, read = tmp_path / "out", []
    monkeypatch.setattr("kontext.batch.tasks._content", lambda file: read.append(file.name))
    journal = Journal(out)
    assert journal.begin(tasks, "") == set() and read == []
    journal.close()
    monkeypatch.undo()

    def change(progress):
        if progress.done == 0:  # recorded, and not yet edited
            noise(7).save(tmp_path / "1.png")

    run(tasks, out, TintEditor.load, on_progress=change)
    assert run(tasks, out, TintEditor.load).before == 3  # made from what is there now
    noise(8).save(tmp_path / "1.png")
    with pytest.raises(BadRequest, match="1.png has changed since"):
        run(tasks, out, TintEditor.load)
