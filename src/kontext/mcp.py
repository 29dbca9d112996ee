"""Model Context Protocol server over stdio with four tools: generate, edit, vary, history.

JSON-RPC 2.0, one message per line (specification 2025-11-25, and older versions with a handshake). Pictures
are given as paths; results are stored as turns of the sessions that `kontext chat` and the playground use.
"""

from __future__ import annotations

import base64
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from kontext.engine.requests import MAX_BATCH
from kontext.errors import BadRequest, KontextError
from kontext.options import Surface, offered, option
from kontext.session import Session, Store, Turn
from kontext.session.pixels import to_png
from kontext.version import __version__

log = logging.getLogger(__name__)

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
INSTRUCTIONS = """Edit pictures with text instructions; only what the instruction mentions changes.
Start with `edit` and the path of a picture, or with `generate`; both return a session.
Continue with `edit` and that session: each edit is a turn, based on the current one or on `turn`.
`vary` creates variants of a turn. `history` lists sessions and turns.
With `save_to` the result is also written to a file, which must not exist yet."""
SAVED = (".png", ".jpg", ".jpeg", ".webp")  # extensions of written files
VARIANTS, MAX_VARIANTS = 4, MAX_BATCH
PARSE_ERROR, INVALID, NO_METHOD, BAD_PARAMS, FAILED = -32700, -32600, -32601, -32602, -32603


def _schema(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _options(surface: Surface) -> dict[str, Any]:
    return {option.name_on(surface): option.json_schema() for option in offered(surface)}


PROMPT = {"type": "string", "description": "What to change, or what to generate."}
SESSION = {"type": "string", "description": "Id or name of a session, from an earlier result."}
TURN = {"type": "integer", "description": "Number of the turn to start from; default: the current one."}
PATH = {"type": "string", "description": "Path of a picture on this machine."}
SAVE_TO = {
    "type": "string",
    "description": "Path of a new file for the result: .png (with its history), .jpg or .webp. "
    "Several results are numbered: kid-1.png, kid-2.png.",
}

TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": (
        "Generate a picture from text, in a new session.",
        _schema(
            ("prompt",),
            prompt=PROMPT,
            **_options("mcp generate"),
            save_to=SAVE_TO,
        ),
    ),
    "edit": (
        "Edit a picture by text. Give `picture` to start a session, or `session` to continue one.",
        _schema(
            ("prompt",),
            prompt=PROMPT,
            picture=PATH,
            session=SESSION,
            turn=TURN,
            **_options("mcp edit"),
            save_to=SAVE_TO,
        ),
    ),
    "vary": (
        "Create variants of a turn with other seeds, as siblings.",
        _schema(
            ("session",),
            session=SESSION,
            turn=TURN,
            count={"type": "integer", "minimum": 1, "maximum": MAX_VARIANTS},
            seed=option("seed").json_schema(),
            save_to=SAVE_TO,
        ),
    ),
    "history": (
        "List the turns of a session, or all sessions if none is given.",
        _schema((), session=SESSION),
    ),
}


