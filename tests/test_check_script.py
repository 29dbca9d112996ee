"""`make check`: a tool that is not installed is named and skipped, a tool that finds something fails."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_tool_that_is_not_installed_is_named_and_skipped(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.run([script.Check("Fortran: lint", "no-such-tool", (), "npm install")]) == 0
    shown = capsys.readouterr().out
    assert shown == "skipped  Fortran: lint: no-such-tool is not installed (npm install)\n"


def test_what_a_tool_finds_is_shown_and_fails(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    failing = script.Check("Python: lint", "python3", ("-c", "print('line 1'); exit(1)"), "apt")
    passing = script.Check("Python: lint", "python3", ("-c", ""), "apt")
    assert script.run([passing, failing]) == 1
    shown = capsys.readouterr().out
    assert "passed   Python: lint" in shown and "failed   Python: lint" in shown and "line 1" in shown


def test_every_language_of_the_repository_is_checked(script: ModuleType) -> None:
    found = {check.name for check in script.CHECKS}
    assert {f"{language}: format" for language in ("Python", "C", "JavaScript")} <= found
    assert {"Python: types", "JavaScript: types", "C: warnings", "Python: lint", "JavaScript: lint"} <= found
    assert "src/kontext/kernels/avx2.c" in script.UNITS
