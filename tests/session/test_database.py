"""The same store on SQLite and on PostgreSQL (a throw-away cluster), in a folder and in an object store."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sql

from kontext.errors import BadConfig, Busy
from kontext.session import Store
from kontext.session.schema import MIGRATIONS, migrate, versions
from support.session_calls import calls, state
from support.tint import TintEditor


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """(database, blobs) of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a.db", tmp_path / "blobs"
    url = request.getfixturevalue("postgres")
    engine = sql.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as db:
        db.exec_driver_sql("DROP SCHEMA public CASCADE")
        db.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url, f"memory://{tmp_path.name}"


def test_the_same_calls_lead_to_the_same_tree_everywhere(place, store, picture):
    here = store.create(picture, editor=TintEditor())
    with Store(*place) as other:
        there = other.create(picture, editor=TintEditor())
        for step in calls(40):
            step(here)
            step(there)
            assert state(there) == state(here)
        assert other.check() == [] and [info.turns for info in other.sessions()] == [len(here.turns)]
        other.delete(there.id)
        assert other.collect(older_than_seconds=0) > 0 and list(other.blobs.listing()) == []


def test_many_writers_of_one_session_lose_nothing(place, picture):
    with Store(*place) as store:
        session_id = store.create(picture).id

    def write(writer):
        with Store(*place) as own:
            session = own.open(session_id, editor=TintEditor())
            made, refused = [], 0
            while len(made) < 5:
                try:
                    made.append(session.edit(f"{writer} {len(made)}", turn=0).id)
                except Busy:
                    refused += 1
                    session.reload()
            return made

    with ThreadPoolExecutor(4) as pool:
        made = [turn for found in pool.map(write, range(4)) for turn in found]
    with Store(*place) as store:
        session = store.open(session_id)
        assert {turn.id for turn in session.turns[1:]} == set(made) and len(made) == 20
        assert [turn.number for turn in session.turns] == list(range(21)) and session.revision == 21
        assert store.check() == []


def test_a_collection_never_takes_what_a_turn_is_about_to_name(place, picture, monkeypatch):
    with Store(*place) as store:
        session = store.create(picture, editor=TintEditor())
        whole = session._changing

        def collect_first(**options):  # exactly between the blobs and the transaction that names them
            assert store.collect(older_than_seconds=0) > 0
            return whole(**options)

        monkeypatch.setattr(session, "_changing", collect_first)
        session.edit("a")
        assert store.check() == []


def test_pictures_of_the_service_in_the_same_store_are_left_alone(place, picture):
    with Store(*place) as store:
        own = store.blobs.put(b"the result of a job")
        with store.writing() as db:
            migrate(db, "service", (lambda db: None,))
        assert store.collect(older_than_seconds=0) == 0 and store.blobs.has(own)
        assert store.collect(keep=[own], older_than_seconds=0) == 0 and store.blobs.has(own)
        assert store.collect(keep=[], older_than_seconds=3600) == 0 and store.blobs.has(own)
        assert store.collect(keep=[], older_than_seconds=0) == 19 and not store.blobs.has(own)


def test_stores_that_start_together_migrate_once(place):
    with ThreadPoolExecutor(6) as pool:
        for store in list(pool.map(lambda _: Store(*place), range(6))):
            store.close()
    with Store(*place) as store, store.reading() as db:
        assert db.scalars(sql.select(versions.c.version)).all() == [*range(1, len(MIGRATIONS) + 1)]


def test_migrations_run_in_order_and_a_newer_database_is_refused(place):
    table = sql.Table("later", sql.MetaData(), sql.Column("id", sql.Integer))
    more = (table.create, lambda db: db.execute(table.insert().values(id=5)))
    with Store(*place) as store:
        with store.writing() as db:
            migrate(db, "part", more[:1])
        with store.writing() as db:
            migrate(db, "part", more)
        with store.writing() as db:
            migrate(db, "part", more)
            assert db.scalars(sql.select(table.c.id)).all() == [5]
        with pytest.raises(BadConfig, match="newer release"), store.writing() as db:
            migrate(db, "part", more[:1])


def test_wrong_places_are_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "kontext.db").write_bytes(b"this is no database" * 100)
    wrong = {
        tmp_path / "file": "is a file",
        tmp_path / "damaged": "not a usable database",
        "sqlite:///x.db": "location for the pictures",
        "nosuch://x": "cannot connect to the database",
    }
    for place, says in wrong.items():
        with pytest.raises(BadConfig, match=says):
            Store(place, *([tmp_path / "blobs"] if str(place).startswith("nosuch") else []))
