"""Files on the command line: what is never replaced, how names are chosen, pipes, examples, models."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kontext import cli

TINY = ["--model", "tiny-random"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one picture in it and a subfolder, the command line standing there, no account's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path.parent / f"{tmp_path.name}-home"))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("kid.png")
    Path("out").mkdir()
    return tmp_path


def call(*arguments, **more):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], **more)


def listing(folder="."):
    return sorted(path.name for path in Path(folder).iterdir() if path.is_file())


def refused(*arguments, **more):
    """The one line of a command that fails, and that leaves all files as they were."""
    before = {path: path.read_bytes() for path in Path(".").rglob("*") if path.is_file()}
    done = call(*arguments, *TINY, **more)
    after = {path: path.read_bytes() for path in Path(".").rglob("*") if path.is_file()}
    assert done.exit_code == 1 and done.stdout == "" and before == after
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr) and "unexpected" not in done.stderr
    return done.stderr


def test_an_input_is_never_an_output(folder):
    os.symlink("kid.png", "link.png")
    os.link("kid.png", "hard.png")
    Image.new("L", (70, 50), 255).save("mask.png")
    edit = ("edit", "kid.png", "red")
    for name in ("kid.png", "./kid.png", "out/../kid.png", "hard.png"):
        assert "the input picture would be overwritten" in refused(*edit, "-o", name)
        assert "would be overwritten" in refused(*edit, "-o", "a.png", "--region", name, "--force")
    for name in ("link.png", "mask.png"):
        refused(*edit, "-o", name)
    assert "an input" in refused(*edit, "-o", "mask.png", "--mask", "mask.png", "--force")
    assert "an input" in refused("edit", "mask.png", "red", "--ref", "kid.png", "-o", "kid.png", "--force")
    assert "an input" in refused("generate", "red", "--ref", "kid.png", "-o", "kid.png", "--force")
    before = Path("kid.png").read_bytes()
    assert call(*edit, "-o", "kid.png", "--force", *TINY).exit_code == 0
    assert Path("kid.png").read_bytes() != before


def test_a_file_that_exists_is_replaced_with_force_only(folder):
    Path("a.png").write_bytes(b"mine")
    os.symlink("nowhere", "dangling.png")
    assert "already exists" in refused("edit", "kid.png", "red", "-o", "a.png")
    assert "already exists" in refused("edit", "kid.png", "red", "-o", "dangling.png")
    assert "already exists" in refused("generate", "red", "-o", "a.png")
    assert "already exists" in refused("edit", "kid.png", "red", "-o", "b.png", "--cutout", "a.png")
    Path("v-2.png").write_bytes(b"mine")
    assert "v-2.png: already exists" in refused("edit", "kid.png", "red", "-o", "v.png", "--variants", 3)
    assert call("edit", "kid.png", "red", "-o", "a.png", "--force", *TINY).exit_code == 0
    assert Image.open("a.png").size == (70, 50)


@pytest.mark.parametrize("name", ["c.jpg", "c.JPEG"])
def test_a_cutout_is_never_written_without_its_transparency(folder, name):
    said = refused("edit", "kid.png", "red", "--cutout", name)
    assert (
        f"{name}: --cutout needs a transparent background" in said and "end the name in .png or .webp" in said
    )
    assert call("edit", "kid.png", "red", "-o", "a.jpg", "--cutout", "c.png", *TINY).exit_code == 0
    assert Image.open("c.png").mode == "RGBA"


def test_pipes_and_devices_are_never_replaced(folder):
    os.mkfifo("pipe.png")
    os.symlink("pipe.png", "link.png")
    for name in ("pipe.png", "link.png", os.devnull):
        for option in ("-o", "--region", "--cutout"):
            said = refused("edit", "kid.png", "red", option, name, "--force")
            assert f"{name}: a device, pipe or socket, not a file" in said
        assert "not a file" in refused("generate", "red", "-o", name, "--force")
    assert Path("pipe.png").is_fifo() and Path("link.png").is_symlink()


@pytest.mark.parametrize(
    "arguments",
    [
        ("world", "sheet", "pipe.png", "--kind", "glasses", "--rows", "1"),
        ("world", "sample", ".", "--kind", "glasses"),
        ("bench", "quality", "--json", "pipe.png"),
        ("bench", "compare", "kid.png", "kid.png", "--json", "pipe.png"),
        ("train", "compact", "kid.png", "-o", "pipe.png"),
        ("train", "lora", "--config", "lora.toml", "-o", "."),
        ("examples", "pipes"),
    ],
)
def test_no_command_replaces_a_pipe(folder, arguments):
    Path("pipes").mkdir()
    pipes = [Path(name) for name in ("pipe.png", "00000_mask.png", "state.pt", "pipes/kid.png")]
    for pipe in pipes:
        os.mkfifo(pipe)
    done = call(*arguments, "--force")
    assert done.exit_code == 1 and "a device, pipe or socket, not a file" in done.stderr
    assert all(pipe.is_fifo() for pipe in pipes)


def test_names_below_a_file_and_names_without_ending_are_told(folder):
    os.symlink("nowhere", "gone")
    for name, above in (("kid.png/x.png", "kid.png"), ("kid.png/a/x.png", "kid.png"), ("gone/x.png", "gone")):
        said = refused("edit", "kid.png", "red", "-o", name)
        assert said == f"error: {name}: {above} is a file, not a folder; choose another name\n"
    said = refused("edit", "kid.png", "red", "-o", "a34")
    assert "a34: there is no folder of this name; end the name in .png, .jpg or .webp" in said
    assert "the folder new does not exist" in refused("edit", "kid.png", "red", "-o", "new/x.png")


@pytest.mark.parametrize("twin", ["a.png", "A.PNG", "./a.png", "out/../a.png"])
def test_two_outputs_never_have_one_name(folder, twin):
    assert "two outputs" in refused("edit", "kid.png", "red", "-o", "a.png", "--region", twin)


def test_a_file_that_appears_while_the_edit_runs_is_not_replaced(folder, monkeypatch):
    from kontext.engine import pipeline

    real = pipeline.sample

    def slow(*arguments, **more):
        for name in ("kid-edited.png", "given.png"):
            Path(name).write_bytes(b"somebody else's")
        return real(*arguments, **more)

    monkeypatch.setattr(pipeline, "sample", slow)
    assert "kid-edited-2.png" in call("edit", "kid.png", "red", *TINY).stdout
    os.remove("given.png")
    assert call("edit", "kid.png", "red", "-o", "given.png", *TINY).exit_code == 1
    assert Path("kid-edited.png").read_bytes() == Path("given.png").read_bytes() == b"somebody else's"


def test_one_rule_names_variants(folder):
    call("edit", "kid.png", "red", "--variants", 2, *TINY)
    call("edit", "kid.png", "red", "--variants", 2, "-o", "v.webp", *TINY)
    assert listing() == ["kid-edited-1.png", "kid-edited-2.png", "kid.png", "v-1.webp", "v-2.webp"]
    call("edit", "kid.png", "red", "--variants", 2, *TINY)
    assert {"kid-edited-3.png", "kid-edited-4.png"} <= set(listing())


def test_several_pictures_and_patterns(folder):
    for name in ("out/kid.png", "a.png", "b.png"):
        Path(name).write_bytes(Path("kid.png").read_bytes())
    done = call("edit", "[ab].png", "kid.png", "out/kid.png", "red", "-o", "out", "--json", *TINY)
    answers = json.loads(done.stdout)["pictures"]
    assert [answer["picture"] for answer in answers] == ["a.png", "b.png", "kid.png", "out/kid.png"]
    assert [Path(answer["output"]) for answer in answers] == [
        Path("out", name) for name in ("a-edited.png", "b-edited.png", "kid-edited.png", "kid-edited-2.png")
    ]
    assert call("edit", "a.png", "b.png", "red", *TINY).exit_code == 0
    assert {"a-edited.png", "b-edited.png"} <= set(listing())
    assert "need an existing folder" in refused("edit", "a.png", "b.png", "red", "-o", "c.png")
    assert "single picture" in refused("edit", "a.png", "b.png", "red", "--region", "c.png")
    assert "no file matches" in refused("edit", "x*.png", "red")
    assert 'in quotes: "Make it ..."' in refused("edit", "kid.png", "Make", "it", "blue")


def test_a_picture_with_several_names_is_edited_once(folder):
    os.symlink("kid.png", "link.png")
    names = ["kid.png", "./kid.png", "out/../kid.png", str(folder / "kid.png"), "k*.png", "link.png"]
    assert call("edit", *names, "red", *TINY).exit_code == 0
    assert listing() == ["kid-edited.png", "kid.png", "link.png"]


def test_the_bad_one_of_several_pictures_is_told_before_any_is_edited(folder):
    Path("bad.png").write_bytes(b"I am text")
    assert "bad.png" in refused("edit", "kid.png", "bad.png", "red")


def test_pictures_from_and_to_a_pipe(folder):
    data = Path("kid.png").read_bytes()
    done = call("edit", "-", "red", "--seed", 3, *TINY, input=data)
    picture = Image.open(io.BytesIO(done.stdout_bytes))
    assert done.exit_code == 0 and picture.format == "PNG" and "seed 3" in done.stderr
    assert [turn["prompt"] for turn in json.loads(picture.text["kontext"])["turns"]] == ["", "red"]
    call("edit", "kid.png", "red", "--seed", 3, "-o", "same.png", *TINY)
    assert np.array_equal(np.asarray(picture), np.asarray(Image.open("same.png")))
    done = call("generate", "a cat", "-o", "-", *TINY)
    assert Image.open(io.BytesIO(done.stdout_bytes)).format == "PNG"
    call("edit", "-", "red", "-o", "out", *TINY, input=data)
    assert listing("out") == ["stdin-edited.png"]
    for arguments, said in (
        (["edit", "-", "red", "--json"], "cannot both go"),
        (["generate", "red", "-o", "-", "--variants", "2"], "can have only one picture"),
        (["edit", "-", "-", "red", "-o", "out"], "give it once"),
        (["edit", "kid.png", "red", "--ref", "-"], "only the picture to edit"),
    ):
        assert said in refused(*arguments, input=data)
    assert "0 bytes" in refused("edit", "-", "red", "-o", "a.png", input=b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["edit", "https://example.org/a.png", "red"],
        ["edit", "kid.png", "red", "--ref", "http://example.org/a.png"],
        ["edit", "kid.png", "red", "--mask", "file:///a.png"],
        ["verify", "https://example.org/a.png"],
        ["chat", "https://example.org/a.png"],
    ],
    ids=" ".join,
)
def test_addresses_are_refused_in_words(folder, arguments):
    done = call(*arguments)
    assert done.exit_code == 1 and "a URL, not a file; download it first" in done.stderr


@pytest.mark.parametrize("option", ["-o", "--region", "--cutout"])
def test_names_that_are_too_long_are_told_before_the_weights_are_read(folder, option):
    assert "too long" in refused("edit", "kid.png", "red", option, "x" * 300 + ".png")
    longest = "x" * 251 + ".png"
    assert call("edit", "kid.png", "red", "-o", longest, *TINY).exit_code == 0 and Path(longest).exists()


def test_a_full_or_read_only_disk_is_told_in_words(folder, monkeypatch):
    import errno

    from kontext.pictures import writing

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def gone(path, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(writing.os, "fsync", full)
    assert "No space left" in refused("edit", "kid.png", "red", "-o", "a.png")
    monkeypatch.setattr(writing.Path, "unlink", gone)  # a read-only disk refuses the tidying too
    assert "b.png: cannot be written" in call("edit", "kid.png", "red", "-o", "b.png", *TINY).stderr


def test_arguments_are_checked_before_torch_is_imported(folder):
    """Without work that grows with the number: a million variants are rejected like 17."""
    code = "import sys, kontext.cli as c\ntry: c.app(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules)"
    edit = ["edit", "kid.png", "red"]
    for arguments in (
        [*edit, "--steps", "0"],
        [*edit, "--box", "1,2,3"],
        [*edit, "--box", "60,40,20,20"],
        [*edit, "--variants", "1000000000"],
        [*edit, "--guidance", "nan"],
        [*edit, "--seed", "-1"],
        [*edit, "--size", "1x1"],
        [*edit, "-o", "kid.png"],
        ["edit", "kid.png", " "],
        ["edit", "kid.png", "\udcff"],
        ["generate", ""],
        ["generate", "red", "--variants", "1000000000"],
        ["generate", "red", "--size", "match"],
    ):
        start = time.process_time()
        done = call(*arguments)
        assert done.exit_code == 1 and time.process_time() - start < 2, arguments
    done = subprocess.run(
        [sys.executable, "-c", code, *edit, "--steps", "0", "--ref", "kid.png"],
        capture_output=True,
        text=True,
    )
    assert "steps must be 1 to 200, got 0" in done.stderr and done.stdout == "False\n"


def test_generate_says_nothing_of_change_and_quiet_says_nothing(folder):
    done = call("generate", "a cat", *TINY)
    assert "generated.png" in done.stdout and "changed" not in done.stdout
    done = call("edit", "kid.png", "red", "-q", *TINY)
    assert done.stdout == "" and set(done.stderr.splitlines()) == {
        line for line in done.stderr.splitlines() if line.startswith("warning: ")
    }


def test_an_edit_that_changed_nothing_shows_the_warning_of_the_engine(folder, monkeypatch):
    from kontext.commands import output

    said = "nothing changed"
    real = output.Outputs.write

    def write(self, results):
        for result in results:
            object.__setattr__(result, "warnings", (said,))
        return real(self, results)

    monkeypatch.setattr(output.Outputs, "write", write)
    assert f"warning: {said}\n" in call("edit", "kid.png", "red", *TINY).stderr
    assert json.loads(call("edit", "kid.png", "red", "--json", *TINY).stdout)["warnings"] == [said]


def test_examples_are_the_files_of_the_readme(folder):
    os.remove("kid.png")
    done = call("examples")
    assert done.exit_code == 0
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    commands = readme[readme.index("kontext examples") : readme.index("Existing files are overwritten")]
    for name in re.findall(r"(?<![-\w])[\w/]+\.png\b|\bcatalogue/", commands):
        if name not in ("blue.png", "where.png", "new.png"):  # what the commands write
            assert Path(name).exists(), name
    assert call("examples").exit_code == 0  # nothing to do
    Path("kid.png").write_bytes(b"mine")
    assert "another file has this name" in call("examples").stderr
    assert Path("kid.png").read_bytes() == b"mine"
    assert (
        call("examples", "--force", "more/of/them").exit_code == 0 and Path("more/of/them/kid.png").exists()
    )


def test_models_lists_what_can_be_used_and_what_is_missing(folder):
    from kontext.checkpoint.model import load_model, save_model

    home = Path(os.environ["KONTEXT_HOME"]) / "models"
    home.mkdir(parents=True)
    save_model(load_model("tiny-random"), home / "mine")
    save_model(load_model("tiny-random"), "here")
    (home / "text.safetensors").write_bytes(b"I am text")
    Path("text.safetensors").write_bytes(b"I am text")
    rows = {row["name"]: row for row in json.loads(call("models", "--json").stdout)["models"]}
    offered = {"dev", "dev:fp8", "dev:q8", "dev:q4"}
    expected = {"nano", "nano-128", "tiny-random", "nano-random", "dev-random", "mine", "here"}
    assert set(rows) == expected | offered | {"text.safetensors"}
    assert {name for name, row in rows.items() if row["usable"]} == expected
    assert rows["nano"]["prompt_tokens"] == 64 and rows["mine"]["parameters"] > 0
    assert call("edit", "kid.png", "red", "--model", "mine").exit_code == 0
    shown = call("models").stdout
    assert "nano" in shown and "34 GB" in shown
    done = call("edit", "kid.png", "red", "--model", "dev")
    assert done.exit_code == 1 and "http://127.0.0.1:9 cannot be reached" in done.stderr


def test_model_device_and_home_come_from_the_environment(folder):
    done = call("edit", "kid.png", "red", env={"KONTEXT_MODEL": "none-of-this-name"})
    assert "no model 'none-of-this-name'" in done.stderr
    done = call("edit", "kid.png", "red", *TINY, env={"KONTEXT_DEVICE": "quantum"})
    assert "device 'quantum' is not known" in done.stderr
    for command in ("edit", "generate", "chat", "batch", "serve", "mcp", "bench quality"):
        shown = call(*command.split(), "--help").stdout
        assert "KONTEXT_MODEL" in shown and "KONTEXT_DEVICE" in shown, command
    for command in ("chat", "serve", "mcp", "keys list"):
        assert "KONTEXT_HOME" in call(*command.split(), "--help").stdout, command
    overview = call("--help").stdout
    for word in ("KONTEXT_MODEL", "KONTEXT_DEVICE", "KONTEXT_HOME", "Exit codes", "--install-completion"):
        assert word in overview
    assert "completion" not in call("bench", "--help").stdout


def test_completion_knows_commands_and_options(folder):
    def complete(line):
        words = {"_KONTEXT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        code = [sys.executable, "-m", "kontext"]
        return subprocess.run(
            code, env={**os.environ, **words}, capture_output=True, text=True
        ).stdout.split()

    assert {"edit", "examples", "models"} <= set(complete("kontext "))
    assert "--variants" in complete("kontext edit --va")
    assert "quality" in complete("kontext bench qua")


def test_a_reader_that_stops_and_a_full_device_end_quietly_or_in_one_line(folder):
    for shell, code, errors in (
        ("exec 3>&1; { %s --help; echo $? >&3; } | true", None, ""),
        ("%s models --json | true", 0, ""),
        ("%s --version > /dev/full", 1, "error: standard output: no space left on the disk\n"),
        ("%s --version >&-", 0, ""),
    ):
        if "/dev/full" in shell and not Path("/dev/full").exists():
            continue
        command = shell % f'"{sys.executable}" -m kontext'
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert done.stderr == errors and code in (None, done.returncode), command


def test_a_latin_1_terminal_gets_escapes_for_what_it_lacks(folder):
    done = subprocess.run(
        [sys.executable, "-m", "kontext", "edit", "没有.png".encode(), "red"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
    )
    assert done.returncode == 1 and done.stderr.startswith(
        b"error: \\u6ca1\\u6709.png: there is no such file"
    )
