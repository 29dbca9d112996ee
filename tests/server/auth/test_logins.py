"""Logins of pages: cookies with signed tokens, which end with their key or when they are logged out."""

import threading
import time

import pytest

from kontext.server.auth.keys import Keys
from kontext.server.auth.logins import Logins
from kontext.server.jobs.schema import ended_logins
from support.serving import noise, png, until


@pytest.fixture(scope="module")
def guarded(start):
    server = start(require_keys=True).ready()
    server.keys = Keys(server.service.store)
    server.anna, server.anna_key = server.keys.create("anna")
    server.bert, _ = server.keys.create("bert")
    return server


def cookie(token):
    return {"cookie": f"kontext_key={token}"}


def status(guarded, token):
    return guarded.http.get("/api/sessions", headers=cookie(token)).status_code


def test_a_cookie_lets_a_page_show_pictures(guarded):
    answer = guarded.http.post("/api/login", json={"key": guarded.anna_key})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie.replace("samesite", "SameSite")
    assert guarded.anna_key not in cookie and "Max-Age=604800" in cookie
    assert guarded.http.get("/api/sessions").status_code == 200
    guarded.http.post("/api/logout")
    guarded.http.cookies.clear()
    assert guarded.http.get("/api/sessions").status_code == 401
    assert guarded.http.post("/api/login", json={"key": "wrong"}).status_code == 401

    token = guarded.app.state.logins.token(guarded.anna)[0]
    name, expires, number, signature = token.split(".")
    later = f"{name}.{int(expires) + 1}.{number}.{signature}"
    other = f"{guarded.bert.id}.{expires}.{number}.{signature}"
    strange = f"{name}.{expires}.{number}0.{signature}"
    for forged in (later, other, strange, f"{name}.{expires}.{number}.", "..", guarded.anna_key, token + "0"):
        assert status(guarded, forged) == 401, forged
    assert status(guarded, token) == 200


def test_a_login_ends_with_its_key(guarded):
    logins = guarded.app.state.logins
    key, _ = guarded.keys.create("visitor", days=0.5)
    token, seconds = logins.token(key)
    found = logins.key(token)
    assert 43000 < seconds <= 43200 and found is not None and found.id == key.id
    guarded.keys.change(key, revoked=True)
    logins.keys._cache.clear()
    assert logins.key(token) is None
    found = logins.key(logins.token(guarded.anna)[0])
    assert found is not None and found.id == guarded.anna.id


def logged_in(guarded):
    """The token of a new login."""
    assert guarded.http.post("/api/login", json={"key": guarded.anna_key}).status_code == 204
    token = guarded.http.cookies["kontext_key"]
    guarded.http.cookies.clear()
    return token


def test_a_copy_of_a_cookie_is_refused_after_logout_and_other_logins_stay(guarded):
    here, other = logged_in(guarded), logged_in(guarded)
    assert here != other and status(guarded, here) == status(guarded, other) == 200
    for _ in range(2):  # the second time does nothing
        assert guarded.http.post("/api/logout", headers=cookie(here)).status_code == 204
        assert status(guarded, here) == 401
    assert status(guarded, other) == 200
    assert guarded.http.get("/api/sessions", headers={"x-key": guarded.anna_key}).status_code == 200


def test_every_server_of_the_database_refuses_a_login_that_ended(guarded):
    token = logged_in(guarded)
    elsewhere = Logins(Keys(guarded.service.store))  # as in another process, or after a restart
    assert elsewhere.key(token).id == guarded.anna.id
    guarded.http.post("/api/logout", headers=cookie(token))
    assert elsewhere.key(token) is None and Logins(Keys(guarded.service.store)).key(token) is None


def test_only_logins_that_could_be_used_are_noted_and_only_until_they_expire(guarded, monkeypatch):
    def noted():
        with guarded.service.store.reading() as db:
            return {row.signature for row in db.execute(ended_logins.select())}

    first, second, before = logged_in(guarded), logged_in(guarded), noted()
    for invalid in ("", "wrong", "..", first + "0", f"{guarded.anna.id}.9999999999.0.{'0' * 64}"):
        guarded.http.post("/api/logout", headers=cookie(invalid))
    assert noted() == before
    guarded.http.post("/api/logout", headers=cookie(first))
    assert noted() == before | {first.rpartition(".")[2]}
    later = time.time() + 3 * 86400
    monkeypatch.setattr("kontext.server.auth.logins.time.time", lambda: later)
    guarded.app.state.logins.end(second)
    assert first.rpartition(".")[2] in noted()
    later += 86400 * 5
    third = guarded.app.state.logins.token(guarded.anna)[0]
    guarded.app.state.logins.end(third)
    assert noted() == {third.rpartition(".")[2]}


def test_logins_count_as_requests_of_their_key(guarded):
    _, text = guarded.keys.create("often", rate_per_minute=2)
    answers = [guarded.http.post("/api/login", json={"key": text}).status_code for _ in range(4)]
    guarded.http.cookies.clear()
    assert answers == [204, 204, 429, 429]


def test_a_stream_of_events_ends_with_its_login(guarded):
    token, ended = logged_in(guarded), threading.Event()
    made = guarded.http.post("/api/sessions", files={"picture": png(noise())}, headers=cookie(token)).json()
    opened = threading.Event()

    def listen():
        path = f"/api/sessions/{made['id']}/events"
        with guarded.http.stream("GET", path, headers=cookie(token)) as stream:
            opened.set()
            for _ in stream.iter_lines():
                pass
        ended.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert opened.wait(30)
    guarded.http.post("/api/logout", headers=cookie(token))
    until(ended.is_set)
    listener.join(30)
