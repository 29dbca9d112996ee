"""A signed file is valid with its turns inside, and invalid after one changed byte."""

import io
import json

import pytest
from PIL import Image

from kontext.errors import BadConfig, BadRequest
from kontext.session import signing
from kontext.session.provenance import chain_of, encode, read_chain
from kontext.session.signing import own_identity, read_signature, sign_result, sign_turns

c2pa = pytest.importorskip("c2pa", reason="the extra `provenance` (c2pa-python) is not installed")
pytest.importorskip("cryptography", reason="the extra `provenance` (cryptography) is not installed")


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return own_identity(tmp_path_factory.mktemp("home") / "signing")


def test_ten_turns_are_ten_ingredients_and_one_flipped_byte_is_invalid(store, editor, picture, identity):
    session = store.create(picture, editor=editor)
    for number in range(10):
        session.edit(f"a secret prompt {number}", seed=number)
    data = sign_turns(session.history, identity)
    found = read_signature(data, [identity.anchor])
    assert (found.state, found.turns, found.problems) == ("trusted", 10, ()) and found.self_issued
    with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
        manifests = json.loads(reader.json())["manifests"].values()
    titles = sorted(entry["title"] for manifest in manifests for entry in manifest["ingredients"])
    assert titles == sorted(f"turn {number}" for number in range(10))
    assert {entry["relationship"] for manifest in manifests for entry in manifest["ingredients"]} == {
        "parentOf"
    }
    actions = [
        entry["action"] for manifest in manifests for entry in manifest["assertions"][0]["data"]["actions"]
    ]
    assert actions == ["c2pa.opened", "c2pa.edited"] * 10
    assert Image.open(io.BytesIO(data)).tobytes() == session.picture.tobytes()
    assert read_chain(data) == chain_of(session.history)
    assert b"secret prompt" not in sign_turns(session.history, identity, strip=True)

    pixel_at = data.rindex(b"IDAT") + 40
    for at in (pixel_at, data.index(b"secret prompt"), data.index(b"c2pa.opened")):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        broken = read_signature(flipped, [identity.anchor])
        assert broken.state == "invalid" and broken.problems


def test_long_histories_keep_the_newest_turns_as_ingredients(store, editor, picture, identity, monkeypatch):
    monkeypatch.setattr(signing, "MAX_INGREDIENTS", 3)
    session = store.create(picture, editor=editor)
    for number in range(5):
        session.edit(str(number))
    data = sign_turns(session.history, identity)
    assert read_signature(data, [identity.anchor]).state == "trusted"
    assert read_signature(data, [identity.anchor]).turns == 3 and len(read_chain(data)) == 6


def test_a_stranger_sees_an_intact_file_of_somebody_unknown(store, editor, picture, identity, tmp_path):
    session = store.create(picture, editor=editor)
    session.edit("a")
    data = session.save(tmp_path / "a.png", identity=identity).read_bytes()
    other = own_identity(tmp_path / "other")
    for anchors in ([], [other.anchor]):
        assert read_signature(data, anchors).state == "valid"
    assert read_signature(data, [other.anchor, identity.anchor]).state == "trusted"
    assert "identity not verified" in read_signature(data).issuer


def test_generated_pictures_are_created_not_edited(store, editor, identity):
    session = store.create(editor=editor)
    session.generate("a cat")
    session.edit("a hat")
    data = sign_turns(session.history, identity)
    with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
        report = json.loads(reader.json())
    actions = {
        entry["title"]: entry["assertions"][0]["data"]["actions"] for entry in report["manifests"].values()
    }
    assert actions["turn 0"][0]["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert [entry["action"] for entry in actions["turn 1"]] == ["c2pa.opened", "c2pa.edited"]
    assert read_signature(data, [identity.anchor]).state == "trusted"


def test_a_file_edited_again_keeps_its_signed_turns(store, editor, picture, identity, tmp_path):
    session = store.create(picture, editor=editor)
    session.edit("a")
    path = session.save(tmp_path / "a.png", identity=identity)
    result = editor.edit(session.picture, "b")
    assert read_signature(sign_result(result, path, identity), [identity.anchor]).turns == 2
    (tmp_path / "plain.png").write_bytes(encode(picture, ()))
    fresh = sign_result(result, tmp_path / "plain.png", identity)
    assert read_signature(fresh, [identity.anchor]).turns == 1
    assert read_signature(encode(picture), [identity.anchor]).state == "none"


def test_saving_again_by_another_program_drops_the_signature(store, editor, picture, identity):
    session = store.create(picture, editor=editor)
    session.edit("a")
    again = io.BytesIO()
    Image.open(io.BytesIO(sign_turns(session.history, identity))).save(again, "PNG")
    assert read_signature(again.getvalue()).state == "none"


def test_the_identity_is_made_once_and_kept_private(tmp_path):
    first = own_identity(tmp_path / "signing")
    assert own_identity(tmp_path / "signing") == first
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "signing").iterdir()} == {0}
    assert [path.name for path in tmp_path.iterdir()] == ["signing"]
    (tmp_path / "signing" / "key.pem").unlink()
    with pytest.raises(BadConfig, match="key.pem"):
        own_identity(tmp_path / "signing")


def test_only_png_files_are_signed(store, editor, picture, identity, tmp_path):
    session = store.create(picture, editor=editor)
    session.edit("a")
    with pytest.raises(BadRequest, match="only PNG"):
        session.save(tmp_path / "a.jpg", identity=identity)


def test_without_the_extra_it_is_said(store, editor, picture, identity, monkeypatch):
    session = store.create(picture, editor=editor)
    session.edit("a")
    data = sign_turns(session.history, identity)
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    with pytest.raises(BadRequest, match="extra `provenance`"):
        sign_turns(session.history, identity)
    assert read_signature(data).state == "unread" and read_signature(encode(picture)).state == "none"
