"""The BFL dialect: tasks with their states, samples, webhooks."""

import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from support.fake_editor import tint
from support.serving import b64, noise, opened, polled, same, until


def test_the_official_bfl_client_edits(server, tmp_path):
    blackforest = pytest.importorskip("blackforest")
    from blackforest.types.general.client_config import ClientConfig

    client = blackforest.BFLClient(api_key="bfl_any", base_url=server.url)
    inputs = {"prompt": "Make the hair blue", "input_image": b64(noise()), "seed": 5, "output_format": "png"}
    config = ClientConfig(sync=True, timeout=30)
    answer = client.generate("flux-kontext-pro", inputs, config)
    sample = answer.result["sample"] if isinstance(answer.result, dict) else answer.result
    assert same(httpx.get(sample, trust_env=False).content, tint(noise(), "Make the hair blue", 5)[0])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/flux-kontext-pro",
        "/v1/flux-kontext-max",
        "/v1/flux-kontext-dev",
        "/proxy/bfl/flux-kontext-max/generate",
    ],
)
def test_a_task_goes_from_pending_to_ready(server, path):
    fields = {
        "prompt": "sleep 0.3",
        "input_image": "data:image/png;base64," + b64(noise()),
        "seed": 2**64 - 1,
        "unknown": 1,
    }
    fields |= {"input_image_2": b64(noise((40, 40), 2)), "output_format": "jpeg", "steps": 4, "guidance": 3.0}
    answer = server.http.post(path, json=fields, headers={"x-key": "anything"})
    assert answer.status_code == 200, answer.text
    task = answer.json()
    assert task["polling_url"] == f"{server.url}/v1/get_result?id={task['id']}" and task["input_mp"] == 0.01
    pending = server.http.get(task["polling_url"]).json()
    assert pending["status"] == "Pending" and pending["result"] is None
    ready = polled(server, task["polling_url"])
    assert ready["status"] == "Ready" and ready["result"]["seed"] == 2**64 - 1
    assert (
        ready["result"]["sample"].startswith(server.url)
        and ready["result"]["end_time"] > ready["result"]["start_time"]
    )
    sample = httpx.get(ready["result"]["sample"], trust_env=False)
    assert sample.headers["content-type"] == "image/jpeg" and opened(sample.content).format == "JPEG"


def test_urls_lead_to_the_host_that_the_client_used(server):
    port = server.url.rsplit(":", 1)[1]
    answer = server.http.post(
        "/v1/flux-kontext-pro", json={"prompt": "a hat"}, headers={"host": f"localhost:{port}"}
    )
    assert answer.json()["polling_url"].startswith(f"http://localhost:{port}/")


