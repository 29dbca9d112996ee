"""The layers of README, "Architecture": a package imports only from the floors below its own."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent / "src" / "kontext"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    (
        *("failures", "home", "memory", "options", "precision", "prompt_expansion", "terminal", "threads"),
        *("settings_files", "values", "version"),
    ),
    ("loras", "pictures", "model", "flow", "world"),
    ("checkpoint", "kernels", "session"),
    ("engine",),
    ("bench", "batch", "mcp", "server"),
    ("train",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""Top-level packages and modules, lowest first. Neighbors on one floor do not import each other."""

PRODUCT = {"model", "flow", "checkpoint", "kernels", "engine", "session", "batch", "mcp", "server"}
RESEARCH = {"world", "bench", "train"}

WINGS, MOST_ENTRIES = ("server", "world"), 12
"""Packages that are divided into sub-packages, and the maximum number of entries at their top."""

MOST_LINES = 450
"""Of a source file, and of a test file."""


def _modules() -> dict[str, Path]:
    """Dotted name of every module of the package, and its file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ("kontext", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def imports_of(module: str, path: Path, known: dict[str, Path] = MODULES) -> list[tuple[str, int]]:
    """Modules of the package that a file imports, with line numbers; lazy and typing-only ones as well."""
    found = []
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = [*package[: len(package) - node.level + 1], *base]
            source = ".".join(base)
            names = [
                f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source
                for alias in node.names
            ]
        else:
            continue
        found += [(name, node.lineno) for name in names if name.split(".")[0] == "kontext"]
    return found


def top(module: str) -> str:
    """The top-level package of a module: `kontext.engine.editor` is in `engine`; `kontext` itself is ""."""
    return (module.split(".") + [""])[1]


FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}
IMPORTS = [
    (module, imported, line)
    for module, path in MODULES.items()
    for imported, line in imports_of(module, path)
]


def circles(arrows: Mapping[str, set[str]]) -> list[str]:
    """Nodes from which a path leads back to themselves."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(arrows.get(start, ()))
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead += arrows.get(node, ())
        return seen

    return [node for node in arrows if node in reachable(node)]


def _crossing() -> list[tuple[str, str, int]]:
    """Imports that leave their package: (module, package imported, line).

    `kontext` itself is the public face: it may import everything, and is imported by nothing (tested
    below).
    """
    return [
        (module, top(imported), line)
        for module, imported, line in IMPORTS
        if top(module) and top(imported) and top(module) != top(imported)
    ]


def test_every_package_has_a_floor() -> None:
    packages = {top(module) for module in MODULES} - {""}
    assert packages == set(FLOOR_OF), "add new packages to FLOORS and to the table of README"


def test_imports_point_down() -> None:
    wrong = [
        f"{module}:{line} imports {package}"
        for module, package, line in _crossing()
        if FLOOR_OF[package] >= FLOOR_OF[top(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_product_does_not_import_research() -> None:
    wrong = [
        f"{module}:{line} imports {package}"
        for module, package, line in _crossing()
        if top(module) in PRODUCT and package in RESEARCH
    ]
    assert not wrong, "\n".join(wrong)


def test_research_does_not_import_the_service() -> None:
    wrong = [
        f"{module}:{line} imports {package}"
        for module, package, line in _crossing()
        if top(module) in RESEARCH and package in {"session", "batch", "mcp", "server"}
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_form_no_circle() -> None:
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, package, _ in _crossing():
        arrows[top(module)].add(package)
    assert not circles(arrows)


def test_sub_packages_form_no_circle() -> None:
    """Inside of every package as well: `server/jobs/` must not need `server/service/`."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, imported, _ in IMPORTS:
        source, target = (".".join(name.split(".")[:3]) for name in (module, imported))
        if source != target and top(module) == top(imported):
            arrows[source].add(target)
    assert not circles(arrows)


def test_modules_form_no_circle() -> None:
    """Lazy imports and those for type checkers count."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, imported, _ in IMPORTS:
        if module != imported:
            arrows[module].add(imported)
    assert not circles(arrows)


def test_every_file_is_short() -> None:
    files = (*MODULES.values(), *TESTS.rglob("*.py"))
    lengths = {
        str(path.relative_to(TESTS.parent)): len(path.read_text("utf-8").splitlines()) for path in files
    }
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def test_large_packages_are_divided() -> None:
    for package in WINGS:
        entries = [path.name for path in (ROOT / package).iterdir() if path.name != "__pycache__"]
        assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_nothing_imports_the_public_face() -> None:
    wrong = [f"{module}:{line}" for module, imported, line in IMPORTS if imported == "kontext"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import kontext.engine.editor", "kontext.engine.editor"),
        ("from kontext.engine import editor", "kontext.engine.editor"),
        ("from kontext.engine import Editor", "kontext.engine"),
        ("from ..engine.editor import Editor", "kontext.engine.editor"),
        ("from .. import engine", "kontext.engine"),
        ("def later():\n    from kontext.engine import Editor", "kontext.engine"),
    ],
)
def test_every_form_of_import_is_found(tmp_path: Path, line: str, expected: str) -> None:
    file = tmp_path / "example.py"
    file.write_text(line)
    assert [name for name, _ in imports_of("kontext.model.example", file)] == [expected]
