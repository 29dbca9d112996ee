"""Random requests made from the OpenAPI document, damaged pictures and bodies: the server never fails.

The default run is short; `-m slow` runs 10 000 of each damage and many more requests.
"""

import io
import json
import random
import zlib

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings

from support.serving import noise, png

LEAKS = ("Traceback", "site-packages", "/src/kontext", "sqlalchemy", "PIL.")


def harmless(answer, path=""):
    assert answer.status_code < 500, (path, answer.text[:500])
    if "image" not in str(answer.headers.get("content-type", "")):
        assert not any(leak in answer.text for leak in LEAKS), (path, answer.text[:500])
    if answer.status_code >= 400 and path != "/v1/get_result":
        told = answer.json()
        assert told["message"] and "detail" in told and told["code"]


def operations(server):
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    found = [found.ok() for found in schema.get_all_operations()]
    return [operation for operation in found if not operation.path.endswith("/events")]  # these stay open


def fuzz(server, examples, part=slice(None)):
    found = operations(server)
    assert len(found) > 35
    for operation in found[part]:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case):
            try:
                answer = case.call(base_url=server.url, timeout=60)
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError):
                return  # what cannot be sent cannot harm
            harmless(answer, case.path)

        ask()


def damaged(data, chance):
    """Bytes changed, cut, doubled or moved."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(data) or 1)
        kind = chance.randrange(5)
        if kind == 0 and data:
            data[place % len(data)] = chance.randrange(256)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 20)))
        elif kind == 3:
            data[place:place] = data[place : place + 50]
        else:
            data[place : place + 4] = chance.choice((b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff"))
    return bytes(data)


def files():
    chance = []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        file = io.BytesIO()
        noise((48, 40)).save(file, kind)
        chance.append(file.getvalue())
    return chance


def damage_pictures(server, count, seed=4):
    chance, given_files, states = random.Random(seed), files(), {}
    for number in range(count):
        data = damaged(chance.choice(given_files), chance)
        answer = server.http.post("/api/pictures", files={"picture": (f"{number}.png", data)})
        harmless(answer)
        states[answer.status_code] = states.get(answer.status_code, 0) + 1
    assert states.get(400, 0) > count / 10


def damage_bodies(server, count, seed=5):
    chance = random.Random(seed)
    session = server.session()
    whole = json.dumps(
        {"prompt": "x", "seed": 1, "box": [1, 2, 3, 4], "steps": 2, "size": "match", "references": []}
    )
    for _ in range(count):
        path = chance.choice(
            (f"/api/sessions/{session['id']}/edits", "/v1/flux-kontext-pro", "/v1/images/edits", "/hf/x")
        )
        kind = chance.choice(
            ("application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/xml")
        )
        body = damaged(whole.encode(), chance)
        answer = server.http.post(path, content=body, headers={"content-type": kind})
        harmless(answer)


def test_requests_from_the_openapi_document_never_fail_the_server(server):
    fuzz(server, 2)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_requests_from_the_openapi_document_never_fail_the_server(server, part):
    fuzz(server, 200, slice(part, None, 4))


def test_damaged_pictures_are_refused_in_words(server):
    damage_pictures(server, 100)


def test_damaged_bodies_are_refused_in_words(server):
    damage_bodies(server, 100)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_ten_thousand_damaged_pictures_and_bodies(server, part):
    damage_pictures(server, 2500, seed=10 + part)
    damage_bodies(server, 2500, seed=20 + part)


def test_a_picture_that_unpacks_to_gigabytes_is_refused_before(server):
    bomb = bytearray(png(noise((16, 16))))
    bomb[16:24] = (100_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    answer = server.http.post("/api/pictures", files={"picture": bytes(bomb)})
    assert answer.status_code in (400, 413), answer.text


def test_every_route_is_documented_with_words_and_every_json_body_by_an_example(server):
    document = server.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            assert about.get("description") or about.get("summary"), (method, path)
            assert about.get("tags"), (method, path)
            body = about.get("requestBody", {}).get("content", {}).get("application/json")
            if body:
                schema = body["schema"]
                named = document["components"]["schemas"].get(
                    schema.get("$ref", "").rpartition("/")[2], schema
                )
                assert body.get("example") or named.get("examples"), (method, path)
