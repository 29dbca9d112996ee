"""OpenAI's edits as JSON, and errors of its routes: the field at fault by name, as status 400."""

import base64
import json

import httpx
import numpy as np
import pytest

from support.fake_editor import tint
from support.serving import noise, opened, png


def data_url(picture, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(png(picture)).decode()}"


def post(server, path="edits", **body):
    return server.http.post(f"/v1/images/{path}", json=body)


def assert_refused(answer, param):
    """400 in OpenAI's shape, with this field."""
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and len(error["message"]) > 10
    assert error["param"] == param, error


def transparent(picture):
    picture = picture.convert("RGBA")
    picture.putalpha(0)
    return picture


@pytest.fixture
def client(server):
    openai = pytest.importorskip("openai")
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=httpx.Client(trust_env=False)
    )


def assert_edited(answer, prompt, seed):
    made = opened(base64.b64decode(answer["data"][0]["b64_json"])).convert("RGB")
    assert np.array_equal(np.asarray(made), np.asarray(tint(noise(), prompt, seed)[0]))


@pytest.mark.parametrize(
    "images",
    [
        {"images": [{"image_url": data_url(noise())}]},
        {"images": [{"image_url": data_url(noise())}, {"image_url": data_url(noise((40, 40)))}]},
        {"images": [{"image_url": {"url": data_url(noise())}}]},
        {"images": [data_url(noise())]},
        {"images": {"image_url": data_url(noise())}},
        {"image": data_url(noise())},
        {"image": [{"image_url": data_url(noise(), "application/octet-stream")}]},
        {"images": [{"image_url": data_url(noise()), "file_id": None}], "image": None, "mask": None},
    ],
)
def test_edits_take_json_with_pictures_as_data_urls(server, images):
    answer = post(server, prompt="a hat", seed=5, model="gpt-image-2", n=None, size="auto", **images)
    assert answer.status_code == 200, answer.text
    assert_edited(answer.json(), "a hat", 5)


def test_the_official_client_sends_json_too(client):
    body = {"prompt": "a hat", "seed": 5, "images": [{"image_url": data_url(noise())}]}
    answer = client.post("/images/edits", body=body, cast_to=httpx.Response)
    assert_edited(answer.json(), "a hat", 5)


def test_a_mask_and_a_stream_work_in_json(server):
    body = dict(prompt="a hat", images=[{"image_url": data_url(noise())}])
    mask = {"image_url": data_url(transparent(noise()))}
    assert post(server, mask=mask, **body).status_code == 200
    small = {"image_url": data_url(transparent(noise((40, 40))))}
    assert_refused(post(server, mask=small, **body), "mask")
    assert_refused(post(server, mask=mask, markup=mask, **body), "mask")
    streamed = post(server, stream=True, **body)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert "event: image_edit.completed" in streamed.text


@pytest.mark.parametrize(
    "images, param",
    [
        ({}, "images"),
        ({"images": []}, "images"),
        ({"images": [{"image_url": data_url(noise())}] * 5}, "images"),
        ({"images": 3}, "images[0]"),
        ({"images": [{}]}, "images[0].image_url"),
        ({"images": [{"image_url": 3}]}, "images[0].image_url"),
        ({"images": [{"image_url": ""}]}, "images[0].image_url"),
        ({"images": [{"image_url": "data:image/png;base64,AAAA"}]}, "images[0].image_url"),
        ({"images": [{"image_url": "https://example.org/kid.png"}]}, "images[0].image_url"),
        ({"images": [{"image_url": data_url(noise())}, {"file_id": "file-1"}]}, "images[1].file_id"),
        ({"images": [{"image_url": data_url(noise())}], "mask": {"file_id": "file-1"}}, "mask.file_id"),
        ({"images": [{"image_url": data_url(noise())}], "mask": ""}, "mask"),
    ],
)
def test_a_picture_that_cannot_be_taken_is_named(server, images, param):
    answer = post(server, prompt="a hat", **images)
    assert_refused(answer, param)
    if param.endswith("file_id"):
        assert "file_id is not supported" in answer.json()["error"]["message"]


