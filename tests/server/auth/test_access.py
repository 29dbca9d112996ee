"""Keys, limits, foreign pages and hostile requests."""

import base64
import re

import pytest

from kontext.errors import BadRequest
from kontext.server.auth.keys import Keys
from support.serving import noise, png, until


def b64(picture):
    return base64.b64encode(png(picture)).decode()


@pytest.fixture(scope="module")
def guarded(start):
    server = start(require_keys=True, active_jobs=3).ready()
    keys = Keys(server.service.store)
    server.keys = keys
    server.anna, server.anna_key = keys.create("anna")
    server.bert, server.bert_key = keys.create("bert", rate_per_minute=1000)
    return server


def as_(key):
    return {"x-key": key}


OPEN = {"/healthz", "/readyz", "/api/capabilities", "/api/login", "/api/logout"}
OPEN |= {"/v1/get_result", "/v1/samples/{name}"}  # an unguessable id, a signed address
"""Routes that need no key."""


def test_without_a_good_key_nothing_but_health_is_shown(guarded):
    paths = guarded.http.get("/openapi.json").json()["paths"]
    assert len(paths) > 30
    needs_no_key = set()
    for headers in ({}, as_("wrong"), {"authorization": "Bearer wrong"}, {"cookie": "kontext_key=wrong"}):
        for path, method in ((path, method) for path, methods in paths.items() for method in methods):
            answer = guarded.http.request(method, re.sub(r"{\w+}", "0" * 16, path), headers=headers)
            if answer.status_code != 401 or answer.json()["code"] != "no_key":
                needs_no_key.add(path)
    assert needs_no_key <= OPEN
    assert (
        guarded.http.get("/healthz").status_code == guarded.http.get("/api/capabilities").status_code == 200
    )


def test_each_key_sees_its_own_and_the_rest_does_not_exist(guarded):
    made = guarded.http.post(
        "/api/sessions", files={"picture": png(noise())}, headers=as_(guarded.anna_key)
    ).json()
    base = f"/api/sessions/{made['id']}"
    job = guarded.http.post(f"{base}/edits", json={"prompt": "x"}, headers=as_(guarded.anna_key)).json()[
        "jobs"
    ][0]
    picture = guarded.http.post(
        "/api/pictures", files={"picture": png(noise())}, headers=as_(guarded.anna_key)
    ).json()["picture"]
    until(
        lambda: (
            guarded.http.get(f"/api/jobs/{job['id']}", headers=as_(guarded.anna_key)).json()["state"]
            == "done"
        )
    )
    strange = as_(guarded.bert_key)
    for method, path in [
        ("GET", base),
        ("PATCH", base),
        ("DELETE", base),
        ("GET", f"{base}/events"),
        ("GET", f"{base}/export"),
        ("GET", f"{base}/thumbnail"),
        ("GET", made["turns"][0]["picture"]),
        ("POST", f"{base}/edits"),
        ("POST", f"{base}/head"),
        ("GET", f"/api/jobs/{job['id']}"),
        ("GET", f"/api/jobs/{job['id']}/events"),
        ("POST", f"/api/jobs/{job['id']}/cancel"),
        ("POST", f"/api/jobs/{job['id']}/retry"),
        ("GET", f"/api/pictures/{picture}"),
    ]:
        body = {"json": {"prompt": "x", "name": "x", "move": "undo"}} if method in ("POST", "PATCH") else {}
        if path == base and method == "PATCH":
            body = {"json": {"name": "mine now"}}
        elif path.endswith("head"):
            body = {"json": {"move": "undo"}}
        elif path.endswith("edits"):
            body = {"json": {"prompt": "x"}}
        answer = guarded.http.request(method, path, headers=strange, **body)
        assert answer.status_code == 404, (method, path, answer.text)
    stolen = guarded.http.post("/api/sessions", json={"picture": picture}, headers=strange)
    assert stolen.status_code == 404
    assert guarded.http.get("/api/sessions", headers=strange).json()["sessions"] == []
    assert guarded.http.get(base, headers={"authorization": f"Bearer {guarded.anna_key}"}).status_code == 200


def test_keys_are_kept_as_hashes_and_end(guarded):
    key, text = guarded.keys.create("short", days=6e-5)  # 5 seconds: a busy machine must ask before they end
    assert guarded.http.get("/v1/credits", headers=as_(text)).status_code == 200
    stored = guarded.service.settings.folder / "kontext.db"
    raw = b"".join(path.read_bytes() for path in stored.parent.glob("kontext.db*"))
    assert text.encode() not in raw and key.name.encode() in raw
    until(lambda: guarded.http.get("/v1/credits", headers=as_(text)).status_code == 401)
    _, text = guarded.keys.create("gone")
    guarded.keys.change(guarded.keys.find("gone"), revoked=True)
    assert guarded.http.get("/v1/credits", headers=as_(text)).status_code == 401


