"""The BFL, OpenAI and Hugging Face dialects.

By the official clients, unmodified, and to the letter of the fields.
"""

import asyncio
import base64
import hashlib
import hmac
import io
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from kontext.errors import BadPicture
from kontext.options import offered
from kontext.server.http.inputs import Inputs
from support.fake_editor import tint
from support.serving import noise, opened, png, until


def b64(picture):
    return base64.b64encode(png(picture)).decode()


def same(data, picture):
    return np.array_equal(np.asarray(opened(data).convert("RGB")), np.asarray(picture))


def polled(server, url):
    def look():
        answer = server.http.get(url).json()
        return answer if answer["status"] != "Pending" else None

    return until(look)


# BFL


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


NUMBERS = {
    "/api/sessions/{session}/edits": tuple(
        option.name_on("http") for option in offered("http") if option.type in ("integer", "number")
    ),
    "/api/sessions/{session}/turns/{turn}/variants": ("count", "seed"),
    "/v1/flux-kontext-pro": ("seed", "safety_tolerance", "steps", "guidance"),
    "/v1/images/generations": ("n", "partial_images", "seed", "num_inference_steps", "guidance_scale"),
    "/hf/fake": ("guidance_scale", "num_inference_steps", "seed"),
}


@pytest.mark.parametrize("path", NUMBERS)
def test_true_and_huge_numbers_are_no_numbers_in_any_dialect(server, path):
    session = server.session()
    address = path.format(session=session["id"], turn=session["turns"][0]["id"])
    before = server.service.queue.count()
    for name in NUMBERS[path]:
        for value in ("true", "1e400", "NaN", "-1e400", "9" * 400, "[1]", '"one"'):
            fields = f'"{name}": {value}' + ("" if "variants" in path else ', "prompt": "x"')
            body = f'{{"inputs": "", "parameters": {{{fields}}}}}' if path == "/hf/fake" else f"{{{fields}}}"
            answer = server.http.post(address, content=body, headers={"content-type": "application/json"})
            assert answer.status_code in (400, 422), (name, value, answer.text)
            assert name in answer.json()["message"], (value, answer.text)
    assert server.service.queue.count() == before


def test_true_is_no_side_of_a_box(server):
    session = server.session()
    answer = server.http.post(
        f"/api/sessions/{session['id']}/edits", json={"prompt": "x", "box": [True, 1, 9, 9]}
    )
    assert answer.status_code == 422 and "must be a number, not true or false" in answer.json()["message"]


@pytest.mark.parametrize(
    "image",
    [
        "no base64 at all!",
        base64.b64encode(b"not a picture").decode(),
        "data:text/html;base64,AAAA",
        "http://10.0.0.1/x.png",
    ],
)
def test_what_is_no_picture_is_refused_in_words(server, image):
    answer = server.http.post("/v1/flux-kontext-pro", json={"prompt": "x", "input_image": image})
    assert answer.status_code == 400 and len(answer.json()["message"]) > 20


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "data:image/png;base64,{}",
        "data:application/octet-stream;base64,{}",
        "data:;base64,{}",
        "data:;BASE64,{}",
        "DATA:text/plain;charset=utf-8;base64,{}",
        'data:image/png;name="kid 1.png"; base64,{}',
        " \n data:image/jpeg;base64,\n{}\n",
    ],
)
def test_the_media_type_of_a_data_url_is_not_looked_at(form):
    for text in (b64(noise()), b64(noise()).rstrip("="), b64(noise()).replace("+", "-").replace("/", "_")):
        assert read(form.format(text)) == png(noise())


def test_a_data_url_may_be_percent_encoded():
    assert read("data:image/png;base64," + quote(b64(noise()), safe="")) == png(noise())
    assert read("data:image/png," + quote(png(noise()), safe="")) == png(noise())
    for text in ("data:", "data:,", "data:image/png;base64", "data:;base64,", "data:;base64,%zz"):
        with pytest.raises(BadPicture):
            read(text)


def read(text):
    """What the service takes a picture field for."""
    return asyncio.run(Inputs(SimpleNamespace(decoders=None)).read(text, "input_image"))


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


# OpenAI


@pytest.fixture(scope="module")
def openai_client(server):
    openai = pytest.importorskip("openai")
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=httpx.Client(trust_env=False)
    )


def test_the_official_openai_client_edits_with_references_and_mask(openai_client):
    files = [("kid.png", png(noise())), ("hat.png", png(noise((40, 40), 3)))]
    mask = noise().convert("RGBA")
    mask.putalpha(0)
    extra = {"seed": 5, "num_inference_steps": 3}
    answer = openai_client.images.edit(
        model="gpt-image-2", image=files, mask=("mask.png", png(mask)), prompt="a hat", n=2, extra_body=extra
    )
    assert len(answer.data) == 2 and answer.output_format == "png" and answer.usage.total_tokens > 0
    for place, datum in enumerate(answer.data):
        assert same(base64.b64decode(datum.b64_json), tint(noise(), "a hat", 5 + place)[0])


