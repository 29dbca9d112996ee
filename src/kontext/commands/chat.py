"""`kontext chat PICTURE`: edit over many turns in a terminal. Lines are prompts or /commands.

Every turn is stored before the next line is read; `kontext chat --session ID` resumes a session.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kontext.commands import chat_options, options
from kontext.errors import BadRequest, Busy, Cancelled, KontextError
from kontext.terminal import say, say_json

if TYPE_CHECKING:
    from kontext.session import Session, Store, Turn
    from kontext.session.signing import Identity

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def chat(
    picture: Annotated[
        Path | None,
        typer.Argument(
            help="The picture or session file to start with.", metavar="PICTURE", show_default=False
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="Resume a session, by id or name.", metavar="ID")
    ] = None,
    list_sessions: Annotated[bool, typer.Option("--list", help="List the sessions and exit.")] = False,
    delete: Annotated[
        str | None, typer.Option(help="Delete a session with its pictures and exit.", metavar="ID")
    ] = None,
    data: options.Data = None,
    model: options.Model = "nano",
    lora: options.Lora = None,
    device: options.Device = None,
    memory: options.Memory = None,
    fp8: options.Fp8 = False,
    compile: options.Compile = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Edit one picture over many turns. Type what to change; /help lists the commands."""
    from kontext.commands.inputs import check_file_name
    from kontext.engine.checks import check_settings
    from kontext.session import Store, default_folder

    folder = data or default_folder()
    with Store(folder) as store:
        if list_sessions:
            for info in store.sessions():
                say(f"{info.id}  {info.turns:4} turns  {info.name}")
            return
        if delete is not None:
            store.delete(store.find(delete).id)
            say(f"deleted; {store.collect() / 2**20:.1f} MiB of pictures freed")
            return
        if (picture is None) == (session is None):
            raise BadRequest(
                "give a PICTURE to start with, or --session ID to resume; --list shows the sessions"
            )
        if picture is not None:
            check_file_name(str(picture))
        if lora:
            check_settings("any", {"loras": lora})
        if picture is not None:
            found = start(store, picture)
        else:
            found = store.find(session or "")
        try:
            options.download_model(model)
            with options.progress():
                from kontext.engine import Editor

                editor = Editor.load(model, device=device, memory=memory, fp8=fp8, compile=compile)
        except BaseException:
            if session is None:
                store.delete(found.id)  # nothing was added to the new session
            raise
        found.editor = editor
        conversation = Chat(found, _answer_json if as_json else _answer_words)
        if lora:
            conversation.settings["loras"] = list(lora)
        conversation.run(_lines(folder))


def start(store: Store, path: str | Path) -> Session:
    """A session on a picture file; a session file or a PNG with a history restores its turns.

    Raises NotFound, BadPicture, and BadRequest for a damaged session file.
    """
    from kontext import pictures
    from kontext.errors import BadPicture
    from kontext.session import archive

    if Path(path).is_file() and zipfile.is_zipfile(path):
        return archive.load(store, path)
    pictures.load(path)
    try:
        return store.restore(path)
    except (BadRequest, BadPicture):  # without a history
        return store.create(path)


