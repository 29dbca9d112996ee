"""The documentation is part of the contract.

Generated pages are current, links resolve, command lines and snippets are valid.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from kontext import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/*.md"), *ROOT.glob("src/kontext/**/*.md")]
)
GENERATED = ("docs/cli.md", "docs/options.md", "docs/python.md", "docs/settings.md")
CONTRIBUTOR_PAGES = ("CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md", "tests/README.md")

_FENCE = re.compile(r"^(`{3,})(\S*)[^\n]*\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_SEPARATORS = {"|", ">", ">>", "<", "&&", "||", ";", "&"}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Fenced blocks of a page: language and text."""
    return [(match[2], match[3]) for match in _FENCE.finditer(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


# Generated pages


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_current(name: str) -> None:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec and spec.loader
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert set(generator.PAGES) == set(GENERATED)
    assert (ROOT / name).read_text(encoding="utf-8") == generator.PAGES[name](), f"run `make docs`: {name}"


# Links


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*$", prose(page), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        base = anchor = words.replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(target)
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            broken.append(f"{target} (no such heading)")
    assert not broken, broken


@pytest.mark.parametrize("name", CONTRIBUTOR_PAGES)
def test_files_named_in_contributor_pages_exist(name: str) -> None:
    """Paths in backticks exist below the repository, the package or the page; bare file names somewhere."""
    page = ROOT / name
    places = (ROOT, ROOT / "src" / "kontext", page.parent)
    files = {
        path.name
        for folder in ("src", "tests", "docs", "scripts", "examples")
        for path in (ROOT / folder).rglob("*.*")
    }
    text = re.sub(
        r"^\| `[\w/]+\.py`:[^|]*\|", "|", prose(page), flags=re.MULTILINE
    )  # files of other projects
    missing = []
    for path in _INLINE.findall(text):
        if re.fullmatch(r"[\w.-]+(/[\w.*-]+)+/?|\w+/", path):
            if not any(any(place.glob(path.rstrip("/"))) for place in places):
                missing.append(path)
        elif re.fullmatch(r"[\w-]+\.(py|md|toml|c|h|js)", path) and path not in files:
            missing.append(path)
    assert not missing, missing


@pytest.mark.parametrize("section", ["How an edit travels", "Reading the model next to BFL's code"])
def test_functions_named_in_the_architecture_exist(section: str) -> None:
    """In a row of these tables, each function or class is defined in one of the files named with it."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = text.split(f"## {section}\n")[1].split("\n## ")[0]
    missing, found = [], 0
    for row in re.findall(r"^\| (?!---)(.*) \|$", rows, re.MULTILINE):
        cells = row.split(" | ")
        ours = _INLINE.findall(" ".join(cells[1:3] if section.startswith("How") else cells[1:2]))
        files = [ROOT / "src" / "kontext" / name for name in ours if name.endswith(".py")]
        source = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
        for name in ours:
            if re.fullmatch(r"[A-Za-z_]+(\.[A-Za-z_]+)?", name) and not name.endswith(".py"):
                last = name.split(".")[-1]
                found += 1
                if not re.search(rf"^ *(def|class) {last}\b|^{last}\b.*=", source, re.MULTILINE):
                    missing.append(name)
    assert found > 15
    assert not missing, missing


# Command lines


def commands(page: Path) -> Iterator[list[str]]:
    """Calls of `kontext` in fenced blocks and in inline code, without the program's own name.

    Inline code with alternatives (`kontext train autoencoder|flow`) is not a command line; generated usage
    lines are left out.
    """
    if name_of(page) in GENERATED:
        return
    for language, text in blocks(page):
        if language in ("", "sh", "bash", "console"):
            for line in text.replace("\\\n", " ").splitlines():
                yield from _calls(line)
    for code in _INLINE.findall(prose(page)):
        if code.startswith("kontext ") and "|" not in code:
            yield from _calls(code)


def _calls(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError:  # not a command line
        return
    calls: list[list[str]] = [[]]
    for word in words:
        if word in _SEPARATORS:
            calls.append([])
        else:
            calls[-1].append(word)
    for call in calls:
        while call and re.fullmatch(r"\$|[A-Z_]+=.*", call[0]):
            call = call[1:]
        if call[:1] == ["kontext"]:
            yield call[1:]
        elif "kontext" in call and call[call.index("kontext") - 1] == "-m":
            yield call[call.index("kontext") + 1 :]


@functools.cache
def subcommand(path: tuple[str, ...]) -> Any:
    """The command of a path such as ("bench", "speed"), None if there is none; () is `kontext` itself."""
    if not path:
        return get_command(cli.app)
    group = subcommand(path[:-1])
    return group.get_command(group.context_class(group, info_name="kontext"), path[-1])


def check(words: list[str], whole: bool) -> str | None:
    """What is wrong with a call, None if nothing. `whole`: required arguments and values must be given."""
    command, path = subcommand(()), ()
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        path = (*path, words[0])
        command, words = subcommand(path), words[1:]
        if command is None:
            return f"no command {' '.join(path)!r}"
    context = command.context_class(command, info_name=" ".join(path))
    if any(word in ("--help", "--install-completion", "--version") for word in words):
        return None
    parser = command.make_parser(context)
    try:
        values, further, _ = parser.parse_args(list(words))
    except Exception as error:  # the parser's own classes differ between versions of typer
        if (
            not whole
            and words[-1:]
            and words[-1].startswith("-")
            and type(error).__name__ == "BadOptionUsage"
        ):
            return None  # text that names an option without a value
        return f"{type(error).__name__}: {getattr(error, 'message', error)}"
    if further and not hasattr(command, "get_command"):
        return f"unexpected {further}"
    required = [
        parameter.name
        for parameter in command.params
        if parameter.required and parameter.param_type_name == "argument"
    ]
    missing = [name for name in required if whole and not values.get(name)]
    return f"missing {missing}" if missing else None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_parse(page: Path) -> None:
    wrong = []
    for words in commands(page):
        problem = check(words, whole=False)
        if problem:
            wrong.append(f"kontext {shlex.join(words)}: {problem}")
    assert not wrong, "\n".join(wrong)


def test_command_lines_in_readme_are_complete() -> None:
    lines = [
        words
        for _, text in blocks(ROOT / "README.md")
        for line in text.splitlines()
        for words in _calls(line)
    ]
    assert len(lines) > 10
    assert not [shlex.join(words) for words in lines if check(words, whole=True)]


@pytest.mark.parametrize(
    "line",
    [
        "kontext edt a.png b",
        "kontext edit a.png b --colour red",
        "kontext edit a.png b -o",
        "kontext bench qualty",
        "cat a.png | kontext generate b --box 1,2,3,4",
        "torchrun -m kontext train flow --confg x",
    ],
)
def test_wrong_command_lines_are_found(line: str) -> None:
    (words,) = _calls(line)
    assert check(words, whole=True)


def test_every_route_is_documented() -> None:
    from kontext.server import create_app

    text = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    paths = create_app().openapi()["paths"]
    assert len(paths) > 40
    assert not [path for path in paths if path not in text]


# Python


SNIPPETS = [(page, text) for page in PAGES for language, text in blocks(page) if language in ("python", "py")]


@pytest.mark.parametrize(
    ("page", "text"), SNIPPETS, ids=lambda value: "" if isinstance(value, str) else name_of(value)
)
def test_python_snippets_compile_and_import_what_exists(page: Path, text: str) -> None:
    compile(text, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kontext":
            module = importlib.import_module(str(node.module))
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def test_there_is_something_to_check() -> None:
    assert {"README.md", "docs/training.md"} <= {name_of(page) for page in PAGES}
    assert SNIPPETS
    assert sum(1 for page in PAGES for _ in commands(page)) > 30
