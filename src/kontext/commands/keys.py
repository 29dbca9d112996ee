"""`kontext keys`: create, list, change and revoke API keys."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kontext.commands import options
from kontext.terminal import say, say_json

if TYPE_CHECKING:
    from kontext.server.auth.keys import Keys

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

Data = Annotated[
    Path | None,
    typer.Option("--data", help="The data folder of the server.", metavar="DIR", envvar="KONTEXT_HOME"),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database", help="The database URL of the server.", metavar="URL", envvar="KONTEXT_DATABASE"
    ),
]
KeyName = Annotated[
    str, typer.Argument(help="Name, id or first characters.", metavar="KEY", show_default=False)
]


@app.callback()
def keys() -> None:
    """Create and revoke API keys."""


@app.command()
@app.command("make", hidden=True)  # its name in version 0.1
def create(
    name: Annotated[
        str, typer.Argument(help="A name for the key, such as its user.", metavar="NAME", show_default=False)
    ],
    scope: Annotated[list[str] | None, typer.Option(help="read, edit or metrics.", metavar="SCOPE")] = None,
    rate: Annotated[int | None, typer.Option(help="Requests per minute.", min=1, metavar="N")] = None,
    jobs: Annotated[int | None, typer.Option(help="Maximum active jobs.", min=1, metavar="N")] = None,
    credits: Annotated[
        float | None, typer.Option(help="Credits; default: unlimited.", min=0, metavar="C")
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="Days until it expires; default: never.", metavar="D")
    ] = None,
    data: Data = None,
    database: Database = None,
    as_json: options.Json = False,
) -> None:
    """Create a key; its text is shown only once."""
    key, text = _keys(data, database).create(
        name,
        scopes=scope or ("read", "edit"),
        rate_per_minute=rate,
        active_jobs=jobs,
        credits=credits,
        days=days,
    )
    if as_json:
        say_json({**asdict(key), "key": text})
    else:
        say(text)


@app.command("list")
def list_keys(data: Data = None, database: Database = None, as_json: options.Json = False) -> None:
    """List all keys, without their texts."""
    found = _keys(data, database).all()
    if as_json:
        say_json([asdict(key) for key in found])
        return
    for key in found:
        expired = key.expires is not None and key.expires < time.time()
        state = "revoked" if key.revoked else "expired" if expired else "good"
        until = "no end" if key.expires is None else f"until {_day(key.expires)}"
        credits = "" if key.credits is None else f"  {key.credits:g} credits"
        scopes = ",".join(key.scopes)
        used = "never used" if key.last_used is None else f"used {_day(key.last_used)}"
        say(f"{key.id}  {key.start}...  {state:8}{scopes:10}  {until:16}  {used:15}  {key.name}{credits}")


@app.command()
def revoke(name: KeyName, data: Data = None, database: Database = None) -> None:
    """Revoke a key; servers reject it within seconds."""
    found = _keys(data, database)
    key = found.find(name)
    found.change(key, revoked=True)
    say(f"{key.name} ({key.id}) is revoked; servers reject it within 5 seconds")


@app.command()
def credits(
    name: KeyName,
    amount: Annotated[float, typer.Argument(help="The new number of credits.", min=0, metavar="C")],
    data: Data = None,
    database: Database = None,
) -> None:
    """Set the credits of a key."""
    found = _keys(data, database)
    key = found.find(name)
    found.change(key, credits=amount)
    say(f"{key.name} ({key.id}) now has {amount:g} credits")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def _keys(data: Path | None, database: str | None) -> Keys:
    from kontext.server.auth.keys import Keys
    from kontext.server.jobs.queue import Queue
    from kontext.server.service.service import open_store
    from kontext.server.settings import Settings

    store = open_store(Settings(data=data, database=database))
    Queue(store)  # creates the tables
    return Keys(store)