class Chat:
    """The conversation of a session.

    `answer(text, result_info)` prints an answer of one or several lines, or its fields as JSON.
    """

    def __init__(
        self, session: Session, answer: Callable[[str | Sequence[str], dict[str, object]], None]
    ) -> None:
        self.session, self.answer = session, answer
        self.settings: dict[str, Any] = {}
        self.written: set[Path] = set()
        self.commands: dict[str, Callable[..., str | None]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }
        self.commands |= {name: partial(self.set_option, name) for name in chat_options.COMMANDS}

    def run(self, lines: Iterable[str]) -> None:
        """Process lines until /quit or the end of the input. Errors are reported and do not end it."""
        self.print_turn(self.session.current, f"session {self.session.id}, ")
        for line in lines:
            try:
                if self.take(line.strip()) == "quit":
                    break
            except Busy as error:
                self.session.reload()
                self.answer(f"{error}; reloaded, try again", {"error": str(error)})
            except KeyboardInterrupt:
                self.answer("stopped; nothing was saved", {"error": "stopped"})
            except (KontextError, Cancelled) as error:
                self.answer(f"error: {error}", {"error": str(error)})

    def take(self, line: str) -> str | None:
        """Process one line. Raises KontextError."""
        from kontext.engine.requests import check_prompt

        if not line:
            return None
        if not line.startswith("/"):
            check_prompt(line)
            with options.progress() as on_step:
                turn = self.session.edit(line, on_step=on_step, **self.settings)
            self.print_turn(turn)
            self.prefill()
            return None
        name, _, rest = line[1:].partition(" ")
        if name in ("save!", "export!"):
            return self.commands[name[:-1]](rest.strip(), force=True)
        if name not in self.commands:
            raise BadRequest(f"there is no /{name}; /help lists the commands")
        return self.commands[name](rest.strip())

    def prefill(self) -> None:
        """Compute the context of the next turn while the user looks at this one."""
        editor = self.session.editor
        if editor is not None and hasattr(editor, "prefill"):
            editor.prefill(self.session.picture, background=True)

    def print_turn(self, turn: Turn, before: str = "") -> None:
        result_info = {
            "turn": turn.number,
            "session": self.session.id,
            "prompt": turn.prompt,
            "seed": turn.seed,
        }
        result_info |= {"parent": parent.number if (parent := self.session.tree.parent(turn)) else None}
        result_info |= {
            key: turn.result_info.get(key) for key in ("size", "steps", "changed_fraction", "warnings")
        }
        words = [f"{turn.size[0]}x{turn.size[1]}"]
        if turn.seed is not None:
            words.append(f"seed {turn.seed}")
        if turn.result_info.get("changed_fraction") is not None and turn.kind != "generate":
            words.append(f"{turn.result_info['changed_fraction']:.0%} changed")
        if seconds := turn.result_info.get("seconds", {}).get("total"):
            words.append(f"{seconds:.1f} s")
        self.answer(
            [
                f"{before}turn {turn.number}: {turn.prompt or self.session.name}  ({', '.join(words)})",
                *(f"warning: {warning}" for warning in turn.result_info.get("warnings", ())),
            ],
            result_info,
        )

    # The commands; /help prints their first lines.

    def do_undo(self, rest: str) -> None:
        """/undo               back to the turn this one was made from"""
        self.print_turn(self.session.undo())

    def do_redo(self, rest: str) -> None:
        """/redo forward to the turn undone last"""
        self.print_turn(self.session.redo())

    def do_goto(self, rest: str) -> None:
        """/goto N go to turn N; the next edit starts there"""
        self.print_turn(self.session.goto(_whole(rest, "/goto 3")))

    def do_branch(self, rest: str) -> None:
        """/branch [N] start another branch at turn N (default: the parent of this turn)"""
        self.print_turn(self.session.branch(_whole(rest, "/branch 3") if rest else None))

    def do_variants(self, rest: str) -> None:
        """/variants N [TEXT] N variants of this turn, or of TEXT from here"""
        count, _, prompt = rest.partition(" ")
        number = _whole(count, "/variants 4")
        with options.progress() as on_step:
            turns = self.session.variants(number, prompt.strip() or None, on_step=on_step, **self.settings)
        for turn in turns:
            self.print_turn(turn)

    def do_delete(self, rest: str) -> None:
        """/delete N delete turn N with all turns made from it"""
        deleted = self.session.delete(_whole(rest, "/delete 3"))
        self.answer(f"deleted {len(deleted)} turns", {"deleted": [turn.number for turn in deleted]})
        self.print_turn(self.session.current)

    def do_rename(self, rest: str) -> None:
        """/rename TEXT        name this turn"""
        self.session.rename(rest, self.session.current)
        self.answer(f"turn {self.session.current.number} is now named {rest!r}", {"name": rest})

    def set_option(self, name: str, rest: str) -> None:
        """Set an option for the following edits, or without a value reset it."""
        option = chat_options.COMMANDS[name]
        value = chat_options.parse(name, rest, self.settings.get(option.name), self.session.current.size)
        self.settings.pop(option.name, None)
        if value is not None:
            self.settings[option.name] = value
        self.answer(f"{option.name}: {'the default' if value is None else value}", {option.name: value})

    def do_turns(self, rest: str) -> None:
        """/turns show all turns as a tree; * marks the current one"""
        tree, current = self.session.tree, self.session.current
        below: dict[str | None, list[Turn]] = {}
        for turn in self.session.turns:
            below.setdefault(turn.parent_id, []).append(turn)
        lines = []
        ahead = [(turn, "", "") for turn in reversed(below[None])]
        while ahead:  # depth first without recursion: a session may have thousands of turns
            turn, here, under = ahead.pop()
            children = below.get(turn.id, [])
            for child in reversed(
                children
            ):  # a chain stays in its column, of several turns each opens its own
                if len(children) == 1:
                    ahead.append((child, under, under))
                elif child is children[-1]:
                    ahead.append((child, f"{under}`- ", f"{under}   "))
                else:
                    ahead.append((child, f"{under}|- ", f"{under}|  "))
            named = f"  ({turn.name})" if turn.name else ""
            mark = "*" if turn.id == current.id else " "
            lines.append(f"{mark}{turn.number:4} {here}{turn.prompt or self.session.name}{named}")
        rows = [
            dict(turn=turn.number, parent=parent.number if parent else None, prompt=turn.prompt)
            for turn in self.session.turns
            for parent in [tree.parent(turn)]
        ]
        self.answer(lines, {"turns": rows, "current": current.number})

    def do_save(self, rest: str, force: bool = False) -> None:
        """/save FILE          write this turn as .png (with its history), .jpg or .webp; /save! replaces"""
        path = self._target(rest, "save", f"{self._file_name()}-edited.png", force)
        self.session.save(path, identity=_identity(path))
        self.written.add(path)
        self.answer(f"saved {path}", {"saved": str(path)})

    def do_export(self, rest: str, force: bool = False) -> None:
        """/export FILE        write the session to a .zip, for kontext chat FILE; /export! replaces"""
        from kontext.session import archive

        path = self._target(rest, "export", f"{self._file_name()}.zip", force)
        if path.suffix.lower() != ".zip":
            raise BadRequest(f"{path}: a session is exported to a .zip; /save writes a picture")
        archive.save(self.session, path)
        self.written.add(path)
        self.answer(f"exported {path}", {"exported": str(path)})

    def _target(self, rest: str, command: str, example: str, force: bool) -> Path:
        """The file to write. An existing one must be from this conversation, unless `force` is set."""
        from kontext.commands.output import unused

        if not rest:
            raise BadRequest(f"give a file name: /{command} {unused(Path(example))}")
        path = Path(rest).expanduser()
        if os.path.lexists(path) and path not in self.written and not force:
            raise BadRequest(
                f"{path}: already exists; give another name, or /{command}! {rest} to replace it"
            )
        return path

    def _file_name(self) -> str:
        """The session's name as a file name."""
        return re.sub(r"[^\w.-]+", "-", self.session.name).strip("-.") or "picture"

    def do_open(self, rest: str) -> None:
        """/open [FILE] show this turn in a viewer; with FILE start a new session on it"""
        from kontext.commands.inputs import check_file_name
        from kontext.session import Store

        if rest:
            check_file_name(rest)
            store, editor = self.session.store, self.session.editor
            assert isinstance(store, Store)
            self.session = start(store, Path(rest).expanduser())
            self.session.editor = editor
            self.print_turn(self.session.current, f"session {self.session.id}, ")
            return
        import subprocess
        import tempfile

        path = Path(tempfile.gettempdir()) / f"kontext-{self.session.id}-{self.session.current.number}.png"
        self.session.save(path)
        try:
            failed = typer.launch(str(path))
        except (OSError, subprocess.SubprocessError):
            failed = 1
        if failed:
            raise BadRequest(f"no program to open pictures was found; the picture is saved as {path}")
        self.answer(f"opened {path}", {"opened": str(path)})

    def do_help(self, rest: str) -> None:
        """/help list the commands"""
        own = [name for name in self.commands if name not in chat_options.COMMANDS]
        lines = [(self.commands[name].__doc__ or "").splitlines()[0] for name in own]
        settings = [chat_options.help_line(name) for name in chat_options.COMMANDS]
        lines = [
            *("Type what to change, or:", *(f"  {line}" for line in lines)),
            *("Options of later edits; without a value they are reset:", *(f"  {line}" for line in settings)),
        ]
        self.answer(lines, {"commands": sorted(self.commands)})

    def do_quit(self, rest: str) -> str:
        """/quit exit; kontext chat --session ID resumes the session"""
        self.answer(f"resume with: kontext chat --session {self.session.id}", {"session": self.session.id})
        return "quit"


