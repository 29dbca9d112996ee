"""A session travels as one file, and no file can make the store hold what a session could not."""

import hashlib
import io
import json
import os
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kontext.errors import BadRequest, NotFound
from kontext.session import Store, archive
from kontext.session.pixels import to_png


@pytest.fixture
def session(store, editor, picture):
    session = store.create(picture, editor=editor, name="kid")
    session.edit("a", seed=1, references=[picture])
    session.edit("b", seed=2)
    session.goto(1)
    session.edit("c", seed=3)
    session.rename("the good one", 3)
    session.delete(2)
    session.undo()
    return session


def plain(session):
    keys = (
        "number",
        "kind",
        "name",
        "prompt",
        "seed",
        "settings",
        "result_info",
        "pixels",
        "created",
        "visited",
        "blobs",
    )
    parents = {turn.id: turn.number for turn in session.turns}
    return [
        ({key: getattr(turn, key) for key in keys}, parents.get(turn.parent_id)) for turn in session.turns
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_session_is_not_saved_over_a_pipe(session, tmp_path):
    for name, save in (("a.zip", lambda path: archive.save(session, path)), ("a.png", session.save)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(BadRequest, match="a device, pipe or socket"):
            save(tmp_path / name)
        assert (tmp_path / name).is_fifo()


def test_a_session_comes_back_whole(session, editor, tmp_path):
    path = archive.save(session, tmp_path / "kid.kontext")
    with Store(tmp_path / "other") as other:
        found = archive.load(other, path, editor=editor)
        assert plain(found) == plain(session) and found.name == "kid" and found.id != session.id
        assert found.current.number == session.current.number == 1 and found.redo().number == 3
        assert found.edit("d").number == 4
        assert archive.load(other, path.read_bytes()).current.number == 1 and len(other.sessions()) == 2
        assert other.check() == []
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == []


def rezip(data, manifest=None, drop=(), add=(), replace=None):
    """The same zip with a changed manifest, entries left out, added or replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "manifest.json" and manifest:
                content = json.dumps(manifest(json.loads(content)))
            if name not in drop:
                new.writestr(name, (replace or {}).get(name, content))
        for name, content in add:
            new.writestr(name, content)
    return out.getvalue()


def turn(which, /, **changes):
    return lambda found: {
        **found,
        "turns": [{**t, **changes} if t["number"] == which else t for t in found["turns"]],
    }


WRONG_MANIFESTS = {
    "version 2": lambda found: {**found, "version": 2},
    "version True": lambda found: {**found, "version": True},
    r"version 'a\\nb": lambda found: {**found, "version": "a\nb\x1b[2J"},
    r"turn 'a\\nb": turn(1, number="a\nb\x1b[2J"),
    "invalid created": turn(1, created=10**400),
    "turn 1 has an invalid created": turn(1, created=-1),
    "turn 3 has an invalid created": turn(3, created=253402300800),  # the year 10000
    "is not a session manifest": lambda found: {**found, "format": "kontext-chain"},
    "exactly the keys of version 1": lambda found: {**found, "extra": 1},
    "1 to 10000 turns": lambda found: {**found, "turns": []},
    "is not JSON": None,
    "not have exactly the keys": turn(1, extra=1),
    "invalid prompt": turn(1, prompt=None),
    "invalid settings": turn(1, settings={"__class__": 1}),
    "invalid facts": turn(1, facts={"size": [1]}),
    "invalid visited": turn(1, visited=-1),
    "invalid blobs": turn(1, blobs={"picture": ["../../etc/passwd"]}),
    "invalid number": turn(1, number="1"),
    "turn 3 does not have an earlier turn as its parent": turn(3, parent=7),
    "not have an earlier turn as its parent": turn(3, parent=3),
    "turn 0 does not have an earlier turn as its parent": turn(0, parent=3),
    "earlier turn as its parent": turn(3, parent=None),
    "not allowed there": turn(3, kind="source"),
    "does not match its turn": turn(1, pixels="0" * 64),
}


def test_names_have_no_control_characters_wherever_they_come_from(session, store, picture, tmp_path):
    data = archive.save(session, tmp_path / "kid.kontext").read_bytes()
    strange, clean = "a\x1b]0;b\x07\n\x9bc\u200d", "a\ufffd]0;b\ufffd\ufffd\ufffdc\u200d"
    for change in (turn(1, name=strange), lambda found: {**found, "name": strange}):
        found = archive.load(store, rezip(data, manifest=change))
        assert clean in (found.name, found.tree.find(1).name)
        assert strange not in (found.name, found.tree.find(1).name)
    assert store.create(picture, name=strange).name == clean
    png = session.save(tmp_path / "kid.png")
    assert store.restore(png, name=strange).name == clean
    picture.save(tmp_path / "a\x1bb.png")
    assert store.create(tmp_path / "a\x1bb.png").name == "a\ufffdb"
    for place in (None, 1):
        with pytest.raises(BadRequest, match="control character"):
            session.rename(strange, place)


@pytest.mark.parametrize("says", WRONG_MANIFESTS)
def test_wrong_manifests_are_refused(session, store, tmp_path, says):
    data = archive.save(session, tmp_path / "kid.kontext").read_bytes()
    before = store.sessions()
    if says == "is not JSON":
        wrong = rezip(data, replace={"manifest.json": b"[" * 100_000})
    else:
        wrong = rezip(data, manifest=WRONG_MANIFESTS[says])
    with pytest.raises(BadRequest, match=says.strip()) as raised:
        archive.load(store, wrong)
    assert str(raised.value).isprintable()
    assert store.sessions() == before


def test_strange_zips_are_refused(session, store, tmp_path, picture):
    data = archive.save(session, tmp_path / "kid.kontext").read_bytes()
    blob = next(name for name in zipfile.ZipFile(io.BytesIO(data)).namelist() if name.startswith("blobs/"))
    other = to_png(picture.rotate(180))
    text = b"not a picture"
    name = f"blobs/{hashlib.sha256(text).hexdigest()}"
    cases = {
        "entries": [
            rezip(data, add=[("../../evil", b"x")]),
            rezip(data, add=[("/etc/cron.d/x", b"x")]),
            rezip(data, add=[("blobs/", b"")]),
            rezip(data, add=[("blobs/..", b"")]),
            rezip(data, drop=["manifest.json"]),
        ],
        "missing": [rezip(data, drop=[blob])],
        "not used by any turn": [rezip(data, add=[(f"blobs/{hashlib.sha256(other).hexdigest()}", other)])],
        "damaged": [rezip(data, replace={blob: other}), data[: len(data) // 2], b"", b"PK\3\4", data[:-30]],
        "damaged PNG": [
            rezip(
                data,
                drop=[blob],
                add=[(name, text)],
                manifest=lambda found: json.loads(json.dumps(found).replace(blob[6:], name[6:])),
            )
        ],
    }
    for says, wrongs in cases.items():
        for wrong in wrongs:
            with pytest.raises(BadRequest, match=says):
                archive.load(store, wrong)
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = rezip(data, add=[("manifest.json", b"{}")])
    with pytest.raises(BadRequest, match="distinct blobs"):
        archive.load(store, twice)
    with pytest.raises(NotFound):
        archive.load(store, tmp_path / "nothing.kontext")


def test_bombs_are_stopped_early(session, store, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MANIFEST_BYTES", 1 << 20)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("manifest.json", b" " * (8 << 20))
    with pytest.raises(BadRequest, match="manifest.json is larger than 1 MiB"):
        archive.load(store, bomb.getvalue())
    data = archive.save(session, tmp_path / "kid.kontext").read_bytes()
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with pytest.raises(BadRequest, match="declared to be more"):
        archive.load(store, data)
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 30)
    monkeypatch.setattr("kontext.session.pixels.MAX_PIXELS", 1000)
    with pytest.raises(
        BadRequest, match=r"invalid: a stored PNG must be 8-bit RGB, RGBA or L, got \w+ \(48, 32\)"
    ):
        archive.load(store, data)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_damage_gets_through(damaged_store, data):
    store, good, expected = damaged_store
    at = data.draw(st.integers(0, len(good) - 1))
    wrong = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        found = archive.load(store, wrong)
    except BadRequest:
        return
    assert [turn.pixels for turn in found.turns] == expected  # only bytes that say nothing may differ


@pytest.fixture(scope="module")
def damaged_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    with Store(folder / "store") as store:
        session = store.create(Image.linear_gradient("L").convert("RGB"), name="kid")
        good = archive.save(session, folder / "kid.kontext").read_bytes()
        yield store, good, [turn.pixels for turn in session.turns]
