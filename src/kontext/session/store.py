"""Session storage: rows in SQLite (or PostgreSQL by URL), pictures as blobs in a folder (or fsspec URL).

Guarantee: a call that has returned is durable, and a crash at any point leaves the state before or after a
call, never in between. Blobs are written completely before the row that references them, and rows change in
one transaction. Unreferenced blobs are removed later by `collect`.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sql

from kontext.errors import BadPicture, BadRequest, Busy, KontextError, NotFound
from kontext.pictures import PictureLike
from kontext.session.blobs import NAME
from kontext.session.database import Database
from kontext.session.editors import SessionEditor
from kontext.session.pixels import as_picture, digest, from_png, to_png
from kontext.session.provenance import HistoryEntry, read_chain
from kontext.session.rules import printable
from kontext.session.schema import sessions, turn_blobs, turns, versions
from kontext.session.session import Session
from kontext.session.tree import ResultInfo, TurnRow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionInfo:
    """An entry of the session list; times in seconds since the epoch."""

    id: str
    owner: str
    name: str
    created: float
    updated: float
    turns: int


class Store(Database):
    """Sessions and their pictures; see `Database` for the location."""

    @classmethod
    def temporary(cls) -> Store:
        """A store in a temporary folder that is removed with the store."""
        folder = tempfile.TemporaryDirectory(prefix="kontext-", ignore_cleanup_errors=True)
        store = cls(folder.name)
        weakref.finalize(store, folder.cleanup)
        return store

    # Sessions

    def create(
        self,
        picture: PictureLike | None = None,
        *,
        name: str = "",
        owner: str = "",
        editor: SessionEditor | None = None,
    ) -> Session:
        """A new session, with `picture` as its turn 0, or empty for `Session.generate`.

        picture: a path, bytes, a PIL image or an array.
        """
        session_id, now = secrets.token_hex(8), time.time()
        if not name and isinstance(picture, (str, os.PathLike)):
            name = Path(picture).stem
        row = dict(
            id=session_id,
            owner=owner,
            name=printable(name),
            created=now,
            updated=now,
            revision=0,
            last_number=-1,
        )
        with self.writing() as db:
            db.execute(sessions.insert().values(**row))
        session = Session(self, session_id, editor)
        if picture is not None:
            try:
                session.add(picture, kind="source")
            except BaseException:
                self.delete(session_id)
                raise
        return session

    def open(self, session_id: str, *, editor: SessionEditor | None = None) -> Session:
        """Open a session by its full id. Raises NotFound."""
        return Session(self, session_id, editor)

    def revision(self, session_id: str) -> int | None:
        """The number of changes to a session; None if it was deleted."""
        with self.reading() as db:
            return db.scalar(sql.select(sessions.c.revision).where(sessions.c.id == session_id))

    def find(self, text: str, *, owner: str = "", editor: SessionEditor | None = None) -> Session:
        """Find a session by id, id prefix (4 characters or more) or name. Raises NotFound."""
        known = self.sessions(owner=owner)
        found = [info for info in known if info.id == text]
        found = found or [
            info for info in known if info.name == text or (len(text) >= 4 and info.id.startswith(text))
        ]
        if len(found) == 1:
            return self.open(found[0].id, editor=editor)
        choices = ", ".join(f"{info.id} ({info.name})" for info in (found or known)[:8]) or "none yet"
        raise NotFound(
            f"{'several sessions match' if found else 'no session matches'} {text!r}; available: {choices}"
        )

    def sessions(self, *, owner: str | None = "") -> list[SessionInfo]:
        """All sessions of an owner (None: all owners), most recently used first."""
        count = sql.select(sql.func.count()).where(turns.c.session_id == sessions.c.id).scalar_subquery()
        columns = [sessions.c[key] for key in ("id", "owner", "name", "created", "updated")]
        query = sql.select(*columns, count.label("turns")).order_by(sessions.c.updated.desc(), sessions.c.id)
        if owner is not None:
            query = query.where(sessions.c.owner == owner)
        with self.reading() as db:
            return [SessionInfo(**row) for row in db.execute(query).mappings()]

    def delete(self, session_id: str) -> None:
        """Delete a session with all its turns; `collect` frees its pictures later. Raises NotFound."""
        with self.writing() as db:
            # Detach the turns first: databases limit the depth of cascading deletes.
            db.execute(turns.update().where(turns.c.session_id == session_id).values(parent_id=None))
            if not db.execute(sessions.delete().where(sessions.c.id == session_id)).rowcount:
                raise NotFound(f"no session {session_id!r}")

    def insert_tree(
        self,
        rows: Sequence[tuple[TurnRow, Mapping[str, Sequence[str]]]],
        *,
        name: str,
        owner: str,
        editor: SessionEditor | None,
    ) -> Session:
        """Insert a session from (turn row without ids, blobs by role) in order of number, in one transaction.

        A row's `parent_id` is the index of its parent in the list. For `restore` and `archive`, which have
        validated the rows and stored the blobs. Raises Busy.
        """
        session_id, now = secrets.token_hex(8), time.time()
        ids = [secrets.token_hex(8) for _ in rows]
        last = max(row["number"] for row, _ in rows)
        revision = max(row["visited"] for row, _ in rows)
        head = dict(
            id=session_id,
            owner=owner,
            name=printable(name),
            created=now,
            updated=now,
            revision=revision,
            last_number=last,
        )
        named = [
            dict(turn_id=ids[index], role=role, position=position, sha256=sha256)
            for index, (_, blobs) in enumerate(rows)
            for role, names in blobs.items()
            for position, sha256 in enumerate(names)
        ]
        turn_rows = [
            {**row, "id": ids[at], "session_id": session_id, "parent_id": None if up is None else ids[up]}
            for at, (row, _) in enumerate(rows)
            for up in (row["parent_id"],)
        ]
        with self.writing() as db:
            if not all(
                self.blobs.has(sha256) for _, blobs in rows for names in blobs.values() for sha256 in names
            ):
                raise Busy("a garbage collection of the store ran in between; try again")
            db.execute(sessions.insert().values(**head))
            db.execute(turns.insert(), turn_rows)
            if named:
                db.execute(turn_blobs.insert(), named)
        return Session(self, session_id, editor)

    def restore(
        self,
        source: str | Path | bytes,
        *,
        name: str = "",
        owner: str = "",
        editor: SessionEditor | None = None,
    ) -> Session:
        """A new session from a PNG with an embedded history; the last turn gets the picture of the file.

        Pictures of earlier turns are restored if this store has them for the same owner. Raises NotFound,
        BadPicture, and BadRequest for a file without a history or whose pixels do not match its history.
        """
        chain, picture = read_chain(source), as_picture(source)
        if not chain:
            raise BadRequest("this file has no history of turns; open it as a new picture")
        if chain[-1].pixels != digest(picture):
            raise BadRequest(
                "the pixels of this file were changed after its history was written; open it as a new picture"
            )
        hashes = [entry.pixels for entry in chain]
        query = (
            sql.select(turns.c.pixels, turn_blobs.c.sha256)
            .join(turn_blobs, sql.and_(turn_blobs.c.turn_id == turns.c.id, turn_blobs.c.role == "picture"))
            .join(sessions, sessions.c.id == turns.c.session_id)
            .where(turns.c.pixels.in_(hashes), sessions.c.owner == owner)
        )
        with self.reading() as db:
            known = {pixels: sha256 for pixels, sha256 in db.execute(query)}
        known[chain[-1].pixels] = self.blobs.put(to_png(picture))
        rows: list[tuple[TurnRow, Mapping[str, Sequence[str]]]] = []
        for number, entry in enumerate(chain):
            row = TurnRow(
                number=number,
                visited=1,
                created=time.time(),
                parent_id=number - 1 if number else None,
                name="",
                kind=entry.kind,
                prompt=entry.prompt,
                seed=entry.seed,
                settings=entry.settings,
                facts=_result_info(entry),
                pixels=entry.pixels,
            )
            rows.append((row, {"picture": [known[entry.pixels]]} if entry.pixels in known else {}))
        if not name and not isinstance(source, bytes):
            name = Path(source).stem
        return self.insert_tree(rows, name=name, owner=owner, editor=editor)

    # Maintenance

    def collect(self, *, keep: Iterable[str] | None = None, older_than_seconds: float = 3600) -> int:
        """Delete blobs that no turn references and that are not in `keep`, and leftovers of crashed writes.

        Returns the bytes freed. Runs inside a write transaction: a turn that is being added is either visible
        here, or finds its blob missing and writes it again (`Session.add`). Blobs younger than
        `older_than_seconds` stay, since they may be written long before their rows. Without `keep`, nothing
        is deleted if another component (the server) has tables in this database: only it knows its blobs.
        """
        used, freed = set(keep or ()), 0
        with self.reading() as db:
            shared = db.scalar(
                sql.select(versions.c.component).where(versions.c.component != "session").limit(1)
            )
        if keep is None and shared:
            log.info("pictures are not collected: the %s shares this store", shared)
            return 0
        listing = [found for found in self.blobs.listing() if found.age_seconds >= older_than_seconds]
        with self.writing() as db:
            used.update(db.scalars(sql.select(turn_blobs.c.sha256).distinct()))
            for found in listing:
                if found.name not in used and self.blobs.age_seconds(found.path) >= older_than_seconds:
                    self.blobs.files.rm_file(found.path)
                    freed += found.size
        log.info("collected %d bytes of unused pictures", freed)
        return freed

    def check(self) -> list[str]:
        """All inconsistencies of this store as messages; empty if there are none. Reads every blob."""
        problems: list[str] = []
        with self.reading() as db:
            trees = [row for row in db.execute(sql.select(turns)).mappings()]
            named = list(db.execute(sql.select(turn_blobs)).mappings())
        by_id = {row["id"]: row for row in trees}
        roots: dict[str, int] = {}
        for row in trees:
            parent = by_id.get(row["parent_id"])
            if row["parent_id"] is None:
                roots[row["session_id"]] = roots.get(row["session_id"], 0) + 1
            elif (
                parent is None
                or parent["session_id"] != row["session_id"]
                or parent["number"] >= row["number"]
            ):
                problems.append(f"turn {row['id']} has an invalid parent")
        problems += [
            f"session {session_id} has {count} first pictures"
            for session_id, count in roots.items()
            if count > 1
        ]
        for row in named:
            try:
                picture = from_png(self.blobs.get(row["sha256"]))
                if row["role"] == "picture" and digest(picture) != by_id[row["turn_id"]]["pixels"]:
                    raise BadPicture("its pixels do not match the turn")
            except KontextError as error:
                problems.append(f"turn {row['turn_id']}, {row['role']}: {error}")
        problems += [
            f"unfinished file {found.path}"
            for found in self.blobs.listing()
            if not NAME.fullmatch(found.name) and found.age_seconds >= 3600
        ]
        return problems


def _result_info(entry: HistoryEntry) -> ResultInfo:
    """What an embedded history says of a turn's picture."""
    info: ResultInfo = {"size": entry.size}
    if entry.steps is not None:
        info["steps"] = entry.steps
    if entry.guidance is not None:
        info["guidance"] = entry.guidance
    if entry.model is not None:
        info["model"] = entry.model
    if entry.fingerprint is not None:
        info["fingerprint"] = entry.fingerprint
    return info
