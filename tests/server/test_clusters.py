"""The same promises on PostgreSQL with two servers, on an object store, and with Ray actors."""

import secrets

import httpx
import pytest
import sqlalchemy as sql

from kontext.server.jobs.queue import Queue
from kontext.session import Store
from support.kills import submit, survive
from support.serving import LOCAL, Program, noise, opened, until


@pytest.fixture
def database(postgres):
    """The URL of an empty database."""
    name = f"kontext_{secrets.token_hex(4)}"
    engine = sql.create_engine(
        postgres.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as db:
        db.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return postgres.replace("/postgres?", f"/{name}?")


def test_kills_lose_nothing_on_postgresql(tmp_path, database):
    survive(tmp_path, 2, seed=3, database=database)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills_lose_nothing_on_postgresql(tmp_path, database, seed):
    survive(tmp_path, 25, seed=seed, database=database)


def test_two_servers_share_one_queue_and_inherit_from_each_other(tmp_path, database):
    options = ["--database", database, "--lease", "2", "--active-jobs", "100"]
    first, second = Program(tmp_path, *options), Program(tmp_path, *options)
    store = Store(database, tmp_path / "data" / "blobs")
    queue = Queue(store)
    try:
        first.ready()
        second.ready()
        jobs = [submit(first, prompt=f"sleep 2 {n}", aspect_ratio=f"1:{1 + n % 2}") for n in range(12)]
        until(lambda: len({queue.get(job).runner for job in jobs} - {None}) == 2)
        first.kill()
        until(lambda: all(queue.get(job).state == "done" for job in jobs))
        for job in jobs:
            told = httpx.get(f"{second.url}/v1/get_result?id={job}", **LOCAL).json()
            assert told["status"] == "Ready" and opened(httpx.get(told["result"]["sample"], **LOCAL).content)
    finally:
        for program in (first, second):
            if program.process.poll() is None:
                program.process.kill()
        store.close()


@pytest.fixture
def s3(monkeypatch):
    """An S3 endpoint on loopback."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import fsspec.config

    endpoint = moto.ThreadedMotoServer(port=0)
    endpoint.start()
    options = dict(key="a", secret="b", endpoint_url="http://{}:{}".format(*endpoint.get_host_and_port()))
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    yield "s3://pictures"
    endpoint.stop()


@pytest.mark.parametrize("place", ["memory", "s3"])
def test_pictures_live_in_an_object_store(tmp_path, start, place, request):
    blobs = f"memory://{tmp_path.name}" if place == "memory" else request.getfixturevalue(place)
    server = start(tmp_path, blobs=blobs).ready()
    session = server.session()
    job = server.edit(session, "a hat")[0]
    assert server.ended(job)["state"] == "done"
    assert server.http.get(server.load(session)["turns"][1]["picture"]).status_code == 200
    assert not (tmp_path / "blobs").exists() and server.service.store.check() == []
    server.http.delete(f"/api/sessions/{session['id']}")
    server.service.queue.expire(job_days=0, upload_days=0)
    assert server.service.store.collect(keep=(), older_than_seconds=0) > 0
    assert list(server.service.store.blobs.listing()) == []
    server.stop()


@pytest.mark.slow
def test_the_same_story_with_two_ray_actors_one_killed(tmp_path, start, monkeypatch):
    """Ray from PyPI on this machine; steps, batches, cancel, death and refusal as with local processes."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    server = start(tmp_path, executor="ray", workers=2, max_attempts=2)
    try:
        until(lambda: all(worker.alive for worker in server.service.workers), 300)
        session = server.session(noise())
        with server.http.stream(
            "GET", f"/api/jobs/{server.edit(session, 'a hat')[0]['id']}/events"
        ) as stream:
            text = "".join(stream.iter_text())
        assert "event: step" in text and "event: done" in text
        jobs = server.edit(session, "sleep 0.5", count=8) + server.edit(
            session, "sleep 0.5 more", count=8, steps=3
        )
        until(lambda: sum(bool(worker._actor) for worker in server.service.workers) == 2)
        ray.kill(server.service.workers[0]._actor)
        assert {server.ended(job, 300)["state"] for job in jobs} == {"done"}
        until(lambda: all(worker.alive for worker in server.service.workers), 300)
        slow = server.edit(session, "sleep 60")[0]
        until(lambda: server.http.get(f"/api/jobs/{slow['id']}").json()["state"] == "running")
        assert server.http.post(f"/api/jobs/{slow['id']}/cancel").json()["state"] == "cancelled"
        bad, good = server.edit(session, "refuse this")[0], server.edit(session, "fine")[0]
        assert server.ended(bad, 120)["state"] == "failed" and server.ended(good, 120)["state"] == "done"
        ended = server.ended(server.edit(session, "die")[0], 300)
        assert ended["state"] == "failed" and "2 times" in ended["error"]
    finally:
        server.stop()
        ray.shutdown()