def test_scopes_limit_what_a_key_may_do(guarded):
    _, text = guarded.keys.create("looker", scopes=["read"])
    assert guarded.http.get("/api/sessions", headers=as_(text)).status_code == 200
    answer = guarded.http.post("/v1/flux-kontext-pro", json={"prompt": "x"}, headers=as_(text))
    assert answer.status_code == 403 and "scope" in answer.json()["message"]
    assert guarded.http.get("/metrics", headers=as_(text)).status_code == 403
    _, text = guarded.keys.create("prometheus", scopes=["metrics"])
    assert "kontext_jobs" in guarded.http.get("/metrics", headers=as_(text)).text


def test_too_many_requests_and_jobs_are_429_with_a_time(guarded):
    _, text = guarded.keys.create("often", rate_per_minute=5)
    answers = [guarded.http.get("/v1/credits", headers=as_(text)) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 13
    body = {"prompt": "sleep 20"}
    answers = [
        guarded.http.post("/v1/flux-kontext-pro", json=body, headers=as_(guarded.bert_key)) for _ in range(4)
    ]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429]
    assert answers[-1].headers["retry-after"] and answers[-1].json()["code"] == "queue_full"
    for answer in answers[:3]:
        cancelled = guarded.http.post(
            f"/api/jobs/{answer.json()['id']}/cancel", headers=as_(guarded.bert_key)
        )
        assert cancelled.json()["state"] == "cancelled"
    assert (
        guarded.http.post(
            "/v1/flux-kontext-pro", json={"prompt": "x"}, headers=as_(guarded.bert_key)
        ).status_code
        == 200
    )


def test_credits_without_end_are_not_a_number(guarded):
    """JSON has no infinity; unlimited are those that are not given."""
    for credits in (float("inf"), float("nan"), -1.0):
        with pytest.raises(BadRequest, match="credits must be a number from 0 on"):
            guarded.keys.create("endless", credits=credits)
        with pytest.raises(BadRequest, match="credits must be a number from 0 on"):
            guarded.keys.change(guarded.anna, credits=credits)
    assert guarded.keys.find("anna").credits is None


def test_credits_are_taken_once_and_given_back_for_what_failed(guarded):
    key, text = guarded.keys.create("payer", credits=9.0)

    def left():
        return guarded.http.get("/v1/credits", headers=as_(text)).json()["credits"]

    def submit(prompt):
        return guarded.http.post("/v1/flux-kontext-pro", json={"prompt": prompt}, headers=as_(text))

    def ended(task):
        return until(
            lambda: (s := guarded.http.get(task.json()["polling_url"]).json()["status"]) != "Pending" and s
        )

    assert ended(submit("good")) == "Ready"
    guarded.app.state.keys._cache.clear()
    assert left() == 5.0
    assert ended(submit("refuse this")) == "Error"
    guarded.app.state.keys._cache.clear()
    assert left() == 5.0
    assert ended(submit("good")) == "Ready"
    answer = submit("good")
    assert answer.status_code == 402 and "credits" in answer.json()["message"]


def test_keys_take_turns_however_much_one_has_queued(start):
    server = start(require_keys=True, max_batch=1, active_jobs=50).ready()
    keys = Keys(server.service.store)
    (_, many), (_, few) = keys.create("many"), keys.create("few")

    def submit(key, prompt):
        return server.http.post("/v1/flux-kontext-pro", json={"prompt": prompt}, headers=as_(key)).json()[
            "id"
        ]

    get = server.service.queue.get
    first = submit(many, "sleep 600")
    until(lambda: get(first).state == "running")
    crowd = [submit(many, f"sleep 0.05 {n}") for n in range(12)]
    pair = [submit(few, f"sleep 0.05 {n}") for n in range(2)]
    assert server.http.post(f"/api/jobs/{first}/cancel", headers=as_(many)).status_code == 200
    until(lambda: all(get(job).state == "done" for job in crowd + pair))
    order = sorted(crowd + pair, key=lambda job: get(job).started)
    assert max(order.index(job) for job in pair) <= 4
    server.stop()


# Foreign pages and hostile requests


def test_foreign_pages_and_names_are_refused(server):
    job = {"prompt": "x"}
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert server.http.post("/v1/flux-kontext-pro", json=job, headers=headers).status_code == 403
    assert (
        server.http.post("/v1/flux-kontext-pro", json=job, headers={"origin": server.url}).status_code == 200
    )
    for host in ("evil.example", "127.0.0.1.evil.example:80", "localhost.evil"):
        assert server.http.get("/api/sessions", headers={"host": host}).status_code == 421
    simple = server.http.post(
        "/v1/flux-kontext-pro", content=b'{"prompt": "x"}', headers={"content-type": "text/plain"}
    )
    assert simple.status_code == 422  # what a form of another site could send without asking


def test_probes_ask_by_any_name_where_names_are_limited(start):
    server = start(host="0.0.0.0", allowed_hosts=("pictures.example.org",)).ready()
    assert server.http.get("/readyz", headers={"host": "10.1.2.3:8000"}).status_code == 200
    assert server.http.get("/api/capabilities", headers={"host": "10.1.2.3:8000"}).status_code == 421
    good = {"host": "pictures.example.org"}
    assert server.http.get("/api/capabilities", headers=good).status_code == 200
    server.stop()


