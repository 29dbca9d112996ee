"""The `kontext` command: a table of commands, each in a file of its own that is imported only when it is
called.

A file `commands/NAME.py` holds `app`, a typer app of one command (`kontext NAME ...`) or of several
(`kontext NAME SUB ...`). Commands whose file is not there are not shown. Errors of ours become one line and
exit code 1; wrong usage is exit code 2; a traceback is shown only when KONTEXT_DEBUG is set.
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
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from kontext import __version__
from kontext.failures import explain
from kontext.terminal import say, terminal_text

COMMANDS: dict[str, str] = {
    "edit": "Change pictures by a sentence.",
    "generate": "Make a picture from words.",
    "chat": "Edit one picture in many turns.",
    "batch": "Edit many pictures; resumable.",
    "examples": "Write pictures to try the other commands on.",
    "models": "List the models that can be used here.",
    "serve": "Start the playground and the HTTP API.",
    "keys": "Make and revoke keys of the HTTP API.",
    "mcp": "Serve edits to programs that speak the Model Context Protocol.",
    "verify": "Show how a picture was made.",
    "weights": "Inspect, convert and quantize weights.",
    "world": "Look at the illustrated training world.",
    "train": "Train the networks.",
    "bench": "Measure quality, drift and speed.",
}

VARIABLES: dict[str, str] = {
    "KONTEXT_MODEL": "The model, where --model is not given.",
    "KONTEXT_DEVICE": "cpu, cuda or mps, where --device is not given.",
    "KONTEXT_HOME": "The folder of sessions, keys and models; default: ~/.local/share/kontext.",
    "KONTEXT_DEBUG": "Set to 1 for a traceback with every error.",
}

EXIT_CODES: dict[str, str] = {
    "0": "Done.",
    "1": "Failed, with one line on stderr.",
    "2": "Wrong usage.",
    "130": "Stopped by Ctrl-C.",
}

INTERRUPTED = 130  # what a shell expects of a command stopped by Ctrl-C

# Wrong usage is told by the parser's own errors, which are a copy of click's in some versions of typer.
_USAGE = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class LazyCommands(TyperGroup):
    """The table above as a click group."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in COMMANDS if find_spec(f"kontext.commands.{name}") is not None]

    def get_command(self, ctx: Any, name: str) -> Any | None:
        if name not in self.list_commands(ctx):
            return None
        command = get_command(import_module(f"kontext.commands.{name}").app)
        command.name = name
        return command

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _errors_in_words():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _errors_in_words():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, rows in (
            ("Commands", {name: COMMANDS[name] for name in self.list_commands(ctx)}),
            ("Environment", VARIABLES),
            ("Exit codes", EXIT_CODES),
        ):
            with formatter.section(title):
                formatter.write_dl(list(rows.items()))


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """One line and an exit code for what goes wrong. Where the reader is gone (`| head`) the parser ends
    quietly.
    """
    try:
        yield
    except _USAGE as error:  # its message repeats what was typed
        error.message = terminal_text(error.message)
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
    """Say what to change in a picture; only that changes."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed (one line on stderr), 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="kontext")
    finally:
        _end_output()
        gc.freeze()  # else the interpreter looks at every object of PyTorch once more before it ends: 0.4 s


def _end_output() -> None:
    """Write what is buffered; where nobody reads it, or the disk is full, keep the interpreter from a second
    try and its complaint at exit.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