def test_without_a_picture_it_generates_at_the_aspect_asked_for(server):
    task = server.http.post(
        "/v1/flux-kontext-pro", json={"prompt": "A kid", "aspect_ratio": "3:2", "seed": 1}
    ).json()
    assert polled(server, task["polling_url"])["status"] == "Ready"


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"aspect_ratio": "3:1"}, "between 21:9 and 9:21"),
        ({"aspect_ratio": "1:0"}, "between 21:9 and 9:21"),
        ({"aspect_ratio": "match_input_image"}, "omit aspect_ratio"),
        ({"aspect_ratio": "wide"}, "W:H"),
        ({"safety_tolerance": 7}, "must be at most 6, got 7"),
        ({"output_format": "gif"}, "jpeg"),
        ({"seed": 2**64}, "must be below"),
        ({"prompt": "  "}, "empty"),
        ({"prompt": "a\ud800"}, "the prompt has half of a character"),
        ({"prompt": "a\x00b"}, "control character"),
        ({"webhook_url": ""}, "at least 1"),
    ],
)
def test_fields_out_of_range_are_422_in_the_shape_of_fastapi(server, fields, words):
    body = json.dumps({"prompt": "x", **fields})
    answer = server.http.post(
        "/v1/flux-kontext-pro", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    told = answer.json()
    assert (
        words in told["message"]
        and told["detail"][0]["loc"][1] == next(iter(fields))
        and "input" not in told["detail"][0]
    )


def test_an_unknown_task_is_404_with_the_body_of_get_result(server):
    for unknown in ("0" * 32, "'; drop table job; --", "../../etc/passwd", "\x00"):
        answer = server.http.get("/v1/get_result", params={"id": unknown})
        assert answer.status_code == 404
        assert (
            answer.json()["status"] == "Task not found"
            and answer.json()["result"] is None
            and answer.json()["message"]
        )


def test_samples_expire_and_cannot_be_altered(server):
    task = server.http.post(
        "/v1/flux-kontext-pro", json={"prompt": "a hat", "input_image": b64(noise())}
    ).json()
    sample = polled(server, task["polling_url"])["result"]["sample"]
    assert server.http.get(sample).status_code == 200
    url = httpx.URL(sample)
    for change in (
        {"expires": "99999999999"},
        {"signature": "0" * 64},
        {"signature": ""},
        {"signature": "é"},
        {"expires": "0"},
    ):
        assert server.http.get(url.copy_merge_params(change)).status_code == 403
    other = server.http.post("/v1/flux-kontext-pro", json={"prompt": "b"}).json()["id"]
    assert server.http.get(sample.replace(task["id"], other)).status_code == 403
    from kontext.server.service.outputs import signature

    old = int(time.time()) - 1
    expired = url.copy_merge_params(
        {"expires": str(old), "signature": signature(server.service.secret, task["id"], old)}
    )
    answer = server.http.get(expired)
    assert answer.status_code == 403 and "expired" in answer.json()["message"]


def test_a_refused_prompt_and_a_failed_task_have_their_states(start, tmp_path):
    (tmp_path / "words").write_text("forbidden thing\nbombe\n")
    server = start(banned_words=tmp_path / "words").ready()
    for prompt in ("draw a FORBIDDEN  thing now", "eine Bómbe"):
        task = server.http.post("/v1/flux-kontext-pro", json={"prompt": prompt}).json()
        told = server.http.get(task["polling_url"]).json()
        assert told["status"] == "Request Moderated" and told["details"]["message"] and told["result"] is None
    task = server.http.post("/v1/flux-kontext-pro", json={"prompt": "bombed, but refuse this"}).json()
    assert polled(server, task["polling_url"])["status"] == "Error"
    session = server.session()
    job = server.edit(session, "a forbidden thing")[0]
    assert job["state"] == "refused" and "does not accept" in job["error"]
    answer = server.http.post("/v1/images/generations", json={"prompt": "forbidden thing"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "moderation_blocked"
    server.stop()


class Listener:
    """Takes webhooks; answers with the statuses given, then with 200."""

    def __init__(self, *statuses):
        got, answers = [], list(statuses)
        self.got = got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                got.append((dict(self.headers), body))
                self.send_response(answers.pop(0) if answers else 200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?x=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_webhooks_are_signed_tried_again_and_never_carry_the_secret(start, monkeypatch):
    from kontext.server.jobs import queue

    monkeypatch.setattr(queue, "WEBHOOK_PAUSES", (0.2, 0.2))
    server, listener = start(private_addresses=True).ready(), Listener(500)
    fields = {
        "prompt": "a hat",
        "input_image": b64(noise()),
        "webhook_url": listener.url,
        "webhook_secret": "s3cret",
    }
    task = server.http.post("/v1/flux-kontext-pro", json=fields).json()
    assert task["webhook_url"] == listener.url and task["polling_url"]
    until(lambda: len(listener.got) == 2)
    headers, body = listener.got[1]
    found = {name.lower(): value for name, value in headers.items()}
    assert found["x-bfl-signature"] == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    told = json.loads(body)
    assert (
        told["task_id"] == task["id"]
        and told["status"] == "Ready"
        and told["timestamp"] == int(found["x-bfl-timestamp"])
    )
    assert b"s3cret" not in body and "s3cret" not in str(headers)
    assert server.http.get(told["result"]["sample"]).status_code == 200
    time.sleep(1.5)
    assert len(listener.got) == 2
    listener.server.shutdown()
    server.stop()


def test_a_webhook_into_the_own_network_is_refused(server):
    for url in (
        "http://127.0.0.1/x",
        "http://[::1]/x",
        "ftp://example.org/",
        "http://169.254.169.254/latest",
        "http://localhost/x",  # a name of a private address
    ):
        answer = server.http.post("/v1/flux-kontext-pro", json={"prompt": "x", "webhook_url": url})
        assert answer.status_code == 400, url
