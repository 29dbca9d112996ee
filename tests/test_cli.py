"""The command line: what it prints, what it writes, its exit codes, and that it never shows a traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kontext import cli

TINY = ["--model", "tiny-random"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with one picture in it, and the command line standing there."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("kid.png")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def python(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "kontext", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_an_edit_with_products_in_fp8_says_so(folder):
    done = call("edit", "kid.png", "Make the hair blue", "--device", "cpu", "--fp8", "--json", *TINY)
    assert done.exit_code == 0 and json.loads(done.stdout)["fp8"] is True


def test_edit_prints_one_json_object_with_exactly_these_keys(folder):
    done = call("edit", "kid.png", "Make the hair blue", "-o", "out.png", "--seed", 5, "--json", *TINY)
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert set(answer) == {
        "output", "seed", "steps", "guidance", "size", "model", "changed_fraction", "evaluations", "seconds",
        "warnings",
    }  # fmt: skip
    assert set(answer["seconds"]) == {"load", "encode", "text", "sample", "decode", "total"}
    assert answer["output"] == "out.png" and answer["seed"] == 5 and answer["size"] == [70, 50]
    assert answer["seconds"]["total"] >= sum(
        answer["seconds"][k] for k in ("load", "encode", "text", "sample")
    )
    assert listing(folder) == ["kid.png", "out.png"]


def test_result_carries_prompt_seed_and_settings(folder):
    call("edit", "kid.png", "Make the hair blue", "-o", "out.png", "--seed", 5, "--steps", 3, *TINY)
    text = Image.open("out.png").text
    assert text["parameters"].startswith("Make the hair blue\nSteps: 3, ") and "Seed: 5" in text["parameters"]
    turn = json.loads(text["kontext"])["turns"][-1]
    assert turn["prompt"] == "Make the hair blue" and turn["seed"] == 5 and turn["settings"]["lock"] is True


def test_a_second_edit_goes_on_with_the_history_of_the_first(folder):
    call("edit", "kid.png", "Make the hair blue", "-o", "one.png", *TINY)
    call("edit", "one.png", "Put on a hat", "-o", "two.png", *TINY)
    turns = json.loads(Image.open("two.png").text["kontext"])["turns"]
    assert [turn["prompt"] for turn in turns] == ["", "Make the hair blue", "Put on a hat"]


def test_the_seed_that_is_told_makes_the_same_picture_again(folder):
    first = json.loads(call("edit", "kid.png", "red", "--no-lock", "-o", "a.png", "--json", *TINY).stdout)
    call("edit", "kid.png", "red", "--no-lock", "-o", "b.png", "--seed", first["seed"], *TINY)
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("b.png")))


def test_names_not_given_are_never_names_in_use(folder):
    for expected in ("kid-edited.png", "kid-edited-2.png", "kid-edited-3.png"):
        assert expected in call("edit", "kid.png", "red", *TINY).stdout
        assert (folder / expected).exists()


def test_variants_are_numbered_and_listed(folder):
    answer = json.loads(
        call("edit", "kid.png", "red", "-o", "v.webp", "--variants", 3, "--seed", 8, "--json", *TINY).stdout
    )
    assert [variant["seed"] for variant in answer["variants"]] == [8, 9, 10]
    assert listing(folder) == ["kid.png", "v-1.webp", "v-2.webp", "v-3.webp"]


def test_region_and_cutout_are_saved(folder):
    done = call("edit", "kid.png", "red", "-o", "o.png", "--region", "r.png", "--cutout", "c.png", *TINY)
    assert done.exit_code == 0
    region, cutout = Image.open("r.png"), Image.open("c.png")
    assert region.mode == "L" and region.size == (70, 50)
    assert cutout.mode == "RGBA" and np.array_equal(np.asarray(cutout)[..., 3], np.asarray(region))


def test_box_mask_markup_and_references_reach_the_editor(folder):
    Image.new("L", (70, 50), 255).save("mask.png")
    overlay = Image.new("RGBA", (70, 50))
    overlay.paste((255, 0, 0, 255), (10, 10, 30, 30))
    overlay.save("markup.png")
    done = call(
        "edit", "kid.png", "red", "-o", "o.png", "--box", "5,5,40,40", "--mask", "mask.png",
        "--markup", "markup.png", "--ref", "kid.png", "--ref", "kid.png", "--size", "40x40", "--json", *TINY,
    )  # fmt: skip
    assert done.exit_code == 0 and json.loads(done.stdout)["size"] == [40, 40]
    assert call("edit", "kid.png", "red", *["--ref", "kid.png"] * 4, *TINY).exit_code == 1


def test_generate_writes_a_picture_of_the_size_asked_for(folder):
    done = call("generate", "a cat in a garden", "-o", "cat.jpg", "--size", "48x32", "--json", *TINY)
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert Image.open("cat.jpg").size == (48, 32) == tuple(answer["size"]) and answer["changed_fraction"] == 1


def test_warnings_go_to_stderr_and_into_the_json(folder):
    arguments = ("edit", "kid.png", "red", "--size", "1:1", "--force", *TINY)
    done = call(*arguments)
    assert "warning: size 1:1 has another aspect ratio" in done.stderr and "warning" not in done.stdout
    (warning,) = json.loads(call(*arguments, "--json").stdout)["warnings"]
    assert warning.startswith("size 1:1 has another aspect ratio than the picture")


BOMB = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xc3P\x00\x00\xc3P\x08\x02\x00\x00\x00\x95\x03\xab\x12"
FILES = {
    "text.png": b"I am text",
    "empty.png": b"",
    "bomb.png": BOMB,
    "cut.png": None,
    "weights.pt": b"PK\x03\x04",
    "weights.safetensors": b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ["edit", "none.png", "red"],
        ["edit", "text.png", "red"],
        ["edit", "empty.png", "red"],
        ["edit", "bomb.png", "red"],
        ["edit", "cut.png", "red"],
        ["edit", ".", "red"],
        ["edit", "kid.png", ""],
        ["edit", "kid.png", "very " * 200],
        ["edit", "kid.png", "red", "--size", "1x1"],
        ["edit", "kid.png", "red", "--size", "20000x20000"],
        ["edit", "kid.png", "red", "--size", "big"],
        ["edit", "kid.png", "red", "--box", "60,40,20,20"],
        ["edit", "kid.png", "red", "--box", "1,2,3"],
        ["edit", "kid.png", "red", "--mask", "text.png"],
        ["edit", "kid.png", "red", "--mask", "none.png"],
        ["edit", "kid.png", "red", "--steps", "0"],
        ["edit", "kid.png", "red", "--guidance", "99"],
        ["edit", "kid.png", "red", "--seed", "-4"],
        ["edit", "kid.png", "red", "--variants", "99"],
        ["edit", "kid.png", "red", "--variants", "0"],
        ["edit", "kid.png", "red", "-o", "out.gif"],
        ["edit", "kid.png", "red", "-o", "none/out.png"],
        ["edit", "kid.png", "red", "--region", "none/out.png"],
        ["edit", "kid.png", "red", "--region", "r.png", "--no-lock"],
        ["edit", "kid.png", "red", "--region", "r.png", "--variants", "2"],
        ["edit", "kid.png", "red", "--device", "quantum"],
        ["edit", "kid.png", "red", "--model", "none"],
        ["edit", "kid.png", "red", "--model", "weights.pt"],
        ["edit", "kid.png", "red", "--model", "weights.safetensors"],
        ["generate", ""],
        ["generate", "a cat", "--size", "match"],
        ["generate", "a cat", "--ref", "text.png"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_exit_1_and_nothing_written(folder, arguments):
    for name, data in FILES.items():
        Path(name).write_bytes(Path("kid.png").read_bytes()[:2000] if data is None else data)
    before = listing(folder)
    if "--model" not in arguments:
        arguments = [*arguments, *TINY]
    done = call(*arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr) and "unexpected" not in done.stderr
    assert listing(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [["edit"], ["edit", "kid.png"], ["edit", "kid.png", "red", "--seed", "x"], ["none"], ["edit", "--none"]],
)
def test_wrong_usage_is_exit_2(folder, arguments):
    done = call(*arguments)
    assert done.exit_code == 2 and "Traceback" not in done.stderr


def test_a_defect_of_ours_is_one_line_too_and_a_traceback_on_demand(folder, monkeypatch):
    from kontext import pictures

    def broken(*_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(pictures, "load", broken)
    done = call("edit", "kid.png", "red", *TINY)
    assert done.exit_code == 1 and done.stderr.startswith("error: unexpected ZeroDivisionError")
    monkeypatch.setenv("KONTEXT_DEBUG", "1")
    assert isinstance(call("edit", "kid.png", "red", *TINY).exception, ZeroDivisionError)


def test_every_command_shown_has_help(folder):
    shown = cli.LazyCommands(name="kontext").list_commands(None)
    assert {"edit", "generate"} <= set(shown) <= set(cli.COMMANDS)
    overview = call("--help")
    for name in shown:
        assert re.search(rf"^\s+{name}\s", overview.stdout, re.MULTILINE)
        done = call(name, "--help")
        assert done.exit_code == 0 and "Usage" in done.stdout


def test_help_imports_no_heavy_library_and_no_command():
    code = (
        "import sys, kontext.cli as c\ntry: c.app(['--help'], prog_name='kontext')\nexcept SystemExit: pass\n"
    )
    code += "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'PIL', 'numpy', 'rich')"
    code += " or m.startswith('kontext.commands.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_answers_in_three_tenths_of_a_second():
    """Of processor time, so that a busy machine does not decide."""
    with python("--help") as process:
        process.communicate()
    before = os.times()
    with python("--help") as process:
        process.communicate()
    after = os.times()
    assert process.returncode == 0
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    assert spent < 0.3


def test_expand_keeps_the_picture_inside_its_new_border(folder):
    done = call("edit", "kid.png", "go on", "--expand", "8,0,8,0", "--steps", 1, "--json", *TINY)
    before, after = Image.open("kid.png"), Image.open("kid-edited.png")
    assert json.loads(done.stdout)["size"] == [before.width + 16, before.height]
    inside = after.crop((8, 0, 8 + before.width, before.height))
    assert inside.tobytes() == before.convert("RGB").tobytes()
    wrong = call("edit", "kid.png", "go on", "--expand", "wide", *TINY)
    assert wrong.exit_code == 1 and wrong.stderr.startswith("error: expand 'wide' is invalid")


def test_interrupt_leaves_nothing_half_written(folder, monkeypatch):
    from kontext.engine import pipeline

    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "sample", pressed)
    done = call("edit", "kid.png", "red", *TINY)
    assert done.exit_code == 130 and done.stderr == "error: stopped; nothing was written\n"
    assert listing(folder) == ["kid.png"]


def test_version():
    assert call("--version").stdout.startswith("kontext ")
