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
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from kontext import __version__
from kontext.errors import KontextError

COMMANDS: dict[str, str] = {
    "edit": "Change a picture by a sentence.",
    "generate": "Make a picture from words.",
    "chat": "Edit one picture in many turns.",
    "batch": "Edit many pictures; resumable.",
    "serve": "Start the playground and the HTTP API.",
    "keys": "Make and revoke keys of the HTTP API.",
    "mcp": "Serve edits to programs that speak the Model Context Protocol.",
    "verify": "Tell how a picture was made.",
    "weights": "Inspect, convert and quantize weights.",
    "world": "Look at the illustrated training world.",
    "train": "Train the networks.",
    "bench": "Measure quality, drift and speed.",
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

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, *_USAGE):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("KONTEXT_DEBUG"):
                raise
            typer.echo("error: " + " ".join(_explain(error).split()), err=True)
            raise typer.Exit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1) from error

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


app = typer.Typer(
    cls=LazyCommands,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"kontext {__version__}")
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
        gc.freeze()  # else the interpreter looks at every object of PyTorch once more before it ends: 0.4 s


def _explain(error: BaseException) -> str:
    """The one line for what went wrong."""
    if isinstance(error, KontextError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped; nothing was written"
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller picture, fewer variants or a smaller model"
    return f"unexpected {type(error).__name__}: {error} (set KONTEXT_DEBUG=1 to see where)"