class Tools:
    """The tools on a store. `load` creates the editor on first use."""

    def __init__(self, store: Store, load: Callable[[], Any]) -> None:
        self.store, self._load = store, load

    @cached_property
    def editor(self) -> Any:
        return self._load()

    def generate(self, prompt: str, **settings: Any) -> list[Turn]:
        session = self.store.create(editor=self.editor, name=prompt[:60])
        try:
            return [session.generate(prompt, **settings)]
        except BaseException:
            self.store.delete(session.id)
            raise

    def edit(
        self, prompt: str, *, picture: str | None = None, session: str | None = None, **settings: Any
    ) -> list[Turn]:
        if (picture is None) == (session is None):
            raise BadRequest("give `picture` to start a session, or `session` to continue one")
        if picture is not None:
            return [self.store.create(picture, editor=self.editor).edit(prompt, **settings)]
        return [self._open(session or "").edit(prompt, **settings)]

    def vary(
        self, session: str, turn: int | None = None, count: int = VARIANTS, **settings: Any
    ) -> list[Turn]:
        found = self._open(session)
        if turn is not None:
            found.goto(turn)
        return found.variants(count, **settings)

    def history(self, session: str | None = None, **_: Any) -> dict[str, Any]:
        if session is None:
            keys = ("id", "name", "turns", "updated")
            return {"sessions": [{key: getattr(info, key) for key in keys} for info in self.store.sessions()]}
        found = self.store.find(session)
        return {
            "session": found.id,
            "current": found.current.number,
            "turns": [_described(found, turn) for turn in found.turns],
        }

    def _open(self, session: str) -> Session:
        return self.store.find(session, editor=self.editor)

    def call(
        self, name: str, arguments: dict[str, Any], on_step: Any, cancel: threading.Event
    ) -> dict[str, Any]:
        """Run a tool; returns its result in protocol format. Errors are returned as an error result."""
        _, schema = TOOLS[name]
        try:
            unknown = set(arguments) - set(schema["properties"])
            missing = set(schema["required"]) - set(arguments)
            if unknown or missing:
                word = (
                    f"unknown: {', '.join(sorted(unknown))}"
                    if unknown
                    else f"missing: {', '.join(sorted(missing))}"
                )
                raise BadRequest(f"arguments of {name}, {word}")
            known = {} if name == "history" else dict(on_step=on_step, cancel=cancel)
            options = dict(arguments)
            count = options.get("count", VARIANTS) if name == "vary" else 1
            files = _new_files(options.pop("save_to", None), count)
            outcome = getattr(self, name)(**options, **known)
            saved = [
                str(self.store.open(turn.session_id).save(file, turn)) for file, turn in zip(files, outcome)
            ]
        except (KontextError, TypeError, ValueError) as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
        if isinstance(outcome, dict):
            return {
                "content": [{"type": "text", "text": json.dumps(outcome, ensure_ascii=False)}],
                "structuredContent": outcome,
            }
        session = self.store.open(outcome[0].session_id)
        content = {"session": session.id, "turns": [_described(session, turn) for turn in outcome]}
        if saved:
            content["saved"] = saved
        images = [
            {
                "type": "image",
                "data": base64.b64encode(to_png(turn.picture)).decode(),
                "mimeType": "image/png",
            }
            for turn in outcome
        ]
        return {
            "content": [*images, {"type": "text", "text": json.dumps(content, ensure_ascii=False)}],
            "structuredContent": content,
        }


def _new_files(save_to: Any, count: Any) -> list[Path]:
    """Output paths of `count` results; empty without `save_to`. Raises BadRequest before any work is done."""
    if save_to is None:
        return []
    if not isinstance(save_to, str) or not save_to.strip() or "\x00" in save_to:
        raise BadRequest("save_to must be the path of a new file, such as kid-edited.png")
    path = Path(save_to).expanduser()
    if path.suffix.lower() not in SAVED:
        raise BadRequest(f"save_to must end with {', '.join(SAVED)}, got {path.name[:80]!r}")
    if not path.parent.is_dir():
        raise BadRequest(f"the folder {path.parent} does not exist")
    files = [path]
    if isinstance(count, int) and 1 < count <= MAX_VARIANTS:  # the tool itself rejects an invalid count
        files = [path.with_stem(f"{path.stem}-{place}") for place in range(1, count + 1)]
    for file in files:
        if file.exists():
            raise BadRequest(f"{file} already exists; choose another name")
    return files


def _described(session: Session, turn: Turn) -> dict[str, Any]:
    parent = session.tree.parent(turn)
    return {
        "turn": turn.number,
        "parent": parent and parent.number,
        "kind": turn.kind,
        "prompt": turn.prompt,
        "seed": turn.seed,
        "size": list(turn.size),
        "warnings": list(turn.result_info.get("warnings", ())),
    }


