"""A file says how it was made, restores its turns, and carries nothing of the input's camera or place."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import kontext
from kontext import pictures
from kontext.errors import BadPicture, BadRequest, NotFound
from kontext.pictures.formats import HISTORY_KEY
from kontext.session import Store, provenance
from kontext.session.pixels import digest, to_png
from kontext.session.provenance import chain_of, encode, extend_history, parse_chain, read_chain, texts

GPS = 0x8825


@pytest.fixture
def session(store, editor, picture):
    session = store.create(picture, editor=editor, name="kid")
    session.edit("Make the hair blue", seed=1, steps=2, box=(1, 2, 20, 20))
    session.edit('给她戴上墨镜, <b>"now"</b>\nand smile', seed=2)
    return session


def with_text(data, text, keyword=HISTORY_KEY, compress=False):
    """A PNG with one more iTXt chunk before its end."""
    payload = zlib.compress(text) if compress else text
    body = b"iTXt" + keyword.encode() + b"\0" + bytes([compress, 0]) + b"\0\0" + payload
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:-12] + chunk + data[-12:]


def document(chain):
    return json.loads(texts(chain)[HISTORY_KEY])


def test_a_saved_png_restores_its_chain_in_an_empty_store(session, tmp_path):
    path = session.save(tmp_path / "kid.png")
    with Store(tmp_path / "other") as other:
        restored = other.restore(path)
        assert [turn.prompt for turn in restored.turns] == [turn.prompt for turn in session.turns]
        assert [turn.seed for turn in restored.turns] == [None, 1, 2]
        assert restored.turns[1].settings == {"steps": 2, "box": [1, 2, 20, 20]}
        assert restored.turns[1].result_info["fingerprint"] == "f" * 64 and restored.turns[1].size == (48, 32)
        assert restored.picture.tobytes() == session.picture.tobytes() and restored.current.number == 2
        with pytest.raises(NotFound, match="turn 1 comes from a file's history"):
            len(restored.undo().picture.size)
        assert other.check() == []


def test_pictures_of_earlier_turns_come_back_for_their_owner_alone(store, session, editor, tmp_path):
    data = session.save(tmp_path / "kid.png").read_bytes()
    mine = store.restore(data, editor=editor)
    assert [turn.picture.tobytes() for turn in mine.turns] == [
        turn.picture.tobytes() for turn in session.turns
    ]
    theirs = store.restore(data, owner="somebody else")
    assert [turn.has_picture for turn in theirs.turns] == [False, False, True]
    mine.undo()
    assert mine.edit("again").parent_id == mine.turns[1].id
    assert store.check() == []


def test_a_picture_changed_by_another_program_is_not_restored(store, session, tmp_path):
    path = session.save(tmp_path / "kid.png")
    pixels = np.asarray(session.picture).copy()
    pixels[0, 0] ^= 1
    lying = encode(Image.fromarray(pixels), chain_of(session.history))
    with pytest.raises(BadRequest, match="pixels of this file were changed"):
        store.restore(lying)
    with pytest.raises(BadRequest, match="no history"):
        store.restore(session.save(path, strip=True))
    assert Image.open(path).info == {}


def test_gallery_programs_read_the_last_turn(session, tmp_path):
    info = Image.open(session.save(tmp_path / "kid.png")).info
    assert info["parameters"].splitlines() == [
        '给她戴上墨镜, <b>"now"</b> and smile',
        "Steps: 4, Sampler: Euler, CFG scale: 2.5, Seed: 2, Size: 48x32, Model hash: ffffffffff, "
        f"Model: tint, Version: openkontext {kontext.__version__}",
    ]
    parsers = pytest.importorskip(
        "sd_parsers", reason="sd-parsers is not installed; it checks our `parameters`"
    )
    read = parsers.ParserManager().parse(tmp_path / "kid.png")
    assert [prompt.value for prompt in read.prompts] == ['给她戴上墨镜, <b>"now"</b> and smile']
    assert (
        next(iter(read.samplers)).parameters["seed"] == "2"
        or next(iter(read.samplers)).parameters["seed"] == 2
    )


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_every_format_tells_that_a_model_made_it(session, store, editor, tmp_path, name):
    def xmp(path):
        image = Image.open(path)
        packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
        return packet.decode() if isinstance(packet, bytes) else packet

    kind = "cv.iptc.org/newscodes/digitalsourcetype/"
    assert kind + "compositeWithTrainedAlgorithmicMedia" in xmp(session.save(tmp_path / name))
    made = store.create(editor=editor)
    made.generate("a cat")
    assert kind + "trainedAlgorithmicMedia" in xmp(made.save(tmp_path / name))
    untouched = Image.open(session.save(tmp_path / name, turn=0))
    assert "xmp" not in untouched.info and "XML:com.adobe.xmp" not in untouched.info


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_camera_and_place_of_the_input_are_never_copied(store, editor, picture, tmp_path, name):
    exif = Image.Exif()
    exif[0x010F], exif.get_ifd(GPS)[1] = "SECRETCAMERA", "N"
    exif.get_ifd(GPS)[2] = (52.0, 31.0, 12.0)
    picture.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert b"SECRETCAMERA" in (tmp_path / "photo.jpg").read_bytes()
    session = store.create(tmp_path / "photo.jpg", editor=editor)
    session.edit("a")
    for turn in (0, 1):
        saved = session.save(tmp_path / name, turn=turn)
        assert b"SECRETCAMERA" not in saved.read_bytes() and not Image.open(saved).getexif().get_ifd(GPS)
    stored = [store.blobs.get(blob) for turn in session.turns for blob in turn.blobs["picture"]]
    assert not any(b"SECRETCAMERA" in data for data in stored)


def test_an_edit_of_a_saved_file_continues_its_chain(session, editor, tmp_path):
    path = session.save(tmp_path / "kid.png")
    result = editor.edit(pictures.load(path).as_given, "third", seed=3)
    result.settings = {"size": "match", "box": None, "lock": True, "canvas": [1, 2], "fingerprint": "a" * 64}
    chain = extend_history(path, result)
    assert [entry.prompt for entry in chain][1::2] == ["Make the hair blue", "third"]
    assert chain[-1].settings == {"size": "match", "lock": True} and chain[-1].fingerprint == "a" * 64
    assert read_chain(encode(result.picture, chain)) == chain
    stranger = tmp_path / "stranger.png"
    session.picture.rotate(90, expand=True).save(stranger)
    assert [entry.kind for entry in extend_history(stranger, result)] == ["source", "edit"]
    assert [entry.kind for entry in extend_history(None, result)] == ["generate"]


def test_a_very_long_chain_keeps_its_newest_turns(session):
    first, *rest = chain_of(session.history)
    entries = [first]
    for number in range(2500):
        entries.append(
            type(first)(
                **{**vars(rest[0]), "id": f"{number:x}", "parent": entries[-1].id, "prompt": str(number)}
            )
        )
    kept = parse_chain(texts(entries)[HISTORY_KEY])
    assert 500 < len(kept) <= provenance.MAX_TURNS and kept[-1].prompt == "2499" and kept[0].kind == "source"


def change(**changes):
    return lambda found: {**found, **changes}


def turn(number, **changes):
    def changed(found):
        turns = [dict(turn) for turn in found["turns"]]
        turns[number] |= changes
        return {**found, "turns": turns}

    return changed


HOSTILE = {
    "other version": change(version=2),
    "no version": lambda found: {key: value for key, value in found.items() if key != "version"},
    "other format": change(format="x"),
    "extra key": change(extra=1),
    "no turns": change(turns=[]),
    "turns of another type": change(turns={}),
    "too many turns": lambda found: {**found, "turns": found["turns"] * 400},
    "extra key in a turn": turn(0, extra=1),
    "parent missing": turn(1, parent=None),
    "parent of a later turn": turn(1, parent="abc"),
    "first turn with a parent": turn(0, parent="abc"),
    "first turn an edit": turn(0, kind="edit"),
    "later turn a source": turn(1, kind="source"),
    "unknown kind": turn(1, kind="program"),
    "kind of another type": turn(1, kind=[]),
    "prompt of another type": turn(1, prompt=5),
    "prompt too long": turn(1, prompt="a" * 10_001),
    "prompt with NUL": turn(1, prompt="a\0"),
    "prompt with half a surrogate": turn(1, prompt="\ud800"),
    "negative seed": turn(1, seed=-1),
    "seed true": turn(1, seed=True),
    "huge seed": turn(1, seed=2**63),
    "steps 0": turn(1, steps=0),
    "guidance of another type": turn(1, guidance="2"),
    "size 0": turn(1, size=[0, 5]),
    "size of three": turn(1, size=[1, 2, 3]),
    "fingerprint no sha256": turn(1, fingerprint="../../x"),
    "pixels no sha256": turn(1, pixels="F" * 64),
    "unknown setting": turn(1, settings={"on_step": "os.system"}),
    "wrong setting": turn(1, settings={"box": [1, 2, 3]}),
    "id with a path": turn(0, id="../x"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_histories_are_refused(session, name):
    assert parse_chain(json.dumps(document(chain_of(session.history))))
    with pytest.raises(BadPicture):
        parse_chain(json.dumps(HOSTILE[name](document(chain_of(session.history)))))


def test_hostile_chunks_are_refused(session, picture):
    plain, chain = to_png(picture), chain_of(session.history)
    good = texts(chain)[HISTORY_KEY].encode()
    assert read_chain(with_text(plain, good)) == read_chain(with_text(plain, good, compress=True)) == chain
    bomb = b" " * (provenance.MAX_CHUNK_BYTES + 1)
    deep = b"[" * 100_000
    for text in (
        b"",
        b"{",
        deep,
        b"\xff\xfe",
        good.replace(b"2.5", b"NaN"),
        good.replace(b"2.5", b"1e999"),
        b"[]",
    ):
        with pytest.raises(BadPicture):
            read_chain(with_text(plain, text))
    for hostile in (
        with_text(plain, bomb, compress=True),
        with_text(plain, bomb),
        with_text(with_text(plain, good), good),
    ):
        with pytest.raises(BadPicture):
            read_chain(hostile)
    whole = with_text(plain, good)
    with pytest.raises(BadPicture, match="checksum"):
        read_chain(whole.replace(b"blue", b"pink"))
    with pytest.raises(BadPicture, match="truncated"):
        read_chain(whole[: whole.index(HISTORY_KEY.encode()) + 50])
    assert read_chain(plain) == [] and read_chain(b"no picture") == []


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_break_the_reader(data):
    for bytes_ in (data, provenance.PNG + data, with_text(to_png(Image.new("RGB", (16, 16))), data)):
        try:
            read_chain(bytes_)
        except BadPicture:
            pass


def test_the_digest_is_of_the_pixels_not_of_the_file(picture):
    again = picture.copy()
    again.info["anything"] = "else"
    assert digest(picture) == digest(again)
    again.putpixel((3, 4), (1, 2, 3))
    assert digest(picture) != digest(again) != digest(picture.convert("RGBA"))
    assert digest(Image.new("RGB", (2, 3))) != digest(Image.new("RGB", (3, 2)))