def _identity(path: Path) -> Identity | None:
    """The identity that signs PNG files, if the extra `provenance` is installed."""
    from importlib.util import find_spec

    if path.suffix.lower() != ".png" or not (find_spec("c2pa") and find_spec("cryptography")):
        return None
    from kontext.session.signing import own_identity

    return own_identity()


def _whole(text: str, example: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"{text!r} is not a whole number; such as {example}") from None


def _answer_words(text: str | Sequence[str], result_info: dict[str, Any]) -> None:
    say(*([text] if isinstance(text, str) else text))


def _answer_json(text: str | Sequence[str], result_info: dict[str, Any]) -> None:
    say_json(result_info)


def _lines(folder: Path) -> Iterator[str]:
    """Lines of a pipe, or typed lines with a prompt, line editing and a saved history."""
    if sys.stdin is None or sys.stdin.closed:
        return
    if not sys.stdin.isatty():
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="surrogateescape")  # rejected line by line
        yield from sys.stdin
        return
    readline, history = _readline(), folder / "chat-history"
    if readline:
        with suppress(OSError, UnicodeError):  # a missing or damaged history does not matter
            readline.read_history_file(history)
    while True:
        try:
            line = input("> ")
        except EOFError:
            say("")
            yield "/quit"
            return
        except KeyboardInterrupt:
            say("  (/quit exits)")
            continue
        if readline:
            with suppress(OSError, UnicodeError):
                readline.write_history_file(history)
        yield line


def _readline() -> Any:
    """The readline module, if this Python has it."""
    try:
        import readline
    except ImportError:
        return None
    readline.set_history_length(1000)
    return readline
