"""Tables of the service, in the database of the session store.

States of a job: queued -> running -> done | failed | cancelled | refused. Every transition is one conditional
UPDATE and happens at most once.
"""

from typing import Any

import sqlalchemy as sql
from sqlalchemy import JSON, Boolean, Column, Float, Integer, String, Text

from kontext.server.jobs.requests import JobRequest
from kontext.session.schema import Migration

metadata = sql.MetaData()


class RequestColumn(sql.types.TypeDecorator[JobRequest]):
    """A job's request as JSON."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: JobRequest | None, dialect: sql.Dialect) -> dict[str, Any] | None:
        return None if value is None else value.to_json()

    def process_result_value(self, value: Any, dialect: sql.Dialect) -> JobRequest | None:
        return None if value is None else JobRequest.from_json(value)


jobs = sql.Table(
    "job",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("group_id", String(32), nullable=False),  # jobs of one request
    Column("owner", String(32), nullable=False),  # id of a key, "" without keys
    Column("origin", String(16), nullable=False),  # own, bfl, openai or hf
    Column("kind", String(16), nullable=False),  # edit or generate
    Column("state", String(16), nullable=False),
    Column("request", RequestColumn, nullable=False),  # prompt, settings, and pictures as sha256 of blobs
    Column("shape", String(200), nullable=False),  # see `JobShape`
    Column("session_id", String(32), index=True),
    Column("parent_id", String(32)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("runner", String(64)),
    Column("lease", Float),  # the runner counts as dead after this time
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("error", Text),
    Column("result", JSON),  # picture (sha256 of the encoded file), seed, result info
    Column("cost", Float, nullable=False, default=0.0),
    Column("webhook_url", Text),
    Column("webhook_secret", Text),
    Column("webhook_due", Float),  # null: nothing to deliver
    Column("webhook_tries", Integer, nullable=False, default=0),
    sql.Index("job_by_state", "state", "created"),
    sql.Index("job_by_owner", "owner", "state"),
    sql.Index("job_by_start", "owner", "started"),
    sql.Index("job_by_webhook", "webhook_due"),
)

uploads = sql.Table(
    "upload",
    metadata,
    Column("owner", String(32), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("created", Float, nullable=False),
)

keys = sql.Table(
    "api_key",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # sha256 of the key, which itself is not stored
    Column("start", String(16), nullable=False),  # its first characters, to distinguish keys
    Column("scopes", JSON, nullable=False),
    Column("rate_per_minute", Integer),
    Column("active_jobs", Integer),
    Column("credits", Float),  # null: not limited
    Column("created", Float, nullable=False),
    Column("expires", Float),
    Column("revoked", Boolean, nullable=False, default=False),
    Column("last_used", Float),  # exact to `keys.USE_SECONDS`; null: never
)

ended_logins = sql.Table(
    "ended_login",
    metadata,
    Column("signature", String(64), primary_key=True),  # of the token that was logged out
    Column("expires", Float, nullable=False),  # the token is refused anyway after this time
)

secrets = sql.Table(
    "secret",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(128), nullable=False),
)


def _index(db: sql.Connection) -> None:
    for index in jobs.indexes:
        index.create(db, checkfirst=True)


def _last_used(db: sql.Connection) -> None:
    column = keys.c.last_used
    if column.name not in (found["name"] for found in sql.inspect(db).get_columns(keys.name)):
        kind = column.type.compile(db.dialect)
        db.execute(sql.text(f"ALTER TABLE {keys.name} ADD COLUMN {column.name} {kind}"))


def _ended_logins(db: sql.Connection) -> None:
    ended_logins.create(db, checkfirst=True)


MIGRATIONS: tuple[Migration, ...] = (metadata.create_all, _index, _last_used, _ended_logins)
