"""What `import kontext` gives a user: names, types, results that can be saved."""

import inspect
import io
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import kontext
from kontext import BadRequest, Result, errors, pictures
from kontext.session.pixels import digest
from kontext.session.provenance import read_chain

SOURCES = Path(kontext.__file__).parents[1]
CONSUMER = Path(__file__).parent / "support" / "consumer.py"
STRICT = """[mypy]
strict = true
follow_imports = silent
ignore_missing_imports = true
[mypy-torch.*,numpy.*,sqlalchemy.*]
follow_imports = skip
"""  # the libraries themselves are not read: that takes minutes


def made(picture: Image.Image, source: pictures.Picture | None, seed: int = 7) -> Result:
    return Result(
        picture=picture,
        region=None,
        changed_fraction=0.25,
        seed=seed,
        steps=4,
        guidance=2.5,
        size=picture.size,
        model="nano",
        evaluations=4,
        seconds={"total": 0.1},
        warnings=(),
        prompt="Make the hair blue",
        settings={"lock": True, "fingerprint": "f" * 64},
        source=source,
    )


@pytest.mark.parametrize("name", kontext.__all__)
def test_each_public_name_can_be_imported(name):
    assert getattr(kontext, name) is not None
    assert name in dir(kontext)


def test_every_error_is_public():
    found = {name for name, member in vars(errors).items() if isinstance(member, type)}
    assert found <= set(kontext.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Nothing"):
        kontext.Nothing  # noqa: B018


LAZY = [((), "numpy"), (("BadRequest",), "PIL"), (("Result", "Store"), "torch")]


@pytest.mark.parametrize("names, heavy", LAZY)
def test_names_are_loaded_lazily(names, heavy):
    code = (
        f"import sys, kontext\nfor name in {names!r}: getattr(kontext, name)\nprint({heavy!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["Editor", "EditRequest", "Result", "Session", "Store"])
def test_every_public_signature_is_annotated(name):
    public = getattr(kontext, name)
    methods = inspect.getmembers(
        public, lambda member: inspect.isfunction(member) or inspect.ismethod(member)
    )
    for method, function in methods:
        if not method.startswith("_") or method in ("__init__", "__enter__", "__exit__"):
            signature = inspect.signature(function)
            bare = [
                member.name for member in signature.parameters.values() if member.annotation is member.empty
            ]
            assert set(bare) <= {"self"}, f"{name}.{method}"
            assert signature.return_annotation is not inspect.Signature.empty, f"{name}.{method}"


def test_public_signatures_do_not_use_any():
    found = []
    for name in kontext.__all__:
        public = getattr(kontext, name)
        inner = vars(public) if isinstance(public, type) else {}
        members = {name: public, **{f"{name}.{key}": value for key, value in inner.items()}}
        for place, member in members.items():
            member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if not place.rpartition(".")[2].startswith("_"):
                annotations = getattr(member, "__annotations__", {})
                found += [f"{place}: {key}" for key, value in annotations.items() if "Any" in str(value)]
    assert not found


def test_arguments_of_torch_are_typed():
    assert inspect.signature(kontext.Editor.load).parameters["dtype"].annotation == "torch.dtype | None"


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_a_user_s_program_passes_strict_type_checks(tmp_path):
    settings = tmp_path / "mypy.ini"
    settings.write_text(STRICT)
    command = [sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", tmp_path / "cache"]
    done = subprocess.run(
        [*command, CONSUMER],
        env={**os.environ, "MYPYPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        timeout=300,  # 13 s of one free core
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_saved_result_carries_its_history(tmp_path):
    first, second = Image.new("RGB", (48, 32), "red"), Image.new("RGB", (48, 32), "blue")
    result = made(second, pictures.load(first))
    path = result.save(tmp_path / "blue.png")
    assert path == tmp_path / "blue.png"
    chain = read_chain(path)
    assert [(link.kind, link.seed, link.pixels) for link in chain] == [
        ("source", None, digest(first)),
        ("edit", 7, digest(second)),
    ]
    assert chain[-1].settings == {"lock": True}


def test_a_saved_result_continues_the_history_of_the_file_that_was_edited(tmp_path):
    path = made(Image.new("RGB", (48, 32), "blue"), None).save(tmp_path / "blue.png")
    source = pictures.load(path)
    path.unlink()  # what was edited is known by then
    again = made(Image.new("RGB", (48, 32), "green"), source, seed=8).save(path)
    assert [(link.kind, link.seed) for link in read_chain(again)] == [("generate", 7), ("edit", 8)]


def test_a_history_of_other_pixels_is_not_continued(tmp_path):
    source = pictures.load(made(Image.new("RGB", (48, 32), "blue"), None).save(tmp_path / "blue.png"))
    other = replace(source, rgb=Image.new("RGB", (48, 32), "red"))
    path = made(Image.new("RGB", (48, 32), "green"), other).save(tmp_path / "green.png")
    assert [link.kind for link in read_chain(path)] == ["source", "edit"]


def test_what_cannot_be_written_is_refused(tmp_path):
    result = made(Image.new("RGB", (48, 32)), None)
    for name in ("blue.gif", "blue", "no-folder/blue.png"):
        with pytest.raises(BadRequest):
            result.save(tmp_path / name)
    kept = result.save(tmp_path / "blue.jpg").read_bytes()
    with pytest.raises(BadRequest, match="exists"):
        result.save(tmp_path / "blue.jpg", replace=False)
    assert (tmp_path / "blue.jpg").read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blue.jpg"]


def test_a_result_is_shown_in_short(tmp_path):
    result = made(Image.new("RGB", (48, 32), "blue"), None)
    assert repr(result) == "Result(48x32, 'Make the hair blue', seed 7, nano, 25% changed)"
    assert Image.open(io.BytesIO(result._repr_png_())).getpixel((3, 3)) == (0, 0, 255)
