"""A service of several models: each request chooses one, and no two are in one batch."""

import base64

import numpy as np
import pytest
from PIL import ImageOps

from kontext.errors import BadConfig
from kontext.server.jobs.batching import JobShape
from kontext.server.workers.worker import ModelHost
from support.fake_editor import tint
from support.serving import FAKE, noise, opened

PICTURE = noise()


@pytest.fixture(scope="module")
def server(start):
    server = start(more_models=("second",)).ready()
    yield server
    server.stop()


def picture_of(server, session, turn):
    return opened(server.http.get(f"/api/sessions/{session['id']}/turns/{turn}/picture?format=png").content)


def test_capabilities_list_them_and_the_first_is_the_default(server):
    found = server.http.get("/api/capabilities").json()
    assert [model["name"] for model in found["models"]] == ["fake", "second"]
    assert found["model"] == found["models"][0]
    assert found["models"][1]["native_sizes"] == [[128, 128]] and found["models"][1]["steps"] == 2
    names = [model["id"] for model in server.http.get("/v1/models").json()["data"]]
    assert names == ["fake", "second", "flux-kontext"]


@pytest.mark.parametrize("model", [None, "fake", "second"])
def test_a_request_chooses_its_model(server, model):
    session = server.session(PICTURE)
    (job,) = server.edit(session, "red", seed=3, **({"model": model} if model else {}))
    assert server.ended(job)["state"] == "done"
    turn = server.load(session)["turns"][1]
    assert turn["facts"]["model"] == (model or "fake")
    assert turn["facts"]["fingerprint"] == ("e" if model == "second" else "f") * 64
    expected = tint(ImageOps.invert(PICTURE) if model == "second" else PICTURE, "red", 3)[0]
    assert np.array_equal(np.asarray(picture_of(server, session, turn["id"])), np.asarray(expected))


def test_variants_and_retries_are_made_by_the_same_model(server):
    session = server.session(PICTURE)
    (job,) = server.edit(session, "red", seed=3, model="second")
    server.ended(job)
    answer = server.http.post(f"/api/sessions/{session['id']}/turns/{job['id']}/variants", json={"count": 1})
    server.ended(answer.json()["jobs"][0])
    (failed,) = server.edit(session, "refuse this", model="second")
    assert server.ended(failed)["state"] == "failed"
    again = server.http.post(f"/api/jobs/{failed['id']}/retry").json()["jobs"][0]
    assert server.service.queue.get(again["id"], "").request.model == "second"
    made = [turn["facts"]["model"] for turn in server.load(session)["turns"][1:]]
    assert made == ["second", "second"]


def test_an_unknown_model_is_refused_and_openai_s_names_mean_the_first(server):
    session = server.session(PICTURE)
    path = f"/api/sessions/{session['id']}/edits"
    answer = server.http.post(path, json={"prompt": "red", "model": "third\x1b[2J"})
    assert answer.status_code == 400 and "choose from fake, second" in answer.json()["message"]
    assert "\x1b" not in answer.json()["message"]
    assert server.http.post("/api/tokens", json={"prompt": "x", "model": "third"}).status_code == 400
    made = {}
    for name in ("gpt-image-1", "second"):
        body = {"prompt": "a kid", "model": name, "seed": 5, "size": "128x128"}
        answer = server.http.post("/v1/images/generations", json=body)
        made[name] = opened(base64.b64decode(answer.json()["data"][0]["b64_json"])).getpixel((0, 0))
    assert made == {"gpt-image-1": (255, 255, 255), "second": (0, 0, 0)}


def test_jobs_of_different_models_are_not_in_one_batch(start, tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    monkeypatch.setenv("FAKE_TRACE", str(trace))
    server = start(more_models=("second",)).ready()
    session = server.session(PICTURE)
    server.edit(session, "sleep 1", seed=1)
    jobs = [
        *server.edit(session, "red", seed=10, count=2),
        *server.edit(session, "red", seed=20, count=2, model="second"),
        *server.edit(session, "red", seed=30, count=2),
    ]
    assert all(server.ended(job)["state"] == "done" for job in jobs)
    batches = [set(line.split()[1:]) for line in trace.read_text().splitlines()]
    assert not any(batch & {"20", "21"} and batch & {"10", "11", "30", "31"} for batch in batches)
    server.stop()


def test_shapes_of_before_have_the_first_model():
    shape = JobShape((8, 8), "match", (), None, 2.5)
    assert str(shape).count("|") == 4 and JobShape.parse(str(shape)) == shape
    other = JobShape((8, 8), "match", (), None, 2.5, "a|b")
    assert JobShape.parse(str(other)) == other


def test_two_models_of_one_name_are_refused():
    with pytest.raises(BadConfig, match="distinct names"):
        ModelHost(FAKE, "fake", "cpu", more_models=("fake",))
