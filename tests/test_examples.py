"""What README and docs show works: its commands in order, its snippets and the scripts of examples/."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner

from kontext import cli
from kontext.session import Store
from support.serving import Running

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
OTHER_FILES = ("--model dev", "runs/knit")
"""Commands that need files the repository does not have."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example pictures."""
    folder = tmp_path_factory.mktemp("examples")
    done = CliRunner().invoke(cli.app, ["examples", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def fenced(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def readme_commands() -> Iterator[list[str]]:
    for block in fenced("README.md", ""):
        for line in block.splitlines():
            if line.startswith("kontext ") and not any(words in line for words in OTHER_FILES):
                yield shlex.split(line, comments=True)[1:]


def test_the_commands_of_the_readme_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KONTEXT_MODEL", raising=False)
    commands = list(readme_commands())
    assert len(commands) > 10
    for words in commands:
        done = CliRunner().invoke(cli.app, words, input="Make the hair red\n/undo\n/quit\n")
        assert done.exit_code == 0, f"kontext {shlex.join(words)}\n{done.output}"
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert {"blue.png", "kid-edited-2.png", "where.png", "new.png"} <= made
    assert len(list((tmp_path / "red").glob("*.png"))) == len(
        list((tmp_path / "catalogue").glob("*-edited.png"))
    )


def test_the_snippet_of_the_readme_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = fenced("README.md", "python")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert Image.open("blue.png").size == Image.open("kid.png").size
    session = names["session"]
    assert [turn.prompt for turn in session.turns] == [  # type: ignore[attr-defined]
        "",
        "Put on sunglasses",
        "Change the background to a beach",
    ]


def test_the_snippet_of_the_operations_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Store("DATA").create(Image.new("RGB", (32, 32)))
    for snippet in fenced("docs/operations.md", "python"):
        exec(compile(snippet, "operations.md", "exec"), {})
    assert capsys.readouterr().out == "[]\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "data").ready()
    yield running
    running.stop()


def test_the_snippet_and_the_call_of_the_http_page_run(folder: Path, server: Running) -> None:
    (snippet,) = fenced("docs/http.md", "python")
    (call,) = [line for block in fenced("docs/http.md", "") for line in block.splitlines() if "curl" in line]
    exec(
        compile(
            snippet.replace("http://127.0.0.1:8000", server.url).replace("kid.png", str(folder / "kid.png")),
            "http.md",
            "exec",
        ),
        {},
    )
    words = shlex.split(call.replace("localhost:8000", server.url))
    address = next(word for word in words if word.startswith("http"))
    fields = dict(word.split("=", 1) for word in words if "=" in word)
    picture = (folder / fields.pop("image").removeprefix("@")).read_bytes()
    answer = httpx.post(address, files={"image": picture}, data=fields, timeout=60, trust_env=False)
    assert answer.status_code == 200 and answer.json()["data"][0]["url"].startswith("http")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str, folder: Path, server: Running) -> None:
    arguments = {"demo.py": [str(folder / "demo")], "http_api.py": [str(folder / "kid.png"), server.url]}
    words = arguments.get(name, [str(folder / "kid.png")])
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    made = {"demo.py": "demo/stories.png", "http_api.py": "blue-1.png", "session.py": "night.png"}
    assert (folder / made[name]).is_file() and done.stdout
