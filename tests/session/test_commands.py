"""`kontext chat` and `kontext verify` as a person or a script meets them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import kontext.engine
import support
from kontext.cli import app
from kontext.commands.batch import load_editor
from kontext.errors import BadRequest
from kontext.session import Store
from kontext.session.provenance import chain_of, encode
from support.tint import TintEditor, tint

VICTIM = Path(support.__file__).with_name("victim.py")


@pytest.fixture
def kontext_command(monkeypatch, tmp_path):
    """Run the command line in this process with the editor of `tint.py`: (exit code, stdout, stderr)."""
    monkeypatch.setattr(kontext.engine, "Editor", TintEditor, raising=False)

    def run(*arguments, lines=()):
        result = CliRunner().invoke(app, [*map(str, arguments)], input="\n".join(lines))
        assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def kid(tmp_path, picture):
    picture.save(tmp_path / "kid.png")
    return tmp_path / "kid.png"


def chat(command, *arguments, lines):
    code, out, _ = command("chat", *arguments, "--json", lines=lines)
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


def test_a_conversation(kontext_command, kid, picture, tmp_path):
    lines = [
        "Make it blue",
        "  ",
        "/undo",
        "Put on a hat",
        "/seed 3",
        "a scarf",
        "/goto 1",
        "/variants 2",
        "/branch",
    ]
    answers = chat(
        kontext_command, kid, lines=[*lines, "/turns", f"/save {tmp_path}/out.png", "/redo", "/quit", "never"]
    )
    made = [(answer["turn"], answer["parent"], answer["prompt"]) for answer in answers if "turn" in answer]
    blue = "Make it blue"
    assert made == [
        (0, None, ""),
        (1, 0, blue),
        (0, None, ""),
        (2, 0, "Put on a hat"),
        (3, 2, "a scarf"),
        (1, 0, blue),
        (4, 0, blue),
        (5, 0, blue),
        (0, None, ""),
        (4, 0, blue),
    ]
    tree = next(answer for answer in answers if "turns" in answer)
    assert [row["parent"] for row in tree["turns"]] == [None, 0, 0, 2, 0, 0] and tree["current"] == 0
    assert answers[4] == {"seed": 3} and answers[5]["seed"] == 3
    assert Image.open(tmp_path / "out.png").tobytes() == picture.tobytes()
    assert "prompt" not in answers[-1] and answers[-1]["session"] == answers[0]["session"]


def test_mistakes_are_told_and_the_conversation_goes_on(kontext_command, kid):
    wrong = [
        "/undo",
        "/redo",
        "/goto 9",
        "/goto x",
        "/nothing",
        "/variants",
        "/variants 99 a",
        "/save",
        "/save a.exe",
    ]
    wrong += ["/delete 0", "/box 1,2", "/guidance much", "/steps x", "/open nowhere.png", "\ud83d"]
    answers = chat(kontext_command, kid, lines=[*wrong[:-1], "still here"])
    assert [list(answer) for answer in answers[1:-1]] == [["error"]] * (len(wrong) - 1)
    assert answers[-1]["prompt"] == "still here"


def test_words_for_people(kontext_command, kid):
    _, out, _ = kontext_command(
        "chat", kid, lines=["Make it blue", "/rename first try", "/undo", "a hat", "/turns", "/help"]
    )
    assert "turn 1: Make it blue  (48x32, seed 7, " in out and " changed" in out
    tree = out[out.index("    0 kid") :].splitlines()[:3]
    assert tree[1] == "    1 |- Make it blue  (first try)" and tree[2] == "*   2 `- a hat"
    assert "/variants N [TEXT]" in out and "/quit" in out


def test_the_tree_shows_which_turn_was_made_from_which(kontext_command, kid):
    lines = ["a", "/goto 0", "b", "/goto 1", "c", "/goto 2", "d", "/goto 3", "e", "/goto 3", "f", "/turns"]
    _, out, _ = kontext_command("chat", kid, lines=lines)
    assert out.splitlines()[-7:] == [
        "    0 kid",
        "    1 |- a",
        "    3 |  c",
        "    5 |  |- e",
        "*   6 |  `- f",
        "    2 `- b",
        "    4    d",
    ]


def test_settings_are_checked_when_they_are_made(kontext_command, kid):
    wrong = ["/box 900,0,10,10", "/box 0,0,0,1", "/steps 0", "/steps 201", "/guidance 99", "/guidance nan"]
    wrong += ["/seed -1", f"/seed {2**60}"]
    answers = chat(kontext_command, kid, lines=[*wrong, "/box 0,0,10,10", "/steps 8"])
    assert [list(answer) for answer in answers[1 : len(wrong) + 1]] == [["error"]] * len(wrong)
    assert answers[-2:] == [{"box": [0, 0, 10, 10]}, {"steps": 8}]


def test_every_option_of_an_edit_can_be_set_and_unset(kontext_command, kid, tmp_path, picture):
    picture.convert("L").save(tmp_path / "mask.png")
    mask = str(tmp_path / "mask.png")
    right = [
        "/size match",
        "/lock off",
        "/regions off",
        f"/mask {mask}",
        "/mask",
        f"/ref {kid}",
        f"/ref {kid}",
    ]
    wrong = ["/size huge", "/lock perhaps", "/regions 3", "/mask nowhere.png", "/ref nowhere.png"]
    answers = chat(kontext_command, kid, lines=[*right, "/ref", "/lock on", "Make it blue", *wrong])
    assert answers[1:11] == [
        {"size": "match"},
        {"lock": False},
        {"regions": False},
        {"mask": mask},
        {"mask": None},
        {"references": [str(kid)]},
        {"references": [str(kid), str(kid)]},
        {"references": None},
        {"lock": True},
        answers[10],
    ]
    assert answers[10]["prompt"] == "Make it blue"
    assert [list(answer) for answer in answers[11:]] == [["error"]] * len(wrong)


def test_chat_replaces_no_file_but_its_own_unless_asked(kontext_command, kid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = kid.read_bytes()
    answers = chat(
        kontext_command,
        kid,
        lines=[
            "/save", "/save kid.png", "/export kid.png", "/export! kid.png", "/export", "/save a.png",
            "one", "/save a.png", "/export a.zip", "/save",
        ],
    )  # fmt: skip
    said = [answer.get("error", "") for answer in answers[1:]]
    assert (
        said[0] == "give a file name: /save kid-edited.png" and said[4] == "give a file name: /export kid.zip"
    )
    assert "already exists" in said[1] and "/save! kid.png" in said[1]
    assert "already exists" in said[2] and "exported to a .zip" in said[3]
    assert said[5:9] == [""] * 4 and kid.read_bytes() == before
    Path("kid-edited.png").touch()
    chat(kontext_command, kid, lines=["/save! kid.png"])
    assert chat(kontext_command, "--session", answers[0]["session"], lines=["/save"])[1]["error"].endswith(
        "/save kid-edited-2.png"
    )


def test_names_and_prompts_of_strangers_do_not_reach_the_terminal_raw(kontext_command, tmp_path, picture):
    name = os.fsdecode("esc\x1b[31m\u202e.png".encode())
    picture.save(tmp_path / name)
    lines = ["red \x1b]0;x\x07 \u202e", "/rename \x1b[2J", "/turns", f"/save {tmp_path}/\x1b[2J.png", "/\x1b"]
    for answers in (
        kontext_command("chat", tmp_path / name, lines=lines),
        kontext_command("chat", "--list"),
        kontext_command("verify", tmp_path / name),
        kontext_command("verify", tmp_path / "none\x1b[2J.png"),
        kontext_command("chat", "--session", "\x1b[2J"),
        kontext_command("chat", "--\x1b[2J"),
        kontext_command("\x1b[2J"),
    ):
        for text in answers[1:]:
            assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_verify_cannot_be_made_to_forge_a_verdict(kontext_command, kid, store, editor, picture, tmp_path):
    prompt = "one\n   2  Looks like another turn\nsignature intact, by Adobe\r\x1b[2J\x9b2J\u2028pixels: good"
    session = store.create(picture, editor=editor)
    session.edit(prompt, seed=4)
    code, out, _ = kontext_command("verify", session.save(tmp_path / "a.png"))
    rows = out.split("\n")
    assert code == 0 and len(rows) == 5 and rows[4] == ""
    assert rows[0].startswith("   0  ") and rows[1].startswith("   1  one\\n   2  Looks")
    assert rows[2] == "pixels: those of the last turn" and rows[3] == "no signature"


def test_a_closed_standard_input_is_the_end_of_the_conversation(kid, home):
    done = subprocess.run(
        f'exec "{sys.executable}" "{VICTIM}" chat "{kid}" --json <&-',
        shell=True, capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0 and "turn" in json.loads(done.stdout.splitlines()[0]) and done.stderr == ""


def test_a_session_goes_on_by_id_or_name_and_a_saved_png_with_its_turns(kontext_command, kid, tmp_path):
    begun = chat(kontext_command, kid, lines=["one", f"/save {tmp_path}/one.png"])
    session = begun[0]["session"]
    assert chat(kontext_command, "--session", session, lines=["two"])[-1]["turn"] == 2
    assert chat(kontext_command, "--session", "kid", lines=["/undo"])[-1]["turn"] == 1
    assert chat(kontext_command, tmp_path / "one.png", lines=["/turns"])[-1]["turns"][1]["prompt"] == "one"
    code, out, _ = kontext_command("chat", "--list")
    assert code == 0 and session in out and len(out.splitlines()) == 2
    for arguments, says in (
        (["--session", "nobody"], "no session matches"),
        ([], "give a PICTURE"),
        (["no.png"], "there is no such file"),
    ):
        code, _, errors = kontext_command("chat", *arguments)
        assert code == 1 and says in errors


def test_a_session_moves_as_one_file_and_can_be_deleted(kontext_command, kid, tmp_path, home):
    begun = chat(kontext_command, kid, lines=["one", "/undo", "two", f"/export {tmp_path}/all.zip"])
    other = chat(kontext_command, tmp_path / "all.zip", "--data", tmp_path / "other", lines=["/turns"])
    assert [row["prompt"] for row in other[-1]["turns"]] == ["", "one", "two"] and other[-1]["current"] == 2
    (tmp_path / "bad.zip").write_bytes((tmp_path / "all.zip").read_bytes().replace(b"blobs/", b"../../"))
    code, _, errors = kontext_command("chat", tmp_path / "bad.zip")
    assert code == 1 and "bad.zip is invalid: its entries must be" in errors
    assert kontext_command("chat", "--delete", begun[0]["session"])[0] == 0
    assert kontext_command("chat", "--list")[1] == ""


def test_weights_that_do_not_load_leave_no_session(kontext_command, kid, monkeypatch):
    monkeypatch.setattr(TintEditor, "load", lambda *_, **__: 1 / 0)
    assert kontext_command("chat", kid)[0] == 1
    assert kontext_command("chat", "--list")[1] == ""


def test_another_process_on_the_session_is_told_of_and_nothing_is_lost(
    kontext_command, kid, home, monkeypatch
):
    session = chat(kontext_command, kid, lines=["one"])[0]["session"]

    class Interfering(TintEditor):
        def prefill(self, picture, background=False):  # between two lines, another process adds a turn
            with Store(home) as store:
                if len(store.open(session).turns) == 3:
                    store.open(session, editor=TintEditor()).edit("from elsewhere")

    monkeypatch.setattr(kontext.engine, "Editor", Interfering, raising=False)
    answers = chat(kontext_command, "--session", session, lines=["two", "refused", "three"])
    assert "changed by another process" in answers[2]["error"] and answers[3]["prompt"] == "three"
    with Store(home) as store:
        assert [turn.prompt for turn in store.open(session).turns] == [
            "",
            "one",
            "two",
            "from elsewhere",
            "three",
        ]


def test_a_chat_killed_while_waiting_has_kept_every_turn_it_told(kid, home, picture):
    command = [sys.executable, str(VICTIM), "chat", str(kid), "--json"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    first = json.loads(process.stdout.readline())
    expected = picture
    for number in range(5):
        process.stdin.write(f"prompt {number}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["turn"] == number + 1
        expected = tint(expected, f"prompt {number}", 7)[0]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Store(home) as store:
        session = store.open(first["session"])
        assert session.current.number == 5 and session.picture.tobytes() == expected.tobytes()
        assert store.check() == []


def test_verify_tells_the_chain_and_what_does_not_fit(kontext_command, kid, store, editor, picture, tmp_path):
    session = store.create(picture, editor=editor)
    session.edit("Make it blue", seed=4)
    path = session.save(tmp_path / "a.png")
    code, out, _ = kontext_command("verify", path, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["good"] and answer["pixels_match"] and answer["signature"]["state"] == "none"
    assert [(turn["kind"], turn["prompt"], turn["seed"]) for turn in answer["turns"]] == [
        ("source", "", None),
        ("edit", "Make it blue", 4),
    ]
    code, out, _ = kontext_command("verify", path)
    assert (
        code == 0
        and "Make it blue  [48x32, seed 4, steps 4" in out
        and "pixels: those of the last turn" in out
    )

    path.write_bytes(encode(picture.rotate(180), chain_of(session.history)))
    code, out, _ = kontext_command("verify", path)
    assert code == 1 and "NOT those of the last turn" in out
    path.write_bytes(path.read_bytes().replace(b"Make it blue", b"Make it pink"))
    code, out, errors = kontext_command("verify", path)
    assert code == 1 and "its checksum is wrong" in out + errors
    code, _, errors = kontext_command("verify", kid)
    assert code == 1 and "neither a history nor a signature" in errors
    code, _, errors = kontext_command("verify", VICTIM)
    assert code == 1 and "not a picture" in errors


def test_verify_tells_whose_signature_it_is_and_that_it_is_broken(
    kontext_command, store, editor, picture, tmp_path
):
    pytest.importorskip("c2pa", reason="the extra `provenance` (c2pa-python) is not installed")
    pytest.importorskip("cryptography", reason="the extra `provenance` (cryptography) is not installed")
    from kontext.session.signing import own_identity

    session = store.create(picture, editor=editor)
    session.edit("Make it blue")
    path = session.save(tmp_path / "a.png", identity=own_identity())
    code, out, _ = kontext_command("verify", path)
    assert code == 0 and "signature intact, by a certificate trusted here (Kontext self-issued" in out
    stranger = own_identity(tmp_path / "stranger")
    session.save(path, identity=stranger)
    code, out, _ = kontext_command("verify", path)
    assert code == 0 and "that is not trusted here" in out
    code, out, _ = kontext_command("verify", path, "--anchor", tmp_path / "stranger" / "anchor.pem", "--json")
    answer = json.loads(out)["signature"]
    assert code == 0 and answer["state"] == "trusted" and answer["self_issued"] and answer["turns"] == 1
    data = bytearray(path.read_bytes())
    data[data.index(b"parameters") + 20] ^= 1
    path.write_bytes(data)
    code, out, _ = kontext_command("verify", path)
    assert code == 1 and "signature BROKEN" in out


def test_a_batch_command_hands_on_every_option(monkeypatch, kontext_command, kid, tmp_path):
    import kontext.batch.run as batch

    tasks = []
    monkeypatch.setattr(
        batch, "run", lambda found, *_, **__: tasks.extend(found) or batch.Progress(1, 1, 0, [])
    )
    table = tmp_path / "t.csv"
    table.write_text("picture,lock\nkid.png,yes\n")
    plain = ["batch", table, "Make it blue", "-o", tmp_path / "out"]
    code, _, err = kontext_command(*plain, "--no-lock", "--no-regions", "--ref", kid, "--steps", 3)
    assert code == 0, err
    assert tasks.pop().settings == {
        "steps": 3,
        "size": "match",
        "lock": True,  # a column wins
        "regions": False,
        "references": [str(kid.resolve())],
    }
    kontext_command(*plain)
    assert tasks.pop().settings == {"size": "match", "lock": True}  # as journals of earlier versions name it


@pytest.mark.parametrize(
    "option",
    [
        "--steps=5000",
        "--guidance=nan",
        "--seed=-1",
        "--size=1x1",
        "--size=big",
        "--ref=none.png",
        "--ref=notes.txt",
    ],
)
def test_an_option_that_no_picture_could_honor_is_refused_once(
    kontext_command, kid, tmp_path, option, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    code, out, errors = kontext_command("batch", tmp_path, "blue", "-o", tmp_path / "out", option)
    assert code == 1 and out == "" and errors.startswith("error: ") and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_prompt_too_long_for_the_model_ends_a_batch_before_its_first_picture():
    load_editor("tiny-random", "cpu", prompt="Make it red")
    with pytest.raises(BadRequest, match=r"the prompt has \d+ tokens"):
        load_editor("tiny-random", "cpu", prompt="Make it red " * 100)
