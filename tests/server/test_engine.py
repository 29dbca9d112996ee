"""The service with the true engine on a tiny model with random weights."""

import httpx
import numpy as np
import pytest

from kontext import Editor
from kontext.server.jobs.requests import JobRequest
from kontext.server.workers.worker import JobPayload, ModelHost
from support.serving import noise, opened, png, until

TRUE = "kontext.server.workers.worker:load_editor"


@pytest.fixture(scope="module")
def tiny(start):
    return start(editor=TRUE, model="tiny-random").ready()


def test_the_service_gives_what_the_editor_gives(tiny):
    picture = noise((80, 48))
    session = tiny.session(picture)
    job = tiny.edit(session, "Make the hair blue", seed=3, steps=2)[0]
    assert tiny.ended(job)["state"] == "done"
    turn = tiny.load(session)["turns"][1]
    served = np.asarray(opened(tiny.http.get(turn["picture"]).content)).astype(int)
    alone = np.asarray(
        Editor.load("tiny-random").edit(picture, "Make the hair blue", seed=3, steps=2).picture
    )
    assert np.abs(served - alone).max() <= 1  # threads may be other, hence rounding
    assert turn["facts"]["model"] == "tiny-random" and turn["facts"]["evaluations"] >= 2


def test_variants_references_and_boxes_run_in_batches(tiny):
    session = tiny.session(noise((48, 80)))
    reference = tiny.http.post("/api/pictures", files={"picture": png(noise((30, 60), 2))}).json()["picture"]
    jobs = tiny.edit(session, "x", count=3, steps=2, references=[reference], box=[4, 4, 30, 30])
    assert [tiny.ended(job)["state"] for job in jobs] == ["done"] * 3
    turns = tiny.load(session)["turns"][1:]
    pictures = {tiny.http.get(turn["picture"]).content for turn in turns}
    assert len(pictures) == 3 and all(len(turn["references"]) == 1 for turn in turns)


def test_the_engine_s_refusals_reach_the_person_at_submission(tiny):
    session = tiny.session(noise((48, 48)))
    black = png(noise((48, 48)).point(lambda _: 0))
    mask = tiny.http.post("/api/pictures", files={"picture": black}).json()["picture"]
    for fields, words in (
        ({"mask": mask}, "mark what may change in white"),
        ({"expand": "1:1"}, "has that aspect ratio already"),
        ({"negative_prompt": "a", "guidance_steps": "5-8", "steps": 2}, "begin after the last step, 2"),
    ):
        answer = tiny.http.post(f"/api/sessions/{session['id']}/edits", json={"prompt": "x", **fields})
        assert answer.status_code == 400 and words in answer.json()["message"]
    assert tiny.load(session)["jobs"] == []


def test_the_first_preview_comes_while_the_edit_runs(tiny):
    session = tiny.session(noise((64, 64)))
    text = ""
    with tiny.http.stream("GET", f"/api/sessions/{session['id']}/events") as stream:
        parts = stream.iter_text()
        text += next(parts)  # it listens
        tiny.edit(session, "x", steps=6)
        while "event: done" not in text:
            text += next(parts)
    assert text.count("event: step") >= 6 and text.index("data:image/jpeg") < text.index("event: done")


def test_every_picture_of_a_mixed_batch_has_its_own_previews():
    host, told = ModelHost(TRUE, "tiny-random", "cpu"), []
    options = [{}, {"negative_prompt": "blurry", "guidance_steps": "1-1"}, {}]
    payloads = [
        JobPayload(str(i), JobRequest(prompt="x", seed=i, **more), {"picture": [png(noise())]}, True)
        for i, more in enumerate(options)
    ]
    results = host.run(payloads, lambda *step: told.append(step))
    assert [result.evaluations for result in results] == [2, 3, 2]
    seen = {name: {step: preview for job, step, _, preview in told if job == name} for name in "012"}
    assert all(set(steps) == {1, 2} and all(steps.values()) for steps in seen.values()) and len(told) == 6
    assert len({steps[2] for steps in seen.values()}) == 3


def test_guidance_that_the_model_does_not_have_is_refused_before_the_job(tiny):
    answer = tiny.http.post(
        f"/api/sessions/{tiny.session()['id']}/edits",
        json={"prompt": "x", "guidance": 3, "true_guidance": 2},
    )
    assert answer.status_code == 400 and "the same setting" in answer.text


def test_a_picture_is_expanded_and_the_border_is_refused_with_a_box(tiny):
    session = tiny.session(noise((64, 48)))
    (job,) = tiny.edit(session, "go on", expand="0,0,32,16", steps=1)
    assert tiny.ended(job)["state"] == "done"
    turn = tiny.load(session)["turns"][-1]
    assert turn["size"] == [96, 64] and turn["settings"]["expand"] == "0,0,32,16"
    made = opened(tiny.http.get(turn["picture"]).content)
    assert made.crop((0, 0, 64, 48)).tobytes() == noise((64, 48)).tobytes()
    for wrong, words in (
        ({"expand": "9,9,9,9", "box": [0, 0, 9, 9]}, "give box in another edit"),
        ({"expand": "3:2"}, "has that aspect ratio already"),
        ({"expand": "wide"}, "is invalid"),
        ({"expand": "0,0,99999,0"}, "expanded by"),
    ):
        answer = tiny.http.post(f"/api/sessions/{session['id']}/edits", json={"prompt": "x", **wrong})
        assert answer.status_code in (400, 422) and words in answer.text


def test_ready_is_told_only_when_the_model_is_loaded(start):
    server = start(model="slow to load")
    first = httpx.get(f"{server.url}/api/capabilities", trust_env=False).json()
    assert first["model"] is None and not first["ready"]
    assert server.http.get("/readyz").status_code == 503
    job = server.edit(server.session(), "asked before the model is there")[0]
    assert server.ended(job)["state"] == "done"
    until(lambda: server.http.get("/readyz").status_code == 200)
    server.stop()
