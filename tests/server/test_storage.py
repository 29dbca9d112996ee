"""Conditions of the storage are the server's own errors, and a damaged file is mended.

What is kept is private, and a key fills no more than its quota.
"""

import errno
import os
import stat
import threading
import time

import httpx
import pytest
import sqlalchemy as sql

from kontext.server.auth.keys import Keys
from kontext.session import Store, blobs
from support.serving import LOCAL, noise, png, until


def as_(key):
    return {"x-key": key}


def upload(server, picture, **more):
    return server.http.post("/api/pictures", files={"picture": png(picture)}, **more)


def blob_of(folder, sha256):
    return folder / "blobs" / sha256[:2] / sha256


@pytest.fixture(scope="module")
def server(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    server = start(folder).ready()
    server.folder = folder
    return server


@pytest.fixture(scope="module")
def guarded(start):
    server = start(require_keys=True, storage_bytes=300_000).ready()
    server.keys = Keys(server.service.store)
    return server


FAULTS = {errno.ENOSPC: (507, "no_space"), errno.EDQUOT: (507, "no_space"), errno.EACCES: (503, "storage")}


@pytest.mark.parametrize("number", FAULTS)
def test_a_disk_that_cannot_be_written_is_the_servers_error(server, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number), str(server.folder / "blobs"))

    monkeypatch.setattr(blobs, "_private_opener", fail)
    answer = upload(server, noise(seed=100 + number))
    assert (answer.status_code, answer.json()["code"]) == FAULTS[number]
    assert str(server.folder) not in answer.text and os.strerror(number) in answer.text
    told = until(lambda: (found := server.http.get("/readyz")).status_code == 503 and found.json(), 20)
    assert told["state"] == "storage" and str(server.folder) not in told["trouble"]
    monkeypatch.undo()
    server.ready()
    assert upload(server, noise(seed=1)).status_code == 201


def test_a_locked_database_is_told_and_passes(server):
    lock = server.service.store.database.connect().execution_options(kontext_writing=True)
    with lock as db, db.begin():
        told = until(lambda: (found := server.http.get("/readyz")).status_code == 503 and found.json(), 20)
        assert told == {"state": "storage", "trouble": "the database does not answer"}
    server.ready()


def test_errors_of_the_database_are_the_servers_own(server, monkeypatch):
    store = server.service.store
    cases = {"database or disk is full": (507, "no_space"), "unable to open database file": (503, "storage")}
    for words, expected in cases.items():

        def fail(*_, words=words):
            raise sql.exc.OperationalError("INSERT secret", {}, Exception(words))

        monkeypatch.setattr(store.database, "connect", fail)
        answer = server.http.get("/api/sessions")
        assert (answer.status_code, answer.json()["code"]) == expected and "secret" not in answer.text
        monkeypatch.undo()


def test_a_damaged_file_is_written_again_by_the_next_put(server):
    sha256 = upload(server, noise()).json()["picture"]
    file = blob_of(server.folder, sha256)
    whole = file.read_bytes()
    for damage in (whole[:100], whole[:-1] + b"x", b""):
        file.write_bytes(damage)
        assert server.http.get(f"/api/pictures/{sha256}").status_code == 503
        assert server.http.post("/api/sessions", files={"picture": png(noise())}).status_code == 201
        assert server.http.get(f"/api/pictures/{sha256}").content == whole == file.read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
