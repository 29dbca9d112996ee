"""What the service says about itself is true: its document, its examples, and docs/http.md."""

import json
import re
from pathlib import Path

import kontext

HTTP = Path(__file__).parents[3] / "docs" / "http.md"
WEIGHTS = Path(kontext.__file__).parent / "weights" / "nano"


def test_the_capabilities_in_the_documentation_are_those_of_the_server(server):
    told = server.http.get("/api/capabilities").json()
    text = HTTP.read_text(encoding="utf-8")
    block = re.search(r"`GET /api/capabilities`\n\n```json\n(.*?)```", text, re.DOTALL)
    assert block
    shown = json.loads(block[1].replace(", ...}", "}"))
    assert shown.keys() == told.keys()
    for part in ("model", "limits", "features"):
        assert shown[part].keys() == told[part].keys(), part
    nano = json.loads((WEIGHTS / "config.json").read_text(encoding="utf-8"))["preset"]
    # of the server with its defaults, except for what comes from the model
    of_the_model = {"prompt_tokens": nano["text_length"]}
    assert shown["limits"] == told["limits"] | of_the_model and shown["features"] == told["features"]
    model = shown["model"]
    assert model["name"] == WEIGHTS.name and model["prompt_tokens"] == nano["text_length"]
    assert model["native_sizes"][0] in nano["sizes"]
    assert model["steps"] == nano["sampling"]["steps"] and model["guidance"] == nano["sampling"]["guidance"]
    tokens = re.search(r"`POST /api/tokens`[^`]*`{[^`]*`[^`]*`({[^`]*})`", text)
    assert tokens and json.loads(tokens[1])["limit"] == nano["text_length"]


def test_examples_of_the_openapi_document_that_need_no_ids_are_accepted(server):
    document = server.http.get("/openapi.json").json()
    tried = set()
    for path, methods in document["paths"].items():
        body = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if not body or re.search(r"{(session|turn|job)}", path):
            continue
        schema = body["schema"]
        named = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
        examples = [body["example"]] if "example" in body else named["examples"]
        for example in examples:
            if {"session", "picture", "url"} & example.keys():
                continue  # ids, and an address that only some servers may fetch
            answer = server.http.post(path.replace("{model}", "nano").replace("{size}", "pro"), json=example)
            assert answer.status_code < 300, (path, example, answer.text)
            tried.add(path)
    assert {"/api/sessions", "/api/tokens", "/v1/images/edits", "/hf/{model}"} <= tried
