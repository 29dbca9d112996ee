"""`kontext chat PICTURE`: many turns in a terminal. A line is a prompt, or a command that begins with a
slash.

Every turn is on the disk before the next line is read; `kontext chat --session ID` goes on where it stopped.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kontext.commands import options
from kontext.errors import BadRequest, Busy, Cancelled, KontextError

if TYPE_CHECKING:
    from kontext.session import Session, Turn

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def chat(
    picture: Annotated[
        Path | None,
        typer.Argument(
            help="The picture, or session file, to begin with.", metavar="PICTURE", show_default=False
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="Go on with an earlier session, by id or name.", metavar="ID")
    ] = None,
    list_sessions: Annotated[bool, typer.Option("--list", help="List the sessions, and stop.")] = False,
    delete: Annotated[
        str | None, typer.Option(help="Delete a session with its pictures, and stop.", metavar="ID")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the sessions.", metavar="DIR")] = None,
    model: options.Model = "nano",
    device: options.Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object a line.")] = False,
) -> None:
    """Edit one picture in many turns: type what to change; /help lists the commands."""
    from kontext.session import Store, default_folder

    folder = data or default_folder()
    with Store(folder) as store:
        if list_sessions:
            for info in store.sessions():
                typer.echo(f"{info.id}  {info.turns:4} turns  {info.name}")
            return
        if delete is not None:
            store.delete(store.find(delete).id)
            typer.echo(f"deleted; {store.collect() / 2**20:.1f} MiB of pictures freed")
            return
        if (picture is None) == (session is None):
            raise BadRequest(
                "give a PICTURE to begin with, or --session ID to go on; --list shows the sessions"
            )
        found = store.find(session) if session is not None else start(store, picture)
        try:
            with options.progress():
                from kontext.engine import Editor

                editor = Editor.load(model, device=device)
        except BaseException:
            if session is None:
                store.delete(found.id)  # a conversation that never began
            raise
        found.editor = editor
        Chat(found, _answer_json if as_json else _answer_words).run(_lines(folder))


def start(store: Any, path: Any) -> Session:
    """A session on a picture file; a PNG of ours and a session file bring their turns along.

    Raises NotFound, BadPicture, and BadRequest for a damaged session file.
    """
    from kontext.engine import pictures
    from kontext.errors import BadPicture
    from kontext.session import archive

    if zipfile.is_zipfile(path):
        return archive.load(store, path)
    pictures.load(path)
    try:
        return store.restore(path)
    except (BadRequest, BadPicture):  # without a history of ours: a picture like any other
        return store.create(path)


class Chat:
    """The conversation: lines in, answers out. `answer(text, facts)` tells the person one thing."""

    def __init__(self, session: Session, answer: Callable[[str, dict[str, Any]], None]) -> None:
        self.session, self.answer = session, answer
        self.settings: dict[str, Any] = {}
        self.commands = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def run(self, lines: Iterable[str]) -> None:
        """Until /quit or the end of the lines. What goes wrong is told, and the conversation goes on."""
        self.tell_turn(self.session.current, f"session {self.session.id}, ")
        for line in lines:
            try:
                if self.take(line.strip()) == "quit":
                    break
            except Busy as error:
                self.session.reload()
                self.answer(f"{error}; reloaded, try again", {"error": str(error)})
            except KeyboardInterrupt:
                self.answer("stopped; nothing was kept of it", {"error": "stopped"})
            except (KontextError, Cancelled) as error:
                self.answer(f"error: {error}", {"error": str(error)})

    def take(self, line: str) -> str | None:
        """One line. Raises KontextError."""
        if not line:
            return None
        if not line.startswith("/"):
            with options.progress() as on_step:
                turn = self.session.edit(line, on_step=on_step, **self.settings)
            self.tell_turn(turn)
            self.prefill()
            return None
        name, _, rest = line[1:].partition(" ")
        if name not in self.commands:
            raise BadRequest(f"there is no /{name}; /help lists the commands")
        return self.commands[name](rest.strip())

    def prefill(self) -> None:
        """Compute what the next turn needs while the person looks at this one."""
        if hasattr(self.session.editor, "prefill"):
            self.session.editor.prefill(self.session.picture, background=True)

    def tell_turn(self, turn: Turn, before: str = "") -> None:
        facts = {"turn": turn.number, "session": self.session.id, "prompt": turn.prompt, "seed": turn.seed}
        facts |= {"parent": parent.number if (parent := self.session.tree.parent(turn)) else None}
        facts |= {key: turn.facts.get(key) for key in ("size", "steps", "changed_fraction", "warnings")}
        words = [f"{turn.size[0]}x{turn.size[1]}"]
        if turn.seed is not None:
            words.append(f"seed {turn.seed}")
        if turn.facts.get("changed_fraction") is not None:
            words.append(f"{turn.facts['changed_fraction']:.0%} changed")
        if seconds := turn.facts.get("seconds", {}).get("total"):
            words.append(f"{seconds:.1f} s")
        warned = "".join(f"\nwarning: {warning}" for warning in turn.facts.get("warnings", ()))
        self.answer(
            f"{before}turn {turn.number}: {turn.prompt or self.session.name}  ({', '.join(words)}){warned}",
            facts,
        )

    # The commands; the first line of each says what it does, in /help.

    def do_undo(self, rest: str) -> None:
        """/undo               back to the turn this one was made from"""
        self.tell_turn(self.session.undo())

    def do_redo(self, rest: str) -> None:
        """/redo               forward again"""
        self.tell_turn(self.session.redo())

    def do_goto(self, rest: str) -> None:
        """/goto N             go to turn N; what you type next begins there"""
        self.tell_turn(self.session.goto(_whole(rest, "/goto 3")))

    def do_branch(self, rest: str) -> None:
        """/branch [N]         another try from turn N (default: from where this turn began)"""
        self.tell_turn(self.session.branch(_whole(rest, "/branch 3") if rest else None))

    def do_variants(self, rest: str) -> None:
        """/variants N [TEXT]  N results side by side: of this turn's prompt, or of TEXT from here"""
        count, _, prompt = rest.partition(" ")
        number = _whole(count, "/variants 4")
        with options.progress() as on_step:
            made = self.session.variants(number, prompt.strip() or None, on_step=on_step, **self.settings)
        for turn in made:
            self.tell_turn(turn)

    def do_delete(self, rest: str) -> None:
        """/delete N           delete turn N with everything made from it"""
        gone = self.session.delete(_whole(rest, "/delete 3"))
        self.answer(f"deleted {len(gone)} turns", {"deleted": [turn.number for turn in gone]})
        self.tell_turn(self.session.current)

    def do_rename(self, rest: str) -> None:
        """/rename TEXT        name this turn"""
        self.session.rename(rest, self.session.current)
        self.answer(f"turn {self.session.current.number} is called {rest!r}", {"name": rest})

    def do_seed(self, rest: str) -> None:
        """/seed N | /seed     use seed N from now on; without N a new one each time"""
        self._set("seed", _whole(rest, "/seed 7") if rest else None)

    def do_steps(self, rest: str) -> None:
        """/steps N | /steps   use N steps from now on; without N the model's own"""
        self._set("steps", _whole(rest, "/steps 8") if rest else None)

    def do_guidance(self, rest: str) -> None:
        """/guidance G         how strictly to follow the prompt; without G the model's own"""
        try:
            self._set("guidance", float(rest) if rest else None)
        except ValueError:
            raise BadRequest(f"{rest!r} is no number; such as /guidance 2.5") from None

    def do_box(self, rest: str) -> None:
        """/box X,Y,W,H        edit only there from now on; without a box anywhere"""
        self._set("box", options.parse_box(rest or None))

    def do_turns(self, rest: str) -> None:
        """/turns              all turns, as a tree; * is where you are"""
        tree, current = self.session.tree, self.session.current
        depth: dict[str | None, int] = {None: 0}
        below: dict[str | None, list[Turn]] = {}
        for turn in self.session.turns:
            below.setdefault(turn.parent_id, []).append(turn)
        lines, ahead = [], list(below[None])
        while ahead:  # depth first, without recursion: a session may be a thousand turns deep
            turn = ahead.pop()
            ahead += reversed(below.get(turn.id, []))
            forks = turn.parent_id is not None and len(below[turn.parent_id]) > 1
            depth[turn.id] = depth[turn.parent_id] + forks
            named = f"  ({turn.name})" if turn.name else ""
            start = f"{'*' if turn.id == current.id else ' '}{turn.number:4} {'  ' * depth[turn.id]}"
            lines.append(f"{start}{turn.prompt or self.session.name}{named}")
        rows = [
            dict(turn=turn.number, parent=parent.number if parent else None, prompt=turn.prompt)
            for turn in self.session.turns
            for parent in [tree.parent(turn)]
        ]
        self.answer("\n".join(lines), {"turns": rows, "current": current.number})

    def do_save(self, rest: str) -> None:
        """/save FILE          write this turn as .png (with its history), .jpg or .webp"""
        if not rest:
            raise BadRequest("say where to: /save kid.png")
        path = self.session.save(Path(rest).expanduser(), identity=_identity(rest))
        self.answer(f"saved {path}", {"saved": str(path)})

    def do_export(self, rest: str) -> None:
        """/export FILE        write the whole session to one file; kontext chat FILE opens it"""
        from kontext.session import archive

        if not rest:
            raise BadRequest("say where to: /export kid.zip")
        path = archive.save(self.session, Path(rest).expanduser())
        self.answer(f"exported {path}", {"exported": str(path)})

    def do_open(self, rest: str) -> None:
        """/open [FILE]        look at this turn; with FILE begin a new session on that picture"""
        if rest:
            self.session, editor = start(self.session.store, Path(rest).expanduser()), self.session.editor
            self.session.editor = editor
            self.tell_turn(self.session.current, f"session {self.session.id}, ")
            return
        import tempfile

        path = Path(tempfile.gettempdir()) / f"kontext-{self.session.id}-{self.session.current.number}.png"
        self.session.save(path)
        typer.launch(str(path))
        self.answer(f"opened {path}", {"opened": str(path)})

    def do_help(self, rest: str) -> None:
        """/help               this list"""
        lines = [command.__doc__.splitlines()[0] for command in self.commands.values()]
        self.answer("Type what to change, or:\n  " + "\n  ".join(lines), {"commands": sorted(self.commands)})

    def do_quit(self, rest: str) -> str:
        """/quit               stop; kontext chat --session ID goes on"""
        self.answer(f"go on with: kontext chat --session {self.session.id}", {"session": self.session.id})
        return "quit"

    def _set(self, name: str, value: Any) -> None:
        self.settings.pop(name, None)
        if value is not None:
            self.settings[name] = value
        self.answer(f"{name}: {'the default' if value is None else value}", {name: value})


def _identity(path: str) -> Any:
    """What PNG files are signed with, where the extra `provenance` is installed."""
    from importlib.util import find_spec

    if not path.lower().endswith(".png") or not (find_spec("c2pa") and find_spec("cryptography")):
        return None
    from kontext.session.signing import own_identity

    return own_identity()


def _whole(text: str, example: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"{text!r} is no whole number; such as {example}") from None


def _answer_words(text: str, facts: dict[str, Any]) -> None:
    typer.echo(text)


def _answer_json(text: str, facts: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(facts, ensure_ascii=False))


def _lines(folder: Path) -> Iterator[str]:
    """Lines from a pipe as they come; from a person with a prompt, editing and a history that is kept."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    readline, history = _readline(), folder / "chat-history"
    if readline and history.exists():
        readline.read_history_file(history)
    while True:
        try:
            line = input("> ")
        except EOFError:
            typer.echo()
            yield "/quit"
            return
        except KeyboardInterrupt:
            typer.echo("  (/quit stops)")
            continue
        if readline:
            readline.write_history_file(history)
        yield line


def _readline() -> Any:
    """Line editing, where this Python has it."""
    try:
        import readline
    except ImportError:
        return None
    readline.set_history_length(1000)
    return readline
