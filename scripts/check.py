"""Every check that is not a test: linters, formatters, type checkers and the compiler's warnings.

`make check` runs it, and so does `make test`, in parallel to the tests. A check whose tool is not installed
is skipped and named; the others must pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NODE_TOOLS = ROOT / "node_modules/.bin"

C_FILES = tuple(
    path.relative_to(ROOT).as_posix()
    for folder in ("src/kontext/kernels", "tests/support")
    for path in sorted((ROOT / folder).glob("*.[ch]"))
)
UNITS = tuple(name for name in C_FILES if name.endswith(".c"))
PLAYGROUND = "src/kontext/playground"
WEB_FILES = (
    *(
        f"{PLAYGROUND}/*.js",
        f"{PLAYGROUND}/core/*.js",
        f"{PLAYGROUND}/elements/*.js",
        f"{PLAYGROUND}/css/*.css",
    ),
    *(f"{PLAYGROUND}/vendor/**/*.d.ts", "tests/playground/*.mjs", "*.json", "*.js"),
)


@dataclass(frozen=True)
class Check:
    """A command that fails if something is wrong."""

    name: str
    tool: str
    arguments: tuple[str, ...]
    source: str
    """How to get the tool."""


PIP, NPM = "pip install -e '.[test]'", "npm install"
CHECKS = (
    Check("Python: lint", "ruff", ("check", "."), PIP),
    Check("Python: format", "ruff", ("format", "--check", "."), PIP),
    Check("Python: types", "mypy", (), PIP),
    Check(
        "Python: types of a user's program",
        "pyright",
        ("--project", "tests/support", "--pythonpath", sys.executable),
        NPM,
    ),
    Check(
        "C: warnings",
        "cc",
        ("-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", "/dev/null", *UNITS),
        "a C compiler",
    ),
    Check("C: format", "clang-format", ("--dry-run", "-Werror", *C_FILES), PIP),
    Check("JavaScript: types", "tsc", ("--project", "."), NPM),
    Check("JavaScript: lint", "eslint", (".",), NPM),
    Check("JavaScript: format", "prettier", ("--check", "--log-level", "warn", *WEB_FILES), NPM),
)


def find(check: Check) -> str | None:
    """Path of the tool of a check: of node_modules, or of this environment or the system."""
    if check.source == NPM:
        folders = str(NODE_TOOLS)
    else:
        folders = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    return shutil.which(check.tool, path=folders)


def run(checks: Iterable[Check]) -> int:
    """Run checks and print a line for each. Returns how many failed."""
    failed = 0
    for check in checks:
        program = find(check)
        if program is None:
            print(f"skipped  {check.name}: {check.tool} is not installed ({check.source})", flush=True)
            continue
        start = time.monotonic()
        done = subprocess.run([program, *check.arguments], cwd=ROOT, capture_output=True, text=True)
        seconds = time.monotonic() - start
        failed += done.returncode != 0
        print(f"{'failed ' if done.returncode else 'passed '}  {check.name} ({seconds:.1f} s)", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if run(CHECKS) else 0)
