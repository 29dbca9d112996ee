"""Tables of the session store and their migrations.

A session is a tree of turns; a turn references its pictures by the sha256 of a blob. Two columns carry
navigation state: `session.revision` grows with every change (optimistic locking), and `turn.visited` is the
revision at which the turn was last on the path to the current one, so that the current turn and every redo
target follow from one number.
"""

import time
from collections.abc import Callable, Sequence

import sqlalchemy as sql
from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, String, Text

from kontext.errors import BadConfig

metadata = sql.MetaData()

sessions = sql.Table(
    "session",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(200), nullable=False, index=True),  # "" without API keys
    Column("name", Text, nullable=False),
    Column("created", Float, nullable=False),  # seconds since 1970
    Column("updated", Float, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("last_number", Integer, nullable=False),  # numbers of deleted turns are not reused
)

turns = sql.Table(
    "turn",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("session_id", ForeignKey("session.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("parent_id", ForeignKey("turn.id", ondelete="CASCADE"), index=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("seed", BigInteger),
    Column("settings", JSON, nullable=False),  # arguments of the edit
    Column("facts", JSON, nullable=False),  # result info: size, steps, model, seconds, warnings...
    Column(
        "pixels", String(64), nullable=False, index=True
    ),  # digest of the decoded pixels, see `pixels.digest`
    Column("created", Float, nullable=False),
    Column("visited", Integer, nullable=False),
    sql.UniqueConstraint("session_id", "number"),
)

TURN_COLUMNS = [column.label("result_info") if column.name == "facts" else column for column in turns.c]
"""The columns of a turn under the names of `Turn`."""

turn_blobs = sql.Table(
    "turn_blob",
    metadata,
    Column("turn_id", ForeignKey("turn.id", ondelete="CASCADE"), primary_key=True),
    Column("role", String(16), primary_key=True),  # picture, region, reference, mask or markup
    Column("position", Integer, primary_key=True),
    Column("sha256", String(64), nullable=False, index=True),
)

versions = sql.Table(
    "schema_version",
    sql.MetaData(),
    Column("component", String(32), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("applied", Float, nullable=False),
)

Migration = Callable[[sql.Connection], None]

# Entry i migrates from version i to i + 1. Entries are append-only.
MIGRATIONS: tuple[Migration, ...] = (metadata.create_all,)


def migrate(db: sql.Connection, component: str = "session", steps: Sequence[Migration] = MIGRATIONS) -> None:
    """Migrate the tables of one component (the session store, the server...) to the newest version.

    Call it inside `Store.writing()`, so that processes that start at the same time migrate only once.
    Raises BadConfig for a database written by a newer release.
    """
    versions.create(db, checkfirst=True)
    found = (
        db.scalar(sql.select(sql.func.max(versions.c.version)).where(versions.c.component == component)) or 0
    )
    if found > len(steps):
        raise BadConfig(
            f"this database has version {found} of the {component} tables, this release knows {len(steps)}: "
            "install the newer release or use another folder"
        )
    for version, step in enumerate(steps[found:], start=found + 1):
        step(db)
        db.execute(versions.insert().values(component=component, version=version, applied=time.time()))