WRONG = [
    ("prompt", ["", "  ", None, 3, ["a"], "x" * 10_001, "a\x00b"]),
    ("model", ["", 3, "x" * 201]),
    ("n", ["", 0, 11, "two", 1.5, True]),
    ("size", ["", "100x100", "large", "64", "16x1024", "99984x99984", 1024, "٦٤x٦٤"]),
    ("output_format", ["", "gif", "svg", "PNG", 3]),
    ("response_format", ["", "b64", 3]),
    ("stream", ["", "maybe", 3]),
    ("partial_images", ["", -1, 4, "x", False]),
    ("seed", ["", -1, 2**64, "x", True]),
    ("num_inference_steps", ["", 0, 100_000, "x", True]),
    ("guidance_scale", ["", 0.5, 31, "x", True]),
    ("quality", ["", "ultra", 3]),
    ("background", ["", "pink", 3]),
    ("moderation", ["", "off"]),
    ("input_fidelity", ["", "middle"]),
    ("style", ["", "wild"]),
    ("output_compression", ["", -1, 101, "x"]),
]
CASES = [(field, value) for field, values in WRONG for value in values]


@pytest.mark.parametrize("field, value", CASES, ids=lambda case: repr(case)[:20])
def test_every_empty_or_invalid_field_is_400_with_its_name(server, field, value):
    assert_refused(post(server, "generations", **{"prompt": "a hat", field: value}), field)
    images = [{"image_url": data_url(noise())}]
    assert_refused(post(server, **{"prompt": "a hat", "images": images, field: value}), field)
    if isinstance(value, str):
        files = {"image": ("kid.png", png(noise()))}
        answer = server.http.post("/v1/images/edits", data={"prompt": "a hat", field: value}, files=files)
        assert_refused(answer, field)


@pytest.mark.parametrize(
    "data, files, param",
    [
        ({"prompt": "x"}, {"other": b"x"}, "image"),
        ({"prompt": "x"}, {"image": b""}, "image"),
        ({"prompt": "x"}, {"image": b"no picture"}, "image"),
        ({"prompt": "x", "image": "no picture"}, {"other": b"x"}, "image"),
        ({"prompt": "x"}, {"image": png(noise()), "mask": b"no picture"}, "mask"),
        ({"prompt": "x", "mask": "no picture"}, {"image": png(noise())}, "mask"),
        ({}, {"image": png(noise())}, "prompt"),
        ({}, {"image": png(noise()), "prompt": b"a hat"}, "prompt"),
    ],
)
def test_parts_of_a_form_are_named_too(server, data, files, param):
    assert_refused(server.http.post("/v1/images/edits", data=data, files=files), param)


@pytest.mark.parametrize("part", ["image", "image[]", "image[0]", "images", "images[]"])
def test_images_of_a_form_have_the_names_that_clients_give_them(server, part):
    files = {part: ("kid.png", png(noise()))}
    answer = server.http.post("/v1/images/edits", data={"prompt": "a hat", "seed": "5"}, files=files)
    assert_edited(answer.json(), "a hat", 5)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "image/png"])
def test_other_bodies_are_refused(server, kind):
    body = json.dumps({"prompt": "x", "images": [{"image_url": data_url(noise())}]})
    for path in ("edits", "generations"):
        answer = server.http.post(f"/v1/images/{path}", content=body, headers={"content-type": kind})
        assert_refused(answer, None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"a"', b"\xff"])
def test_a_body_that_is_no_object_is_refused(server, body):
    for path in ("edits", "generations"):
        headers = {"content-type": "application/json"}
        assert_refused(server.http.post(f"/v1/images/{path}", content=body, headers=headers), None)


def test_the_clients_show_the_field(client):
    import openai

    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(model="x", prompt="")
    assert refused.value.param == "prompt" and "empty" in str(refused.value)
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.edit(model="x", prompt="", image=("kid.png", png(noise())))
    assert refused.value.param == "prompt"
