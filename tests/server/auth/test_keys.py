"""Keys: what a name and an end may be, and what the commands say."""

import json
import time

import pytest
import sqlalchemy as sql
from typer.testing import CliRunner

from kontext.commands.keys import app
from kontext.errors import BadRequest, NoSpace
from kontext.server.auth.keys import USE_SECONDS, Keys
from kontext.server.auth.logins import Logins
from kontext.server.jobs.queue import Queue
from kontext.session import Store
from kontext.session.schema import versions


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    with Store(tmp_path_factory.mktemp("keys")) as store:
        Queue(store)  # makes the tables
        yield Keys(store)


@pytest.mark.parametrize("days", [0, -1, float("nan"), 1e9])
def test_days_that_no_key_can_have_are_refused(keys, days):
    with pytest.raises(BadRequest, match="days must be above 0"):
        keys.create("days", days=days)
    assert not [key for key in keys.all() if key.name == "days"]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[31m", "x" * 201])
def test_names_that_cannot_be_shown_are_refused(keys, name):
    with pytest.raises(BadRequest, match="name must be"):
        keys.create(name)


def test_a_name_belongs_to_one_good_key(keys):
    first, _ = keys.create("anna")
    with pytest.raises(BadRequest, match="a key named 'anna' exists"):
        keys.create("anna")
    keys.change(first, revoked=True)
    second, _ = keys.create(" anna ")
    assert keys.find("anna") == second
    keys.change(second, expires=time.time() - 1)
    assert keys.create("anna")[0].name == "anna"


def test_whether_a_key_is_good_is_read_anew(keys):
    key, text = keys.create("bert", credits=5)
    assert keys.look_up(text) and keys.is_good(key) and keys.credits(key) == 5
    keys.change(key, credits=1.0)
    assert keys.credits(key) == 1
    keys.change(key, expires=time.time() - 1)
    assert not keys.is_good(key)
    keys.change(key, expires=None, revoked=True)
    assert not keys.is_good(key)


def test_the_last_use_of_a_key_is_noted_once_a_minute(keys, monkeypatch):
    key, text = keys.create("carla")
    assert keys.find("carla").last_used is None
    assert keys.begin_use(key) and not keys.begin_use(key)
    keys.note_use(key)
    assert abs(keys.find("carla").last_used - time.time()) < 60
    later = time.monotonic() + USE_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert keys.begin_use(key)

    def full(*_, **__):
        raise NoSpace("the disk is full")

    monkeypatch.setattr(keys, "change", full)
    keys.note_use(key)  # no request is rejected for it


def test_a_database_of_before_gets_the_column_of_the_last_use_and_the_table_of_ended_logins(tmp_path):
    with Store(tmp_path) as store:
        Queue(store)
        Keys(store).create("anna")
        with store.writing() as db:
            db.execute(sql.text("ALTER TABLE api_key DROP COLUMN last_used"))
            db.execute(sql.text("DROP TABLE ended_login"))
            db.execute(versions.delete().where(versions.c.component == "server", versions.c.version >= 3))
    with Store(tmp_path) as store:
        Queue(store)
        keys = Keys(store)
        assert keys.find("anna").last_used is None
        logins = Logins(keys)
        token, _ = logins.token(keys.find("anna"))
        logins.end(token)
        assert logins.key(token) is None


def test_the_commands_say_what_they_did(tmp_path):
    def call(*arguments):
        result = CliRunner().invoke(app, [*arguments, "--data", str(tmp_path)])
        assert result.exit_code == 0, result.output
        return result.output

    made = json.loads(call("make", "anna", "--days", "2", "--json"))
    call("make", "bert")
    lines = {line.split()[-1]: line for line in call("list").splitlines()}
    day = time.strftime("%Y-%m-%d", time.localtime(made["expires"]))
    assert f"until {day}" in lines["anna"] and "no end" in lines["bert"]
    assert "never used" in lines["anna"]
    with Store(tmp_path) as store:
        keys = Keys(store)
        keys.note_use(keys.find("anna"))
    assert f"used {time.strftime('%Y-%m-%d')}" in call("list").splitlines()[0]
    assert call("credits", "anna", "7") == f"anna ({made['id']}) now has 7 credits\n"
    assert call("revoke", "anna") == f"anna ({made['id']}) is revoked; servers reject it within 5 seconds\n"
    assert "revoked" in call("list")
