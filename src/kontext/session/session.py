"""One session: a tree of turns that an editor extends and a user navigates.

Every turn is edited from the stored, lossless picture of its parent. Turns are added, never changed. Changes
by another process show up as a newer revision: adding a turn then still succeeds (it becomes one more
branch), but navigating or deleting raises Conflict, so that concurrent changes are never overwritten.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sql
from PIL import Image

from kontext import pictures
from kontext.errors import BadRequest, Busy, Conflict, NotFound
from kontext.options import option
from kontext.pictures import PictureLike
from kontext.session.blobs import sha256_of
from kontext.session.database import Database
from kontext.session.editors import ResultLike, SessionEditor
from kontext.session.pixels import as_picture, digest, to_png
from kontext.session.provenance import SETTINGS, chain_of, encode
from kontext.session.rules import printable
from kontext.session.schema import TURN_COLUMNS, sessions, turn_blobs, turns
from kontext.session.settings import PICTURES, add_lora_digests, plain_value, split_settings
from kontext.session.signing import Identity, sign_turns
from kontext.session.tree import KINDS, ResultInfo, SessionRow, Tree, Turn
from kontext.values import whole_number

RESULT_INFO = tuple(key for key in ResultInfo.__annotations__ if key != "size")
MAX_PROMPT, MAX_NAME = 10_000, 200


@dataclass(frozen=True)
class _NewTurn:
    """A turn that is ready to be stored: its row, and its files by role."""

    row: dict[str, Any]
    files: Mapping[str, list[bytes]]

    @property
    def data(self) -> list[bytes]:
        return [data for datas in self.files.values() for data in datas]

    def named(self) -> list[dict[str, object]]:
        """The rows that reference the files."""
        return [
            dict(turn_id=self.row["id"], role=role, position=position, sha256=sha256_of(data))
            for role, datas in self.files.items()
            for position, data in enumerate(datas)
        ]


class Session:
    """A session of a store, with the editor that creates its turns.

    Not thread-safe; open the session once per thread, which is cheap.
    """

    def __init__(self, store: Database, session_id: str, editor: SessionEditor | None = None) -> None:
        self.store, self.id, self.editor = store, session_id, editor
        self.reload()

    # State

    def reload(self) -> None:
        """Read the newest state, including changes by other processes.

        Raises NotFound if the session was deleted.
        """
        with self.store.reading() as db:
            found = db.execute(sql.select(sessions).where(sessions.c.id == self.id)).mappings().one_or_none()
            if found is None:
                raise NotFound(f"no session {self.id!r}; it was deleted or belongs to another store")
            row = cast("SessionRow", dict(found))
            cached_row, cached = self.store.trees.get(self.id) or (None, None)
            turns = {} if cached is None else cached.turns
            tree = cached if cached is not None and cached_row == row else self._read_tree(db, turns)
        self.store.trees.keep(row, tree)
        self.name, self.owner, self.revision = row["name"], row["owner"], row["revision"]
        self.created, self.updated = row["created"], row["updated"]
        self.tree = tree

    def _read_tree(self, db: sql.Connection, known: Mapping[str, Turn]) -> Tree:
        """Read the mutable columns of all turns, and the other columns of new turns only."""
        changing = ("id", "name", "visited")
        query = sql.select(*(turns.c[name] for name in changing)).where(turns.c.session_id == self.id)
        states = db.execute(query).all()
        new = {state.id for state in states} - set(known)
        ours = turns.c.id.in_(new) if known else turns.c.session_id == self.id
        blobs: dict[str, dict[str, tuple[str, ...]]] = {}
        for blob in db.execute(
            sql.select(turn_blobs).join(turns).where(ours).order_by(turn_blobs.c.position)
        ).mappings():
            roles = blobs.setdefault(blob["turn_id"], {})
            roles[blob["role"]] = roles.get(blob["role"], ()) + (blob["sha256"],)
        read = {
            row["id"]: Turn(**row, blobs=blobs.get(row["id"], {}), _store=self.store.blobs)
            for row in db.execute(sql.select(*TURN_COLUMNS).where(ours)).mappings()
        }
        found = {**known, **read}
        return Tree(
            replace(turn, name=name, visited=visited)
            for key, name, visited in states
            if (turn := found.get(key))  # None: deleted between the two queries
        )

    @property
    def turns(self) -> list[Turn]:
        """All turns in creation order."""
        return list(self.tree.turns.values())

    @property
    def current(self) -> Turn:
        """The turn that the next edit starts from. Raises NotFound in an empty session."""
        if self.tree.current is None:
            raise NotFound("this session has no picture yet; add one or generate one")
        return self.tree.current

    @property
    def picture(self) -> Image.Image:
        """The picture of the current turn."""
        return self.current.picture

    @property
    def history(self) -> list[Turn]:
        """The turns from the first picture to the current turn."""
        return self.tree.path(self.current)

    # Creating turns

    def edit(self, prompt: str, *, turn: Turn | str | int | None = None, **settings: object) -> Turn:
        """Edit the picture of the current turn (or of `turn`) and make the result the current turn.

        `settings` are those of `Editor.edit`. Raises what the editor raises, and Conflict before any work is
        done if another process has changed this session since it was loaded.
        """
        self._ready(prompt, settings)
        parent = self.current if turn is None else self.tree.find(turn)
        result = self._editor("edit")(parent.picture, prompt, **settings)
        return self.add(result, prompt=prompt, parent=parent, settings=settings)

    def generate(self, prompt: str, **settings: object) -> Turn:
        """Generate the first picture of an empty session from text."""
        self._ready(prompt, settings)
        if self.tree.turns:
            raise BadRequest(
                "this session already has a first picture; start a new session to generate another"
            )
        result = self._editor("generate")(prompt, **settings)
        return self.add(result, prompt=prompt, kind="generate", settings=settings)

    def variants(self, count: int, prompt: str | None = None, **settings: object) -> list[Turn]:
        """Create `count` sibling turns (1 to 16), each with its own seed.

        With a prompt they are children of the current turn. Without one they are siblings of the current
        turn, with its prompt, settings and references. The first of them becomes current.
        """
        count = whole_number("variants", count, *option("variants").whole_range)
        parent = self.current
        if prompt is None:
            if parent.kind != "edit" or parent.parent_id is None:
                raise BadRequest("this turn is not an edit, so it has no variants; give a prompt")
            settings = {**self.recipe(parent), **settings}
            prompt, parent = parent.prompt, self.tree.turns[parent.parent_id]
        self._ready(prompt, settings)
        picture = parent.picture
        if self.editor is not None and hasattr(self.editor, "variants"):
            results = self.editor.variants(picture, prompt, count, **settings)
        else:
            seed = settings.pop("seed", None)
            seeds = [seed + index if isinstance(seed, int) else None for index in range(count)]
            results = [self._editor("edit")(picture, prompt, seed=seed, **settings) for seed in seeds]
        prepared = [self._prepare(result, prompt, "edit", settings, parent) for result in results]
        return self._insert(prepared, parent)

    def recipe(self, turn: Turn | str | int) -> dict[str, object]:
        """The settings of a turn with its input pictures, without the seed, for `edit(prompt, **recipe)`."""
        turn = self.tree.find(turn)
        pictures = {name: turn.read(role) for name, role in PICTURES.items() if role in turn.blobs}
        return {
            **turn.settings,
            **{name: read if name == "references" else read[0] for name, read in pictures.items()},
        }

    def add(
        self,
        result: ResultLike | PictureLike,
        *,
        prompt: str = "",
        parent: Turn | str | int | None = None,
        kind: str = "edit",
        settings: Mapping[str, object] | None = None,
        turn_id: str | None = None,
        current: bool = True,
        in_transaction: Callable[[sql.Connection], None] | None = None,
    ) -> Turn:
        """Store a Result (or, with kind="source", a picture) under `parent` (default: the current turn).

        For callers that run the editor themselves, as the server does; `settings` are the arguments of the
        edit, including pictures. The turn becomes current unless `current` is false. `in_transaction` runs
        inside the same transaction; an exception there rolls the turn back. Raises Busy if another process
        has deleted the parent.
        """
        start = None if kind != "edit" else self.current if parent is None else self.tree.find(parent)
        prepared = self._prepare(result, prompt, kind, settings or {}, start, turn_id)
        return self._insert([prepared], start, current, in_transaction)[0]

    def _prepare(
        self,
        result: ResultLike | PictureLike,
        prompt: str,
        kind: str,
        settings: Mapping[str, object],
        parent: Turn | None,
        turn_id: str | None = None,
    ) -> _NewTurn:
        """The row and files of a turn, fully validated."""
        if kind not in KINDS:
            raise BadRequest(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        _check_text("the prompt", prompt, MAX_PROMPT)
        plain, inputs = split_settings(settings)
        plain.pop("seed", None)
        add_lora_digests(plain, result)
        if kind == "source":
            picture, region, seed, result_info = as_picture(cast("PictureLike", result)), None, None, {}
        else:
            result = cast("ResultLike", result)
            picture, region, seed = as_picture(result.picture), getattr(result, "region", None), result.seed
            fingerprint = getattr(getattr(self.editor, "model", None), "fingerprint", None)
            result_info = {key: plain_value(getattr(result, key, None)) for key in RESULT_INFO}
            if parent is not None and parent.kind != "source":  # only originals can be photographs
                warnings = getattr(result, "warnings", ())
                result_info["warnings"] = [
                    warning for warning in warnings if not isinstance(warning, pictures.PhotoWarning)
                ]
            result_info["fingerprint"] = (
                result_info["fingerprint"] or result.settings.get("fingerprint") or fingerprint
            )
        files = {"picture": [to_png(picture)], "region": [to_png(region.convert("L"))] if region else []}
        files |= {role: [to_png(image) for image in images] for role, images in inputs.items()}
        row = dict(
            id=turn_id or secrets.token_hex(8), kind=kind, prompt=prompt, seed=seed, settings=plain, name=""
        )
        row["facts"] = {"size": list(picture.size)} | {
            key: value for key, value in result_info.items() if value is not None
        }
        return _NewTurn({**row, "pixels": digest(picture)}, files)

    def _insert(
        self,
        new_turns: Sequence[_NewTurn],
        parent: Turn | None,
        current: bool = True,
        in_transaction: Callable[[sql.Connection], None] | None = None,
    ) -> list[Turn]:
        """Write the blobs, then the rows that reference them; the first new turn becomes current."""
        data_of = {self.store.blobs.put(data): data for turn in new_turns for data in turn.data}
        with self._changing(allow_stale=parent is not None) as (db, revision):
            path = [] if parent is None else [turn.id for turn in self.tree.path(parent)]
            alive = db.scalars(sql.select(turns.c.id).where(turns.c.id.in_(path))).all()
            if parent is not None and len(alive) < len(path):
                raise Busy(
                    f"turn {parent.number} was deleted by another process during the edit; reload the session"
                )
            if parent is None and db.scalar(
                sql.select(turns.c.id).where(turns.c.session_id == self.id).limit(1)
            ):
                raise BadRequest(
                    "this session already has a first picture; start a new session for another picture"
                )
            for sha256, data in data_of.items():
                if not self.store.blobs.has(sha256):  # garbage collection ran before this transaction
                    self.store.blobs.put(data)
            last = db.execute(sql.select(sessions.c.last_number).where(sessions.c.id == self.id)).scalar_one()
            counted = dict(last_number=last + len(new_turns))
            db.execute(sessions.update().where(sessions.c.id == self.id).values(**counted))
            if current:
                self._visit(db, path, revision)
            for index, turn in enumerate(new_turns):
                place = dict(session_id=self.id, parent_id=parent and parent.id, number=last + 1 + index)
                visited = revision if current and index == 0 else 0
                db.execute(turns.insert().values(**turn.row, **place, created=time.time(), visited=visited))
                db.execute(turn_blobs.insert(), turn.named())
            if in_transaction is not None:
                in_transaction(db)
        return [self.tree.turns[turn.row["id"]] for turn in new_turns]

    def save(
        self,
        path: str | Path,
        turn: Turn | str | int | None = None,
        *,
        strip: bool = False,
        identity: Identity | None = None,
    ) -> Path:
        """Write a turn (default: the current one) as .png, .jpg or .webp with its embedded history.

        A PNG restores its whole chain (`Store.restore`). `strip` omits all metadata. With an `identity` (see
        `signing`) a PNG is signed. Raises BadRequest.
        """
        found = self.current if turn is None else self.tree.find(turn)
        history, format = self.tree.path(found), pictures.format_for(path)
        if identity is not None and format != "PNG":
            raise BadRequest(f"{path}: only PNG files can be signed; use a name that ends with .png")
        if identity is not None and found.kind != "source":
            return pictures.write(path, sign_turns(history, identity, strip=strip))
        return pictures.write(path, encode(found.picture, () if strip else chain_of(history), format))

    # Navigating and editing the tree

    def undo(self) -> Turn:
        """Go back to the parent of the current turn. Raises BadRequest at the first picture."""
        return self.goto(self.tree.undo())

    def redo(self) -> Turn:
        """Go forward to the child visited last. Raises BadRequest if there is none."""
        return self.goto(self.tree.redo())

    def goto(self, turn: Turn | str | int) -> Turn:
        """Make any turn the current one; the next edit adds a child to it."""
        turn = self.tree.find(turn)
        with self._changing() as (db, revision):
            self._visit(db, [step.id for step in self.tree.path(turn)], revision)
        return self.tree.turns[turn.id]

    def branch(self, turn: Turn | str | int | None = None) -> Turn:
        """Start another branch at a turn (default: the parent of the current turn); existing turns stay."""
        return self.undo() if turn is None else self.goto(turn)

    def rename(self, name: str, turn: Turn | str | int | None = None) -> None:
        """Rename the session or one of its turns. Raises BadRequest, also for control characters."""
        _check_text("the name", name, MAX_NAME)
        if printable(name) != name:
            raise BadRequest("the name has a control character; remove it and try again")
        table, key = (sessions, self.id) if turn is None else (turns, self.tree.find(turn).id)
        with self._changing() as (db, _):
            db.execute(table.update().where(table.c.id == key).values(name=name))

    def delete(self, turn: Turn | str | int) -> list[Turn]:
        """Delete a turn with all its descendants; returns the deleted turns.

        If the current turn is among them, the parent becomes current. Raises BadRequest for a first picture.
        """
        turn = self.tree.find(turn)
        if turn.parent_id is None:
            raise BadRequest("the first picture cannot be deleted; delete the session instead")
        deleted = self.tree.subtree(turn)
        with self._changing() as (db, revision):
            if self.current in deleted:
                ancestors = self.tree.path(self.tree.turns[turn.parent_id])
                self._visit(db, [ancestor.id for ancestor in ancestors], revision)
            # Leaves first: databases limit the depth of cascading deletes.
            statement = turns.delete().where(turns.c.id == sql.bindparam("deleted"))
            db.execute(statement, [{"deleted": leaf.id} for leaf in reversed(deleted)])
        return deleted

    # Internals

    @contextmanager
    def _changing(self, *, allow_stale: bool = False) -> Iterator[tuple[sql.Connection, int]]:
        """A transaction that creates the next revision.

        Raises Conflict if this object is not at the latest revision, unless `allow_stale`.
        """
        with self.store.writing() as db:
            revision = 1 + self._compare(
                db.scalar(sql.select(sessions.c.revision).where(sessions.c.id == self.id)), allow_stale
            )
            db.execute(
                sessions.update()
                .where(sessions.c.id == self.id)
                .values(revision=revision, updated=time.time())
            )
            yield db, revision
        self.reload()

    def _ready(self, prompt: str, settings: Mapping[str, object]) -> None:
        """Reject early what could not be stored after the edit."""
        _check_text("the prompt", prompt, MAX_PROMPT)
        if unknown := set(split_settings(settings)[0]) - {*SETTINGS, "seed"}:
            raise BadRequest(
                f"unknown setting {sorted(unknown)[0]!r}; known settings are {', '.join(SETTINGS)}"
            )
        with self.store.reading() as db:
            self._compare(db.scalar(sql.select(sessions.c.revision).where(sessions.c.id == self.id)), False)

    def _compare(self, found: int | None, allow_stale: bool) -> int:
        if found is None:
            raise NotFound(f"session {self.id} was deleted by another process")
        if found != self.revision and not allow_stale:
            raise Conflict(
                f"session {self.id} was changed by another process (revision {found}, here {self.revision}); "
                "nothing was lost: reload it and try again"
            )
        return found

    @staticmethod
    def _visit(db: sql.Connection, turn_ids: list[str], revision: int) -> None:
        db.execute(turns.update().where(turns.c.id.in_(turn_ids)).values(visited=revision))

    def _editor(self, method: str) -> Callable[..., ResultLike]:
        if not hasattr(self.editor, method):
            raise BadRequest(f"this session has no editor with {method}; open it with editor=Editor.load()")
        function: Callable[..., ResultLike] = getattr(self.editor, method)
        return function


def _check_text(what: str, text: str, limit: int) -> None:
    """Raises BadRequest for text that is too long or that a database or PNG cannot hold."""
    if not isinstance(text, str):
        raise BadRequest(f"{what} must be text, got {type(text).__name__}")
    if len(text) > limit:
        raise BadRequest(f"{what} must be at most {limit} characters, got {len(text)}")
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadRequest(f"{what} must not contain NUL characters or unpaired surrogates")
