"""`--lora` and its relatives on every command: the picture is that of the editor, and nothing is ignored."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kontext import Editor, cli
from kontext.checkpoint import load_model
from kontext.checkpoint.lora import write_lora
from kontext.session.provenance import read_chain

TINY = ["--model", "tiny-random"]
PROMPT, OPTIONS = "Make it red", ["--seed", "1", "--steps", "2"]


@pytest.fixture(scope="module")
def editor():
    return Editor.load("tiny-random")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a picture and a LoRA, and another one that the account knows by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path / "home"))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("kid.png")
    (tmp_path / "home" / "loras").mkdir(parents=True)
    transformer = load_model("tiny-random").transformer
    for path, seed in (("knit.safetensors", 1), ("home/loras/ink.safetensors", 2)):
        generator = torch.Generator().manual_seed(seed)
        rows, columns = transformer.img_in.weight.shape
        matrices = torch.randn(4, columns, generator=generator), torch.randn(rows, 4, generator=generator)
        write_lora(Path(path), {"img_in": matrices}, alpha=4)
    return tmp_path


def call(*arguments, **more):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], **more)


def succeeded(*arguments, **more):
    done = call(*arguments, **more)
    assert done.exit_code == 0, done.stderr
    return done


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def expected(editor, *loras, **options):
    result = editor.edit("kid.png", PROMPT, seed=1, steps=2, loras=loras, **options)
    return np.asarray(result.picture.convert("RGB"))


@pytest.fixture
def wanted(editor, folder):
    """The picture with both LoRAs, which is another one than without."""
    made = expected(editor, "knit.safetensors:0.5", folder / "home/loras/ink.safetensors")
    assert (made != expected(editor)).any()
    return made


LORAS = ["--lora", "knit.safetensors:0.5", "--lora", "ink"]


def test_edit(folder, wanted):
    succeeded("edit", "kid.png", PROMPT, *OPTIONS, *TINY, *LORAS, "-o", "out.png")
    assert np.array_equal(pixels("out.png"), wanted)
    entry = read_chain(Path("out.png"))[-1]
    assert [(lora["name"], lora["scale"]) for lora in entry.settings["loras"]] == [
        ("knit", 0.5),
        ("ink", 1.0),
    ]
    assert all(len(lora["sha256"]) == 64 for lora in entry.settings["loras"])
    assert str(folder) not in json.dumps(entry.settings)
    assert "knit" in succeeded("verify", "out.png").stdout
    succeeded("edit", "kid.png", PROMPT, *OPTIONS, *TINY, "-o", "plain.png")
    assert "loras" not in read_chain(Path("plain.png"))[-1].settings


def test_generate(folder, editor):
    succeeded("generate", PROMPT, *OPTIONS, *TINY, *LORAS, "-o", "out.png")
    result = editor.generate(
        PROMPT, seed=1, steps=2, loras=["knit.safetensors:0.5", folder / "home/loras/ink.safetensors"]
    )
    assert np.array_equal(pixels("out.png"), np.asarray(result.picture.convert("RGB")))


def test_batch_of_a_folder_and_of_a_table(folder, editor, wanted):
    Path("in").mkdir()
    os.link("kid.png", "in/kid.png")
    succeeded("batch", "in", PROMPT, *OPTIONS, *TINY, *LORAS, "-o", "out")
    assert np.array_equal(pixels("out/kid.png"), wanted)
    rows = [
        {
            "picture": "../kid.png",
            "output": "both.png",
            "loras": ["../knit.safetensors:0.5", {"name": "ink"}],
        },
        {"picture": "../kid.png", "output": "knit.png", "loras": "../knit.safetensors"},
        {"picture": "../kid.png", "output": "none.png"},
    ]
    Path("in/table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    succeeded("batch", "in/table.jsonl", PROMPT, *OPTIONS, *TINY, "-o", "rows")
    assert np.array_equal(pixels("rows/both.png"), wanted)
    assert np.array_equal(pixels("rows/knit.png"), expected(editor, "knit.safetensors"))
    assert np.array_equal(pixels("rows/none.png"), expected(editor))
    Path("in/table.csv").write_text("picture,loras\n../kid.png,../knit.safetensors:0.5|ink\n")
    succeeded("batch", "in/table.csv", PROMPT, *OPTIONS, *TINY, "-o", "csv")
    assert np.array_equal(pixels("csv/kid.png"), wanted)


def test_chat(folder, editor, wanted):
    lines = ["/seed 1", "/steps 2", PROMPT, "/save a.png", "/undo", "/lora", PROMPT, "/save b.png"]
    lines += ["/undo", "/lora knit.safetensors:0.5", "/lora ink", PROMPT, "/save c.png"]
    lines += ["/lora nothing", "/lora knit.safetensors:much", "/variants 1", "/save d.png", "/export s.zip"]
    done = succeeded("chat", "kid.png", *TINY, *LORAS, "--json", input="\n".join(lines))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["error"] for answer in answers if "error" in answer] == [
        "no LoRA named 'nothing'; known are ink",
        "LoRA 'knit.safetensors:much': give FILE or FILE:SCALE, such as knit.safetensors:0.8",
    ]
    assert np.array_equal(pixels("a.png"), wanted) and np.array_equal(pixels("c.png"), wanted)
    assert np.array_equal(pixels("b.png"), expected(editor))
    assert np.array_equal(pixels("d.png"), wanted)  # a variant of the turn, with its LoRAs and the seed
    assert str(folder) not in json.dumps([entry.settings for entry in read_chain(Path("d.png"))])
    succeeded("chat", "s.zip", *TINY, "--json", input="/undo")


@pytest.mark.parametrize("command", ["edit", "generate", "batch", "chat"])
@pytest.mark.parametrize(
    "lora, words",
    [
        ("absent.safetensors", "absent.safetensors: no such file"),
        ("absent", "no LoRA named 'absent'; known are ink"),
        ("ink:strong", "give FILE or FILE:SCALE"),
        ("ink:100", "scale of a LoRA must be -16 to 16, got 100"),
    ],
)
def test_mistakes_are_one_line_before_the_model_is_loaded(folder, command, lora, words, monkeypatch):
    monkeypatch.setattr(Editor, "load", None)
    subject = [PROMPT] if command == "generate" else ["kid.png"]
    subject += [PROMPT] if command in ("edit", "batch") else []
    Path("table.jsonl").write_text('{"picture": "kid.png"}')
    subject = ["table.jsonl", PROMPT, "-o", "out"] if command == "batch" else subject
    done = call(command, *subject, *TINY, "--lora", lora)
    assert done.exit_code == 1 and words in done.stderr and done.stderr.count("\n") == 1


def test_a_file_that_does_not_fit_the_model_is_one_line(folder):
    write_lora(Path("big.safetensors"), {"img_in": (torch.ones(2, 999), torch.ones(7, 2))}, alpha=2)
    done = call("edit", "kid.png", PROMPT, *TINY, "--lora", "big.safetensors")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert "big.safetensors: made for a model of another size" in done.stderr


def test_mcp(folder, editor, wanted):
    requests = [
        {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {
                "name": "edit",
                "arguments": {
                    "picture": str(folder / "kid.png"),
                    "prompt": PROMPT,
                    "seed": 1,
                    "steps": 2,
                    "save_to": str(folder / f"{number}.png"),
                    **arguments,
                },
            },
        }
        for number, arguments in enumerate([{"loras": ["ink"]}, {}, {"loras": ["absent"]}])
    ]
    command = [os.sys.executable, "-c", "from kontext.cli import main; main()", "mcp", *TINY]
    command += ["--lora", "knit.safetensors:0.5", "--loras", "home/loras"]
    import subprocess

    done = subprocess.run(
        command,
        input="\n".join(map(json.dumps, requests)) + "\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(os.sys.path)},
        timeout=120,
    )
    answers = [json.loads(line)["result"] for line in done.stdout.splitlines()]
    assert [bool(answer.get("isError")) for answer in answers] == [False, False, True], done.stderr
    assert np.abs(pixels("0.png").astype(int) - wanted).max() <= 1  # threads may differ
    only_knit = expected(editor, "knit.safetensors:0.5")
    assert np.abs(pixels("1.png").astype(int) - only_knit).max() <= 1
    assert "no LoRA named 'absent'; known are ink" in answers[2]["content"][0]["text"]
