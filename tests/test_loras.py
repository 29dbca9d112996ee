"""LoRAs as requests name them."""

import pytest

from kontext.errors import BadRequest, NotFound
from kontext.loras import MAX_LORAS, Lora, LoraAccess, parse


@pytest.fixture
def folder(tmp_path):
    for name in ("knit.safetensors", "styles/ink.sft", ".hidden/secret.safetensors", "notes.txt"):
        (tmp_path / "loras" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "loras" / name).write_bytes(b"a LoRA")
    (tmp_path / "outside.safetensors").write_bytes(b"a LoRA")
    return tmp_path / "loras"


def test_every_form_of_a_lora(folder):
    knit = str(folder / "knit.safetensors")
    for value, expected in (
        (knit, Lora(path=knit)),
        (folder / "knit.safetensors", Lora(path=knit)),
        (f"{knit}:0.8", Lora(path=knit, scale=0.8)),
        ((knit, -1), Lora(path=knit, scale=-1)),
        ({"path": knit, "scale": 2}, Lora(path=knit, scale=2)),
        ("knit", Lora(name="knit")),
        ("styles/ink:0.5", Lora(name="styles/ink", scale=0.5)),
        ({"name": "knit"}, Lora(name="knit")),
        (Lora(name="knit", scale=0.1), Lora(name="knit", scale=0.1)),
        ("./missing", Lora(path="./missing")),
    ):
        assert parse([value]) == (expected,)
        assert isinstance(value, tuple) or parse(value) == (expected,)
        assert parse(expected.to_json())[0].scale == expected.scale
    assert parse(None) == parse([]) == ()
    assert [lora.label for lora in parse([knit, "styles/ink"])] == ["knit", "styles/ink"]


def test_text_is_a_name_where_paths_are_not_meant(folder):
    knit = str(folder / "knit.safetensors")
    assert parse([knit, "knit:2"], paths=False) == (Lora(name=knit), Lora(name="knit", scale=2))


@pytest.mark.parametrize(
    "value, words",
    [
        ("knit:strong", "FILE:SCALE"),
        ("knit:nan", "scale of a LoRA must be -16 to 16"),
        ("knit:17", "scale of a LoRA must be -16 to 16, got 17"),
        ([("knit", True)], "must be a number"),
        ([""], "must be FILE"),
        ([3], "must be FILE"),
        (3, "must be a list"),
        ({"name": "knit", "strength": 1}, "no field 'strength'"),
        ({"scale": 1}, "either a name or a path"),
        ({"name": "knit", "path": "knit"}, "either a name or a path"),
        ({"name": 3}, "either a name or a path"),
        (["knit"] * (MAX_LORAS + 1), "must be 0 to 8, got 9"),
    ],
)
def test_malformed_loras_are_refused(value, words):
    with pytest.raises(BadRequest, match=words):
        parse(value)


def test_names_are_those_of_the_folder(folder):
    access = LoraAccess(folder, paths=False)
    assert access.names() == ["knit", "styles/ink"]
    assert access.find(Lora(name="knit")) == folder / "knit.safetensors"
    assert access.find(Lora(name="styles/ink")) == folder / "styles" / "ink.sft"


@pytest.mark.parametrize(
    "name",
    [
        "absent",
        "../outside",
        "styles/../knit",
        "/knit",
        ".hidden/secret",
        "notes",
        "",
        "a" * 5000,
        "a\0",
        ".",
    ],
)
def test_other_names_find_nothing(folder, name):
    with pytest.raises(NotFound, match="no LoRA named .*known are knit, styles/ink"):
        LoraAccess(folder).find(Lora(name=name))


def test_paths_need_permission(folder):
    lora = Lora(path=str(folder / "knit.safetensors"))
    assert LoraAccess().find(lora) == folder / "knit.safetensors"
    with pytest.raises(BadRequest, match="cannot be given by path"):
        LoraAccess(folder, paths=False).find(lora)
    with pytest.raises(NotFound, match="no such file"):
        LoraAccess().find(Lora(path=str(folder / "absent.safetensors")))
    with pytest.raises(NotFound, match="no LoRA named 'knit'$"):
        LoraAccess().find(Lora(name="knit"))


def test_access_survives_as_text(folder):
    access = LoraAccess(folder, False, parse(["knit:0.5", "styles/ink"]))
    assert LoraAccess.from_text(access.to_text()) == access
    assert LoraAccess.from_text(LoraAccess(paths=False).to_text()) == LoraAccess(paths=False)


def test_what_a_picture_carries_has_no_path(folder):
    lora = Lora(path=str(folder / "knit.safetensors"), scale=0.5, sha256="0" * 64)
    assert lora.embedded() == {"name": "knit", "scale": 0.5, "sha256": "0" * 64}
    assert parse(lora.embedded()) == (Lora(name="knit", scale=0.5, sha256="0" * 64),)
