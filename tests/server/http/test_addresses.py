"""Unknown addresses: 404 with a hint for any method, 405 only for known addresses."""

import httpx
import pytest

from kontext.server.http.addresses import Addresses
from kontext.server.routes import openai as openai_routes
from support.serving import noise, png

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/nowhere", "/api/nowhere/x", "/app.jsx", "/v2", "//", "/v1/"]
)
def test_an_unknown_address_is_404_by_every_method(server, method, path):
    answer = server.http.request(method, server.url + path)
    assert answer.status_code == 404, (method, path)
    if method != "HEAD":
        told = answer.json()
        assert told["code"] == "not_found" and told["error"]["message"].startswith("no such address")


@pytest.mark.parametrize(
    "method, path, meant",
    [
        ("POST", "/images/edits", "/v1/images/edits"),
        ("POST", "//v1/images/edits", "/v1/images/edits"),
        ("POST", "/v1//images/edits", "/v1/images/edits"),
        ("POST", "/v1/images/edits/", "/v1/images/edits"),
        ("POST", "/v1/v1/images/generations", "/v1/images/generations"),
        ("POST", "/openai/v1/images/generations", "/v1/images/generations"),
        ("POST", "/api/v1/images/generations", "/v1/images/generations"),
        ("POST", "/V1/Images/Edits", "/v1/images/edits"),
        ("GET", "/models", "/v1/models"),
        ("GET", "/v1/models/", "/v1/models"),
        ("POST", "/flux-kontext-pro", "/v1/flux-kontext-pro"),
        ("POST", "/v1/flux-kontext-pro/", "/v1/flux-kontext-pro"),
        ("GET", "/get_result", "/v1/get_result"),
        ("GET", "/sessions", "/api/sessions"),
        ("GET", "/api/sessions/", "/api/sessions"),
        ("POST", "/kontext/proxy/bfl/flux-kontext-max/generate", "/proxy/bfl/flux-kontext-max/generate"),
    ],
)
def test_a_wrong_base_url_is_answered_by_the_right_address(server, method, path, meant):
    answer = server.http.request(method, server.url + path, json={"prompt": "x"})
    if path.startswith("/v1/models/"):
        assert answer.status_code == 200  # every name means the loaded model, the empty one too
        return
    assert answer.status_code == 404
    assert f"did you mean {meant}?" in answer.json()["message"]


@pytest.mark.parametrize("base", ["", "/", "/v1//", "/openai"])
def test_the_openai_client_shows_the_hint(server, base):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(
        base_url=server.url + base, api_key="any", max_retries=0, http_client=httpx.Client(trust_env=False)
    )
    with pytest.raises(openai.NotFoundError, match="did you mean /v1/images/edits"):
        client.images.edit(model="x", prompt="x", image=("kid.png", png(noise())))


def test_a_known_address_says_which_methods_it_takes(server):
    for method, path, allowed in (
        ("GET", "/v1/images/edits", "POST"),
        ("PUT", "/api/sessions", "GET, POST"),
        ("DELETE", "/v1/get_result", "GET"),
        ("POST", "/", "GET, HEAD"),
        ("POST", "/app.js", "GET, HEAD"),
    ):
        answer = server.http.request(method, path)
        assert answer.status_code == 405 and answer.headers["allow"] == allowed, (method, path)
        assert "is not allowed at this address" in answer.json()["message"]


def test_a_person_gets_a_page_and_a_way_home(server):
    answer = server.http.get("/<script>alert(1)</script>", headers={"accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/html")
    assert "no such address" in answer.text and '<a href="/">' in answer.text and "<script" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_hints_stay_small_and_quick():
    known = Addresses(openai_routes.router.routes)
    long = "/a" * 100_000
    assert known.nearest(long) is None and len(known.refusal("GET", long).detail) < 300
    assert known.nearest("/x" * 5 + "/images/edits") == "/v1/images/edits"
    assert Addresses().refusal("GET", "/\x1b[31m\u202e").detail.isprintable()
