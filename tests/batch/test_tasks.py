"""A task knows its input files by their content."""

import os

import pytest

from kontext.batch.run import Journal
from kontext.batch.tasks import Task
from kontext.errors import BadRequest
from support.tint import noise


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

    def begin():
        journal = Journal(tmp_path / "out")
        try:
            return journal.begin([task], "tint")
        finally:
            journal.close()

    assert begin() == set()
    noise(5).save(tmp_path / "out" / "a.png")
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
    assert begin() == set()
    noise(6).save(tmp_path / "out" / "a.png")
    assert begin() == {"a.png"}