def _id_of(number: Any) -> str:
    """A JSON-RPC id as text; 1 and "1" are different ids."""
    return json.dumps(number, sort_keys=True)


class McpServer:
    """The JSON-RPC server. Requests run one at a time; cancellations are handled immediately."""

    def __init__(self, tools: Tools, send: Callable[[dict[str, Any]], None]) -> None:
        self.tools, self.send = tools, send
        self._work: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cancels: dict[str, threading.Event] = {}  # by id, for pending requests

    def serve(self, lines: Iterable[str]) -> None:
        """Serve until the input ends; pending requests are still answered."""
        worker = threading.Thread(target=self._run)
        worker.start()
        try:
            for line in lines:
                if line.strip():
                    self._take(line)
        finally:
            self._work.put(None)
            worker.join()

    def _take(self, line: str) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._fail(None, PARSE_ERROR, "the line is not valid JSON")
            return
        if (
            not isinstance(message, dict)
            or message.get("jsonrpc") != "2.0"
            or not isinstance(message.get("method"), str)
        ):
            if not (isinstance(message, dict) and ("result" in message or "error" in message)):
                self._fail(None, INVALID, "not a JSON-RPC 2.0 request")
            return
        params = message.get("params") or {}
        if message["method"] == "notifications/cancelled" and isinstance(params, dict):
            if event := self._cancels.get(_id_of(params.get("requestId"))):
                event.set()
        elif "id" in message:
            name = _id_of(message["id"])
            if name in self._cancels:
                self._fail(message["id"], INVALID, f"the id {name[:80]} is already used by a pending request")
                return
            self._cancels[name] = threading.Event()
            self._work.put(message)

    def _run(self) -> None:
        while (message := self._work.get()) is not None:
            number, params = message["id"], message.get("params") or {}
            name = _id_of(number)
            try:
                if not isinstance(params, dict):
                    raise ValueError("params must be an object")
                result = self._answer(message["method"], params, self._cancels[name])
                self.send({"jsonrpc": "2.0", "id": number, "result": result})
            except LookupError as error:
                self._fail(number, NO_METHOD, str(error.args[0]))
            except ValueError as error:
                self._fail(number, BAD_PARAMS, str(error))
            except Exception:
                log.exception("%s failed", message["method"])
                self._fail(number, FAILED, "internal error; see the log on stderr")
            finally:
                self._cancels.pop(name, None)

    def _answer(self, method: str, params: dict[str, Any], cancel: threading.Event) -> dict[str, Any]:
        if method == "initialize":
            requested = params.get("protocolVersion")
            return {
                "protocolVersion": requested if requested in VERSIONS else VERSIONS[-1],
                "capabilities": {"tools": {"listChanged": False}},
                "serverInfo": {"name": "kontext", "version": __version__},
                "instructions": INSTRUCTIONS,
            }
        if method == "ping":
            return {}
        if method == "tools/list":
            return {
                "tools": [
                    {"name": name, "description": text, "inputSchema": schema}
                    for name, (text, schema) in TOOLS.items()
                ]
            }
        if method == "tools/call":
            name, arguments = params.get("name"), params.get("arguments") or {}
            if name not in TOOLS or not isinstance(arguments, dict):
                raise ValueError(f"unknown tool {name!r}; available tools are {', '.join(TOOLS)}")
            return self.tools.call(name, arguments, self._progress(params), cancel)
        raise LookupError(f"unknown method {method!r}")

    def _progress(self, params: dict[str, Any]) -> Callable[[Any], None] | None:
        meta = params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        if token is None:
            return None

        def on_step(info: Any) -> None:
            progress = {"progressToken": token, "progress": info.index, "total": info.steps}
            self.send({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})

        return on_step

    def _fail(self, number: Any, code: int, message: str) -> None:
        self.send({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}})
