"""What all dialects share, and those of OpenAI and Hugging Face.

By the official clients, unmodified, and to the letter of the fields.
"""

import asyncio
import base64
import io
import json
import socket
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import pytest

from kontext.errors import BadPicture
from kontext.options import offered
from kontext.server.http.inputs import Inputs
from support.fake_editor import tint
from support.serving import b64, noise, opened, png, polled, same, until

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
