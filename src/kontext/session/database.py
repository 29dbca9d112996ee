"""Database connections and blob storage with serialized, transactional writes.

SQLite in a folder, or any database URL. See `Store` for the order of writes that makes them crash-safe.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import sqlalchemy as sql
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kontext.errors import BadConfig, NoSpace, Unavailable
from kontext.session.blobs import Blobs, private_file, private_folder, storage
from kontext.session.schema import migrate
from kontext.session.tree import Trees

log = logging.getLogger(__name__)

POOL_SIZE = 32  # connections kept open: a server queries from many threads, and opening one is expensive
WAIT_SECONDS = 30.0  # how long a write waits for the write of another process


class Database:
    """Rows and blobs, and the trees read from them.

    `place` is a folder (created if missing; holds `kontext.db` and `blobs/`) or a SQLAlchemy database URL
    (sqlite:///file, postgresql+psycopg://...). `blobs` is a folder or an fsspec URL, required with a database
    URL. Thread-safe; several processes may open the same database. Raises BadConfig.
    """

    def __init__(self, place: str | os.PathLike, blobs: str | os.PathLike | None = None) -> None:
        text = os.fspath(place)
        self.folder = None if "://" in text else Path(text)
        if "://" in text:
            if blobs is None:
                raise BadConfig(
                    "a database URL also needs a location for the pictures: blobs=FOLDER or an fsspec URL"
                )
            url = sql.make_url(text)
            if url.drivername in ("postgres", "postgresql"):
                url = url.set(drivername="postgresql+psycopg")
        else:
            folder = Path(text)
            if folder.exists() and not folder.is_dir():
                raise BadConfig(f"{folder} is a file; give a folder for the sessions, or a database URL")
            url = sql.URL.create("sqlite", database=str(folder / "kontext.db"))
            try:
                with storage(f"{folder} cannot be used", quiet=True):
                    _prepare(folder)
            except Unavailable as error:
                raise Unavailable(f"{error}; choose another with --data or KONTEXT_HOME") from None
            blobs = blobs or folder / "blobs"
        self.blobs, self.trees = Blobs(blobs), Trees()
        self._write_lock = threading.Lock()  # threads wait here, since SQLite would poll
        self.database = _connect(url)
        try:
            with self.writing() as db:
                migrate(db)
        except SQLAlchemyError as error:
            raise BadConfig(
                f"{url.render_as_string()} is not a usable database: {_first_line(error)}"
            ) from None
        except Unavailable as error:
            raise BadConfig(f"{url.render_as_string()} cannot be used: {error}") from None

    def close(self) -> None:
        self.database.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """One consistent view of the database. Raises Unavailable."""
        with _available(), self.database.connect() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """One exclusive write transaction, committed at the end and rolled back by an exception.

        Raises Unavailable, NoSpace.
        """
        with (
            _available(),
            self._write_lock,
            self.database.connect().execution_options(kontext_writing=True) as db,
            db.begin(),
        ):
            yield db

    def probe(self) -> None:
        """Check that rows and pictures can be written now. Raises Unavailable, NoSpace."""
        with self.writing():
            pass
        self.blobs.probe()


@contextmanager
def _available() -> Iterator[None]:
    """Translate database errors; the database path is only logged."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        # A full disk aborts the transaction, so the visible error is that there is none to roll back.
        chain: list[BaseException] = []
        found: BaseException | None = error
        while found is not None and found not in chain:
            chain.append(found)
            found = found.__context__
        words = " ".join(map(str, chain)).lower()
        if any(word in words for word in ("locked", "lock timeout", "busy")):
            raise Unavailable(
                "another process keeps the session store locked; try again in a moment"
            ) from None
        log.error("the database failed: %s", _first_line(error))
        if "full" in words or "no space" in words:
            raise NoSpace("the database cannot be written (the disk is full)") from None
        raise Unavailable("the database cannot be used now") from None


def _prepare(folder: Path) -> None:
    """Create the folder and its database file, both private. A folder with other contents keeps its mode."""
    if not folder.exists() or (folder / "kontext.db").exists() or not any(folder.iterdir()):
        private_folder(folder)
    _private_database(folder / "kontext.db")


def _private_database(path: Path) -> None:
    """Create a database file that only its owner may read, or restrict an existing one.

    SQLite creates its auxiliary files with the same mode.
    """
    path.touch(mode=0o600)
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        private_file(path.with_name(name))


def _connect(url: sql.URL) -> sql.Engine:
    """An engine whose writes are serialized (SQLite: BEGIN IMMEDIATE, WAL; PostgreSQL: one advisory lock)."""
    sqlite = url.drivername.startswith("sqlite")
    try:
        options: dict[str, object] = (
            {"connect_args": {"timeout": WAIT_SECONDS}} if sqlite else {"pool_pre_ping": True}
        )
        if url.database not in (None, "", ":memory:"):
            options["pool_size"] = POOL_SIZE
        database = sql.create_engine(url, **options)
    except (SQLAlchemyError, ImportError) as error:
        raise BadConfig(
            f"cannot connect to the database {url.render_as_string()}: {_first_line(error)}"
        ) from None

    if sqlite:

        @sql.event.listens_for(database, "connect")
        def _prepare(connection: sqlite3.Connection, _record: object) -> None:
            connection.isolation_level = (
                None  # transactions are started explicitly below; the driver would begin them too late
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")

    @sql.event.listens_for(database, "begin")
    def _begin(db: sql.Connection) -> None:
        writing = db.get_execution_options().get("kontext_writing")
        if sqlite:
            db.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
        elif writing:
            db.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT_SECONDS:.0f}s'")
            db.exec_driver_sql("SELECT pg_advisory_xact_lock(7305797)")

    return database


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:200]