def test_the_openai_client_streams_partial_images(openai_client):
    events = list(
        openai_client.images.edit(
            model="x",
            image=("kid.png", png(noise())),
            prompt="a hat sleep 0.2",
            stream=True,
            partial_images=2,
            extra_body={"seed": 1},
        )
    )
    assert [event.type for event in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert same(base64.b64decode(events[-1].b64_json), tint(noise(), "a hat sleep 0.2", 1)[0])
    assert events[-1].usage.output_tokens > 0 and events[-1].size == "96x64"


def test_the_openai_client_generates_and_lists_models(openai_client):
    answer = openai_client.images.generate(
        model="x", prompt="a kid", size="64x64", response_format="url", output_format="webp"
    )
    assert opened(httpx.get(answer.data[0].url, trust_env=False).content).format == "WEBP"
    assert "fake" in [model.id for model in openai_client.models.list()]
    assert openai_client.models.retrieve("fake").id == "fake"


def test_openai_errors_have_their_classes(openai_client):
    import openai

    with pytest.raises(openai.BadRequestError, match="divisible by 16"):
        openai_client.images.edit(model="x", image=("a.png", png(noise())), prompt="x", size="100x100")
    with pytest.raises(openai.BadRequestError, match="not a picture"):
        openai_client.images.edit(model="x", image=("a.png", b"nothing"), prompt="x")
    with pytest.raises(openai.BadRequestError, match="refuses this prompt"):
        openai_client.images.generate(model="x", prompt="refuse this")
    with pytest.raises(openai.BadRequestError, match="n: ") as refused:
        openai_client.images.generate(model="x", prompt="x", n=11)
    assert refused.value.param == "n"
    with pytest.raises(openai.APIError, match="refuses this prompt"):
        list(openai_client.images.generate(model="x", prompt="refuse this", stream=True))
    small = ("m.png", png(noise((40, 40))))
    with pytest.raises(openai.BadRequestError, match="as large as"):
        openai_client.images.edit(model="x", image=("a.png", png(noise())), mask=small, prompt="x")


def test_a_client_that_goes_away_cancels_its_jobs(server):
    body = json.dumps({"prompt": "sleep 60", "n": 2}).encode()
    head = "POST /v1/images/generations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    before = server.service.queue.count().get("cancelled", 0)
    with socket.create_connection(("127.0.0.1", server.settings.port)) as client:
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: server.service.queue.count().get("running"))
    until(lambda: server.service.queue.count().get("cancelled", 0) == before + 2)


def test_one_refused_picture_of_several_cancels_the_others(server):
    before = server.service.queue.count()
    answer = server.http.post("/v1/images/generations", json={"prompt": "refuse this", "n": 3})
    assert answer.status_code == 400 and "refuses this prompt" in answer.json()["error"]["message"]
    after = server.service.queue.count()
    assert after.get("done") == before.get("done") and not after.get("running")


# Hugging Face


def test_the_official_hugging_face_client_edits(server, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = hub.InferenceClient(provider="hf-inference", token="x")
    picture = client.image_to_image(
        png(noise()), prompt="Make it night", model=f"{server.url}/hf/nano", num_inference_steps=3
    )
    assert picture.size == (96, 64)
    bad = server.http.post("/hf/nano", json={"inputs": "AAAA", "parameters": {"prompt": "x"}})
    assert bad.status_code == 400
    assert server.http.post("/hf/nano", json={"inputs": b64(noise()), "parameters": {}}).status_code == 400
    parameters = {"prompt": "x", "negative_prompt": "blurry"}
    made = server.http.post("/hf/nano", json={"inputs": b64(noise()), "parameters": parameters})
    assert made.status_code == 200 and opened(made.content).size == (96, 64)


def test_finished_files_carry_their_provenance_and_nothing_of_the_input(server):
    source = noise()
    exif = source.getexif()
    exif[0x010F] = "SecretCamera"
    file = io.BytesIO()
    source.save(file, "JPEG", exif=exif, quality=95)
    task = server.http.post(
        "/v1/flux-kontext-pro",
        json={"prompt": "a hat", "input_image": base64.b64encode(file.getvalue()).decode()},
    ).json()
    data = server.http.get(polled(server, task["polling_url"])["result"]["sample"]).content
    assert b"SecretCamera" not in data
    info = opened(data).info
    assert (
        info["parameters"].startswith("a hat\nSteps: 4")
        and json.loads(info["kontext"])["turns"][-1]["prompt"] == "a hat"
    )


def test_signed_files_are_trusted_with_our_anchor_turn_by_turn(start):
    pytest.importorskip("c2pa")
    from kontext.session.signing import own_identity, read_signature

    server = start(sign=True).ready()
    anchor = own_identity(server.settings.folder / "signing").anchor
    fields = {"prompt": "a hat", "input_image": b64(noise())}
    task = server.http.post("/v1/flux-kontext-pro", json=fields).json()
    sample = server.http.get(polled(server, task["polling_url"])["result"]["sample"]).content
    assert read_signature(sample, [anchor]).state == "trusted"
    session = server.session()
    for prompt in ("one", "two"):
        server.ended(server.edit(session, prompt)[0])
    turn = server.load(session)["turns"][2]
    file = server.http.get(turn["picture"], params={"download": True}).content
    assert read_signature(file, [anchor]).state == "trusted"
    broken = bytearray(file)
    broken[len(broken) // 2] ^= 1
    assert read_signature(bytes(broken), [anchor]).state == "invalid"
    server.stop()
