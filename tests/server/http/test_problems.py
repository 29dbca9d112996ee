"""Invalid fields and bodies are explained in our words, by every route."""

import json

import pytest

from kontext.engine.requests import check_prompt
from kontext.errors import BadRequest
from kontext.server.routes.edits import Edit

JSON = {"content-type": "application/json"}
PYDANTIC = (
    "Input should",
    "Extra inputs",
    "String should",
    "Tuple should",
    "List should",
    "LoraField",
    "raw data",
)


def post(server, path, body, method="POST"):
    text = body if isinstance(body, str) else json.dumps(body)
    return server.http.request(method, path, content=text, headers=JSON)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"box": 3}, "box: must be a list of 4 numbers"),
        ({"box": [1, 2, 3]}, "box: must be a list of 4 numbers"),
        ({"box": [1, 2, 3, 4, 5]}, "box: must be a list of 4 numbers"),
        ({"box": [1, 2, 3, "a"]}, "box[3]: must be a whole number"),
        ({"mask": "zz"}, "mask: must be 64 digits of 0-9 and a-f"),
        ({"references": 3}, "references: must be a list"),
        ({"references": ["0" * 64] * 9}, "references: must have at most 3 entries, got 9"),
        ({"lock": "perhaps"}, "lock: must be true or false"),
        ({"steps": 1.5}, "steps: must be a whole number"),
        ({"steps": 999}, "steps: must be at most 200, got 999"),
        ({"guidance": "much"}, "guidance: must be a number"),
        ({"sampler": "best"}, "sampler: must be 'euler', 'ab2' or 'midpoint'"),
        ({"prompt": 3}, "prompt: must be text"),
        ({"prompt": "x" * 10_001}, "prompt: must have at most 10000 characters, got 10001"),
        (
            {"loras": [{"nam": "knit"}]},
            "loras[0].nam: unknown field; the fields are name, path, scale, sha256",
        ),
        ({"loras": 3}, "loras: must be a list"),
        ({"foo": 1}, f"foo: unknown field; the fields are {', '.join(Edit.model_fields)}"[:200]),
        ({"a\ud800": 1}, "the text has half of a character"),
    ],
)
def test_wrong_fields_are_told_in_our_words(server, fields, words):
    session = server.session()
    answer = post(server, f"/api/sessions/{session['id']}/edits", {"prompt": "x", **fields})
    told = answer.json()
    assert answer.status_code == 422 and told["message"].startswith(words), told["message"]
    assert not any(phrase in answer.text for phrase in PYDANTIC), answer.text


@pytest.mark.parametrize(
    "path, field, body",
    [
        ("/v1/images/generations", "prompt", {}),
        ("/v1/images/edits", "prompt", {"images": ["x"]}),
        ("/v1/flux-kontext-pro", "prompt", {}),
        ("/hf/fake", "prompt", None),
        ("/api/tokens", "prompt", {}),
        ("/api/sessions/{session}/edits", "prompt", {}),
        ("/api/sessions", "name", {}),
        ("PATCH /api/sessions/{session}", "name", {}),
    ],
)
def test_half_of_a_character_is_told_in_the_words_of_the_engine(server, path, field, body):
    text = "a hat \ud83d"
    with pytest.raises(BadRequest) as expected:
        check_prompt(text, field)
    method, _, address = path.rpartition(" ")
    whole = {"inputs": "", "parameters": {field: text}} if body is None else {field: text, **body}
    address = address.format(session=server.session()["id"])
    answer = post(server, address, whole, method or "POST")
    assert answer.status_code in (400, 422) and str(expected.value) in answer.json()["message"], answer.text
    assert "raw data" not in answer.text


@pytest.mark.parametrize(
    "body, words",
    [
        ('{"prompt": "x", "name": "x", "seed": ' + "9" * 5000 + "}", "a whole number that is too large"),
        ('{"prompt": "x', "the body is not valid JSON"),
        ("[" * 40_000, "the body is nested too deeply"),
    ],
)
def test_a_body_that_cannot_be_read_says_why(server, body, words):
    for path in (
        "/v1/flux-kontext-pro",
        "/v1/images/generations",
        "/v1/images/edits",
        "/hf/x",
        "/api/sessions",
    ):
        answer = post(server, path, body)
        assert answer.status_code in (400, 422) and words in answer.json()["message"], (path, answer.text)