def test_large_bodies_and_pictures_are_413(start):
    server = start(body_bytes=100_000, picture_pixels=10_000).ready()
    assert server.http.post("/api/pictures", files={"picture": b"x" * 200_000}).status_code == 413

    def chunks():
        for _ in range(20):
            yield b"x" * 10_000

    assert server.http.post("/api/login", content=chunks()).status_code == 413
    answer = server.http.post("/api/pictures", files={"picture": png(noise((200, 100)))})
    assert answer.status_code == 413 and "200x100" in answer.json()["message"]
    server.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"prompt":"x","seed":' + b"9" * 5000 + b"}",
        b'{"prompt":"x","seed":1e400}',
        b'{"prompt":"x","guidance":NaN}',
        b'{"prompt":"\xff\xfe"}',
        b'{"prompt":"x","input_image":"data:image/png' + b";a=b" * 50_000 + b'"}',
        b'{"prompt":"x","input_image":"file:///etc/passwd"}',
        b"null",
        b"",
    ],
)
def test_strange_json_is_refused_by_every_dialect(server, body):
    answers = {
        path: server.http.post(path, content=body, headers={"content-type": "application/json"})
        for path in ("/v1/flux-kontext-pro", "/v1/images/generations", "/hf/x", "/api/sessions")
    }
    assert answers["/v1/flux-kontext-pro"].status_code != 200
    for path, answer in answers.items():
        if path != "/v1/images/generations" or answer.status_code != 200:  # which ignores unknown fields
            assert answer.status_code in (400, 413, 422), (path, answer.text[:200])
            assert answer.json()["code"] in ("bad_request", "bad_picture", "invalid", "too_large")


def test_a_lost_or_damaged_file_is_told_without_its_place(start, tmp_path):
    server = start(tmp_path).ready()
    turn = server.session()["turns"][0]
    (blob,) = (path for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    for damage in (lambda: blob.write_bytes(b"x"), blob.unlink):
        damage()
        answer = server.http.get(turn["picture"])
        assert answer.status_code == 503 and answer.json()["code"] == "storage"
        assert str(tmp_path) not in answer.text
    server.stop()


def test_why_no_model_loads_is_told_to_strangers_without_places(start):
    server = start(model="broken", require_keys=True)
    until(lambda: server.http.get("/readyz").json()["state"] == "broken")
    for path in ("/readyz", "/api/capabilities"):
        assert "see the server's log" in server.http.get(path).json()["trouble"]
    server.stop()


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/core/..%5c..%5cindex.html",
        "/api/examples/..%2f..%2fcli.py",
        "/api/sessions/..%2f..%2fkontext.db",
        "/api/pictures/..%2f..%2fkontext.db",
        "/v1/samples/..%2f..%2fkontext.db",
        "/api/sessions/' OR 1=1 --",
        "/api/jobs/x%00y",
        "/api/sessions/%F0%9F%98%80",
        "/%00",
        "/" + "a" * 5000,
    ],
)
def test_paths_lead_nowhere(server, path):
    answer = server.http.get(path)
    assert answer.status_code in (400, 403, 404, 405), (path, answer.status_code)
    assert (
        "root:" not in answer.text and "Traceback" not in answer.text and "/site-packages/" not in answer.text
    )


def test_the_page_may_only_load_from_here(server):
    answer = server.http.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in server.http.get("/api/capabilities").headers["content-security-policy"]


def test_hostile_names_and_prompts_come_back_as_they_were(server):
    name = "<script>alert(1)</script> '; drop table session; -- \u202e"
    session = server.session(name=name)
    assert server.load(session)["name"] == name
    job = server.edit(session, "\"><img src=x onerror=alert(1)> ' OR 1=1")[0]
    assert server.ended(job)["state"] == "done"
    file = server.http.get(server.load(session)["turns"][1]["picture"], params={"download": True})
    name = file.headers["content-disposition"].split("filename=")[1]
    assert name == '"01-img-src-x-onerror-alert-1-or-1-1.png"'
    answer = server.http.post(f"/api/sessions/{session['id']}/edits", json={"prompt": "a\x00b"})
    assert answer.status_code == 422
    for name in ("a\u0007b", "a\u001b[2Jb", "a\nb"):
        answer = server.http.patch(f"/api/sessions/{session['id']}", json={"name": name})
        assert answer.status_code == 422 and "control character" in answer.json()["message"]


def test_a_finished_job_of_another_origin_is_no_bfl_task(server):
    session = server.session()
    job = server.edit(session, "x")[0]
    server.ended(job)
    assert server.http.get("/v1/get_result", params={"id": job["id"]}).status_code == 404


def test_metrics_count_what_happened(server):
    text = server.http.get("/metrics").text
    assert 'kontext_requests_total{method="GET",route="/api/jobs/{job}",status="200"}' in text
    alive = sum(worker.alive for worker in server.service.workers)
    assert f"kontext_workers_alive {alive}" in text and 'kontext_jobs{state="done"}' in text
