"""Prompts of jobs that are expanded on request, by an endpoint that the operator names."""

import logging

import pytest
from tests.support.language_model import KEY, LanguageModel
from tests.support.serving import noise, png

from kontext.errors import BadConfig
from kontext.server import Settings

ANSWER = "Make the hair a deep blue; keep the rest as it is."


@pytest.fixture(scope="module")
def endpoint():
    endpoint = LanguageModel()
    yield endpoint
    endpoint.close()


@pytest.fixture(scope="module")
def expanding(start, endpoint, tmp_path_factory):
    banned = tmp_path_factory.mktemp("banned") / "words"
    banned.write_text("forbidden\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("KONTEXT_PROMPT_KEY", KEY)
        yield start(expand_prompt=endpoint.url, expand_seconds=1.0, banned_words=banned).ready()


@pytest.fixture(autouse=True)
def as_before(endpoint):
    endpoint.answer, endpoint.requests = ANSWER, []


def test_a_prompt_is_expanded_when_the_request_asks_for_it(expanding, endpoint, caplog):
    caplog.set_level(logging.DEBUG)
    assert expanding.http.get("/api/capabilities").json()["features"]["expand_prompt"]
    session = expanding.session()
    plain = expanding.edit(session, "blue hair")
    assert plain[0]["prompt"] == "blue hair" and not endpoint.requests
    jobs = expanding.edit(session, "blue hair", expand_prompt=True, count=2)
    assert [job["prompt"] for job in jobs] == [ANSWER] * 2
    assert len([entry for entry in endpoint.requests if entry[0] == "POST"]) == 1
    assert [expanding.ended(job)["state"] for job in jobs] == ["done"] * 2
    turns = expanding.load(session)["turns"]
    assert sorted(turn["prompt"] for turn in turns[1:]) == [ANSWER, ANSWER, "blue hair"]
    assert KEY not in caplog.text


def test_prompt_upsampling_of_bfl_is_the_same(expanding, endpoint):
    body = {"prompt": "a cat", "prompt_upsampling": True}
    answer = expanding.http.post("/v1/flux-kontext-pro", json=body)
    assert answer.status_code == 200
    assert "descriptions of pictures" in endpoint.requests[-1][3]["messages"][0]["content"]
    job = expanding.service.queue.get(answer.json()["id"])
    assert job.request.prompt == ANSWER


def test_words_are_moderated_before_and_after(expanding, endpoint):
    session = expanding.session()
    (job,) = expanding.edit(session, "a forbidden cat", expand_prompt=True)
    assert expanding.ended(job)["state"] == "refused" and not endpoint.requests
    endpoint.answer = "A forbidden cat"
    (job,) = expanding.edit(session, "a cat", expand_prompt=True)
    assert expanding.ended(job)["state"] == "refused"


@pytest.mark.parametrize("fault", ["denied", "drip", "no json"])
def test_an_endpoint_that_fails_is_told_without_its_address_and_key(expanding, endpoint, fault, caplog):
    endpoint.answer = fault
    session = expanding.session()
    answer = expanding.http.post(
        f"/api/sessions/{session['id']}/edits", json={"prompt": "x", "expand_prompt": True}
    )
    assert answer.status_code == 502 and answer.json()["code"] == "prompt_expansion"
    assert "submit it without expansion" in answer.text
    assert endpoint.url not in answer.text and KEY not in answer.text + caplog.text
    assert endpoint.url in caplog.text  # for the operator
    assert not expanding.http.get("/api/sessions").json()["sessions"][0].get("jobs")


def test_without_an_endpoint_nothing_is_expanded_and_the_request_refused(server):
    assert not server.http.get("/api/capabilities").json()["features"]["expand_prompt"]
    session = server.session()
    answer = server.http.post(
        f"/api/sessions/{session['id']}/edits", json={"prompt": "x", "expand_prompt": True}
    )
    assert answer.status_code == 400 and "does not expand prompts" in answer.text
    files = {"prompt": "x", "input_image": png(noise()).hex(), "prompt_upsampling": True}
    refused = server.http.post("/v1/flux-kontext-pro", json=files)
    assert refused.status_code in (400, 422) and "does not expand prompts" in refused.text


@pytest.mark.parametrize("url", ["nonsense", f"http://a/v1?key={KEY}"])
def test_a_wrong_url_stops_the_start_without_repeating_it(url):
    with pytest.raises(BadConfig, match="the URL for expanding prompts") as error:
        Settings(expand_prompt=url)
    assert KEY not in str(error.value)
