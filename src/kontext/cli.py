"""The `kontext` command: a table of commands, each in its own file, which is imported on first use.

A file `commands/NAME.py` defines `app`, a typer app of one command (`kontext NAME ...`) or of several
(`kontext NAME SUB ...`). Commands without a file are hidden. A KontextError becomes one line and exit code 1;
a usage error is exit code 2; a traceback is shown only when KONTEXT_DEBUG is set.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command

from kontext.failures import explain
from kontext.terminal import say, terminal_text
from kontext.version import __version__

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

COMMANDS: dict[str, str] = {
    "edit": "Edit pictures by a text instruction.",
    "generate": "Generate a picture from text.",
    "chat": "Edit one picture over many turns.",
    "batch": "Edit many pictures; resumable.",
    "examples": "Write example pictures to try the other commands on.",
    "models": "List, download and remove models.",
    "serve": "Start the playground and the HTTP API.",
    "keys": "Create and revoke keys of the HTTP API.",
    "mcp": "Serve edits over the Model Context Protocol.",
    "verify": "Show how a picture was made.",
    "weights": "Inspect, convert and quantize weights.",
    "world": "Explore the illustrated training world.",
    "train": "Train the models.",
    "bench": "Measure quality, drift and speed.",
}

VARIABLES: dict[str, str] = {
    "KONTEXT_MODEL": "Default of --model.",
    "KONTEXT_DEVICE": "Default of --device: cpu, cuda or mps.",
    "KONTEXT_MEMORY": "Default of --memory.",
    "KONTEXT_FP8": "Default of --fp8.",
    "KONTEXT_COMPILE": "Default of --compile.",
    "KONTEXT_HOME": "The folder of sessions, keys and models; default: ~/.local/share/kontext.",
    "HF_HOME": "The folder of the hub's cache and token; default: ~/.cache/huggingface.",
    "HF_TOKEN": "The token for the hub; default: that of `hf auth login`.",
    "HF_ENDPOINT": "A mirror of the hub; default: https://huggingface.co.",
    "HF_HUB_OFFLINE": "Set to 1 to use only files that are already downloaded.",
    "KONTEXT_PROMPT_KEY": "The key of the endpoint given by --expand-prompt.",
    "KONTEXT_JUDGE_KEY": "The key of the vision model given by --judge.",
    "KONTEXT_CONFIG": "Default of --config of `kontext serve`, whose settings all have variables.",
    "KONTEXT_DATABASE": "Default of --database of `kontext serve` and `kontext keys`.",
    "KONTEXT_KERNELS": "The kernels in C to use, such as avx2; off: PyTorch.",
    "KONTEXT_DEBUG": "Set to 1 to show tracebacks.",
}

EXIT_CODES: dict[str, str] = {
    "0": "Success.",
    "1": "Failure, with one line on stderr.",
    "2": "Usage error.",
    "130": "Interrupted by Ctrl-C.",
}

INTERRUPTED = 130  # what a shell expects of a command stopped by Ctrl-C

# The base class of the parser's usage errors. Some versions of typer include a copy of click.
_USAGE_ERROR = next(
    kind
    for kind in typer.BadParameter.__mro__
    if issubclass(kind, Exception) and kind.__name__ == "ClickException"
)


class LazyCommands(TyperGroup):
    """The table above as a click group."""

    def list_commands(self, ctx: object) -> list[str]:
        return [name for name in COMMANDS if find_spec(f"kontext.commands.{name}") is not None]

    def get_command(self, ctx: object, name: str) -> Command | None:
        if name not in self.list_commands(ctx):
            return None
        command = get_command(import_module(f"kontext.commands.{name}").app)
        command.name = name
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: Any
    ) -> Context:
        with _one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Context) -> object:
        with _one_line_errors():
            return super().invoke(ctx)

    def format_commands(self, ctx: object, formatter: HelpFormatter) -> None:
        for title, rows in (
            ("Commands", {name: COMMANDS[name] for name in self.list_commands(ctx)}),
            ("Environment", VARIABLES),
            ("Exit codes", EXIT_CODES),
        ):
            with formatter.section(title):
                formatter.write_dl(list(rows.items()))


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn exceptions into one line and an exit code. A closed pipe (`| head`) ends quietly."""
    try:
        yield
    except _USAGE_ERROR as error:  # its message repeats what was typed
        usage_error = cast(typer.BadParameter, error)
        usage_error.message = terminal_text(usage_error.message)
        raise
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("KONTEXT_DEBUG"):
            raise
        say(f"error: {explain(error)}", err=True)
        raise typer.Exit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1) from error


app = typer.Typer(
    cls=LazyCommands,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)


def _show_version(value: bool) -> None:
    if value:
        say(f"kontext {__version__}")
        raise typer.Exit


@app.callback()
def kontext(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Edit pictures by text instructions; only what you ask for changes."""


def main() -> None:
    """Run the command line and exit with one of EXIT_CODES."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may contain characters the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="kontext")
    finally:
        _end_output()
        gc.freeze()  # otherwise a last collection visits every object of PyTorch, which takes 0.4 s


def _end_output() -> None:
    """Flush stdout. If that fails (closed pipe, full disk), prevent a second attempt at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