def test_only_the_owner_may_read_what_is_kept(tmp_path):
    def modes():
        return {
            path: stat.S_IMODE(path.stat().st_mode)
            for path in [tmp_path / "data", *tmp_path.rglob("data/**/*")]
        }

    def private():
        return all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes().items())

    before = os.umask(0)
    try:
        with Store(tmp_path / "data") as store:
            store.create(noise())
            assert len(modes()) > 5 and private()
        for path in modes():
            path.chmod(0o755 if path.is_dir() else 0o644)
        with Store(tmp_path / "data") as store:  # of an older release
            assert private() and store.check() == []
        other = tmp_path / "shared"
        other.mkdir()
        other.chmod(0o755)
        (other / "letter").touch(0o644)
        Store(other).close()
        assert stat.S_IMODE(other.stat().st_mode) == 0o755  # a folder of other things as well
        assert stat.S_IMODE((other / "kontext.db").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_an_event_stream_ends_with_its_key(guarded, end):
    server, keys = guarded, guarded.keys
    key, text = keys.create(f"anna, {end}")
    made = server.http.post("/api/sessions", files={"picture": png(noise())}, headers=as_(text)).json()
    began, ended = threading.Event(), []

    def listen():
        url = f"{server.url}/api/sessions/{made['id']}/events"
        with httpx.stream("GET", url, headers=as_(text), **LOCAL) as answer:
            for _ in answer.iter_lines():
                began.set()
        ended.append(time.monotonic())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert began.wait(30)
    topic = f"session:{made['id']}"
    assert server.service.event_bus.has_subscribers(topic)
    start_ = time.monotonic()
    keys.change(key, **({"revoked": True} if end == "revoked" else {"expires": time.time() - 1}))
    thread.join(30)
    assert ended and ended[0] - start_ <= 5.0
    until(
        lambda: not server.service.event_bus.has_subscribers(topic), 5
    )  # no previews are made for it any more


def test_a_key_fills_no_more_than_its_quota(guarded):
    server = guarded
    (_, anna), (_, bert) = server.keys.create("anna"), server.keys.create("bert")
    made = []
    for seed in range(20):
        files = {"picture": png(noise((256, 256), seed))}
        answer = server.http.post("/api/sessions", files=files, headers=as_(anna))
        if answer.status_code != 201:
            break
        made.append(answer.json()["id"])
    assert answer.status_code == 507 and answer.json()["code"] == "quota" and "delete" in answer.text
    assert len(made) == 2  # 197 kB each: the second one crosses the line
    refused = {
        "/api/pictures": dict(files={"picture": png(noise())}),
        f"/api/sessions/{made[0]}/edits": dict(json={"prompt": "x"}),
        "/v1/images/edits": dict(files={"image": png(noise())}, data={"prompt": "x"}),
        "/api/sessions/import": dict(files={"file": ("a.zip", b"PK")}),
    }
    for path, body in refused.items():
        assert server.http.post(path, headers=as_(anna), **body).status_code == 507, path
    assert server.http.get("/api/sessions", headers=as_(anna)).status_code == 200
    assert upload(server, noise(), headers=as_(bert)).status_code == 201
    for session in made:
        server.http.delete(f"/api/sessions/{session}", headers=as_(anna))
    assert upload(server, noise((20, 20)), headers=as_(anna)).status_code == 201


def test_results_are_no_larger_than_inputs_may_be(server):
    limits = server.http.get("/api/capabilities").json()["limits"]
    assert limits["output_pixels"] == limits["picture_pixels"] == 2**25
    session = server.session()
    edits = f"/api/sessions/{session['id']}/edits"
    answer = server.http.post(edits, json={"prompt": "x", "size": "8192x8000"})
    assert answer.status_code == 400 and "at most 34 million" in answer.text
    answer = server.http.post(edits, json={"prompt": "x", "size": "8000x4000", "count": 5})
    assert answer.status_code == 400 and "134 million pixels in total" in answer.text
    answer = server.http.post("/v1/images/generations", json={"prompt": "x", "size": "8192x8192"})
    assert answer.status_code == 400


def test_credits_are_told_as_they_are(guarded):
    server = guarded
    _, text = server.keys.create("carl", credits=8)
    for expected in (8, 4):
        assert server.http.get("/v1/credits", headers=as_(text)).json() == {"credits": expected}
        server.http.post("/v1/flux-kontext-pro", json={"prompt": "x"}, headers=as_(text))


def test_other_pages_do_not_see_that_the_server_is_there(server):
    for path in ("/", "/api/capabilities", "/healthz", "/nowhere"):
        assert server.http.get(path).headers["cross-origin-resource-policy"] == "same-origin"


def test_json_of_a_million_small_values_is_refused_unread(guarded):
    body = b"[" + b"[]," * 10**6 + b"[]]"
    for path in ("/api/prefill", "/v1/images/generations", "/v1/flux-kontext-pro", "/hf/x"):
        answer = guarded.http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (401, 413) and answer.json()["message"], path
    answer = guarded.http.post("/api/login", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_bodies_and_answers_in_memory_are_bounded():
    import asyncio

    from kontext.server.http.bodies import Bodies

    sent, gate = [], asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        size = 3 * 2**20
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]}
        )
        await send({"type": "http.response.body", "body": bytes(size)})

    async def ask(bodies, slow):
        async def receive():
            return {"type": "http.request", "body": bytes(2**20), "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                sent.append(message["status"])
            elif slow:
                await gate.wait()

        await bodies({"type": "http", "headers": []}, receive, send)

    async def story():
        bodies = Bodies(app, 7 * 2**20)
        slow = asyncio.create_task(ask(bodies, True))
        await asyncio.sleep(0)
        while not sent:
            await asyncio.sleep(0)
        await ask(bodies, False)  # 4 MiB are held, 4 more are too many
        gate.set()
        await slow
        await ask(bodies, False)
        assert bodies.reserved == 0

    asyncio.run(story())
    assert sent == [200, 503, 200]
