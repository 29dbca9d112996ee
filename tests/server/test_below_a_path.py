"""Behind a reverse proxy that serves other things too.

Page, API, events, downloads, cookies, webhooks and the official clients work below a path, whether the
proxy passes the path on or strips it.
"""

import base64
import json
import re
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from urllib.parse import urljoin, urlsplit

import httpx
import numpy as np
import pytest

from kontext.errors import BadConfig
from kontext.server import Settings
from kontext.server.auth.keys import Keys
from support.fake_editor import tint
from support.serving import noise, opened, png, until

HOP = {"connection", "transfer-encoding", "keep-alive", "host"}


class Proxy:
    """Passes what lies below `path` to a port, with its own Host header; the rest of the host is 418."""

    def __init__(self, path, strip):
        proxy = self
        self.backend, self.asked = 0, []

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self):
                proxy.asked.append(self.path)
                if not self.path.startswith(f"{path}/") and self.path != path:
                    self.send_error(418)
                    return
                target = (self.path[len(path) :] or "/") if strip else self.path
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                kept = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
                link = HTTPConnection("127.0.0.1", proxy.backend, timeout=60)
                link.request(self.command, target, body, {**kept, "Host": f"127.0.0.1:{proxy.backend}"})
                answer = link.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in HOP:
                        self.send_header(name, value)
                self.send_header("connection", "close")
                self.end_headers()
                try:
                    while chunk := answer.read1(65536):
                        self.wfile.write(chunk)
                except OSError:
                    pass  # the client has left
                link.close()

            do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = pass_on

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.origin}{path}/"


@pytest.fixture(scope="module", params=["stripped", "passed on"])
def proxied(request, start):
    """A server below /kontext/ of a proxy, with keys; asked through the proxy alone."""
    proxy = Proxy("/kontext", request.param == "stripped")
    server = start(public_url=proxy.url, require_keys=True, webhook_hosts=("127.0.0.1:*",)).ready()
    proxy.backend = server.settings.port
    proxy.running = server
    _, proxy.key = Keys(server.service.store).create("anna", rate_per_minute=6000)
    proxy.http = httpx.Client(trust_env=False, timeout=60, headers={"x-key": proxy.key})
    yield proxy
    proxy.http.close()
    proxy.server.shutdown()


def edited(proxied, base):
    """A session with one edit, made as the page makes it: addresses relative to `base`."""
    files = {"picture": ("kid.png", png(noise()), "image/png")}
    session = proxied.http.post(urljoin(base, "api/sessions"), files=files).json()
    address = urljoin(base, f"api/sessions/{session['id']}/edits")
    (job,) = proxied.http.post(address, json={"prompt": "a hat", "seed": 3}).json()["jobs"]
    events = proxied.http.get(urljoin(base, f"api/jobs/{job['id']}/events")).text
    return session, job, events


def test_the_page_and_everything_it_loads_lie_below_the_path(proxied):
    page = proxied.http.get(proxied.url)
    assert page.status_code == 200 and "<kontext-app>" in page.text
    links = re.findall(r"<([^>]+)>; rel=(?:modulepreload|preload)", page.headers["link"])
    links += re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(links) > 25
    for link in links:
        address = urljoin(proxied.url, link)
        answer = proxied.http.get(address)
        assert answer.status_code == 200 and address.startswith(proxied.url), link
        if address.endswith(".js"):
            for name in re.findall(r"""(?:from|import)\s*\(?["'](\.[^"']+)["']""", answer.text):
                assert proxied.http.get(urljoin(address, name)).status_code == 200
            if address.endswith("core/api.js"):  # its addresses pass through `located`
                assert not re.search(r"(?:fetch|EventSource)\((?!located\()", answer.text)
            else:
                assert not re.search(r"""["'`]/api/""", answer.text), "a call to the root of the host"


def test_the_address_without_its_slash_leads_to_the_page(proxied):
    answer = proxied.http.get(proxied.url.rstrip("/"))
    if answer.status_code != 200:  # a proxy that strips has asked for "/" already
        assert answer.status_code == 308
        assert urljoin(proxied.url.rstrip("/"), answer.headers["location"]) == proxied.url


def test_the_addresses_that_the_api_gives_work_as_they_are(proxied):
    session, job, events = edited(proxied, proxied.url)
    told = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: ")]
    made = told[-1]["turn"]
    whole = proxied.http.get(urljoin(proxied.url, f"api/sessions/{session['id']}")).json()
    assert made == whole["turns"][1] and made["id"] == job["id"]
    listed = proxied.http.get(urljoin(proxied.url, "api/sessions")).json()["sessions"][0]["thumbnail"]
    examples = proxied.http.get(urljoin(proxied.url, "api/examples")).json()["examples"]
    files = {"picture": png(noise())}
    upload = proxied.http.post(urljoin(proxied.url, "api/pictures"), files=files).json()["url"]
    given = [made["picture"], made["thumbnail"], made["region"], listed, examples[0]["picture"], upload]
    for address in given:
        assert address.startswith("/kontext/api/")
        answer = proxied.http.get(urljoin(proxied.url, address))
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("image/")
    picture = proxied.http.get(urljoin(proxied.url, made["picture"]), params={"download": True})
    assert "attachment" in picture.headers["content-disposition"]
    assert np.array_equal(np.asarray(opened(picture.content)), np.asarray(tint(noise(), "a hat", 3)[0]))
    archive = proxied.http.get(urljoin(proxied.url, f"api/sessions/{session['id']}/export"))
    assert archive.content.startswith(b"PK")


def test_the_cookie_of_a_login_is_sent_to_this_path_alone(proxied):
    with httpx.Client(trust_env=False, timeout=60) as browser:
        origin = {"origin": proxied.origin, "sec-fetch-site": "same-origin"}
        login = urljoin(proxied.url, "api/login")
        answer = browser.post(login, json={"key": proxied.key}, headers=origin)
        assert answer.status_code == 204 and "path=/kontext/" in answer.headers["set-cookie"].lower()
        assert proxied.key not in answer.headers["set-cookie"]
        assert browser.get(urljoin(proxied.url, "api/sessions")).status_code == 200
        assert "cookie" not in browser.build_request("GET", f"{proxied.origin}/other").headers
        assert browser.post(urljoin(proxied.url, "api/logout"), headers=origin).status_code == 204
        assert browser.get(urljoin(proxied.url, "api/sessions")).status_code == 401
        assert browser.post(login, json={}, headers={"origin": "http://evil.example"}).status_code == 403


def test_bfl_urls_and_webhooks_lie_below_the_path(proxied):
    got = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    hook = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    body = {
        "prompt": "a hat",
        "input_image": base64.b64encode(png(noise())).decode(),
        "webhook_url": f"http://127.0.0.1:{hook.server_port}/done",
    }
    task = proxied.http.post(urljoin(proxied.url, "v1/flux-kontext-pro"), json=body).json()
    assert task["polling_url"] == f"{proxied.url}v1/get_result?id={task['id']}"
    ready = until(lambda: (a := proxied.http.get(task["polling_url"]).json())["status"] == "Ready" and a)
    until(lambda: got)
    for sample in (ready["result"]["sample"], got[0]["result"]["sample"]):
        assert sample.startswith(f"{proxied.url}v1/samples/")
        assert opened(httpx.get(sample, trust_env=False).content).size == (96, 64)
    hook.shutdown()


def test_the_official_clients_work_below_the_path(proxied, monkeypatch):
    openai = pytest.importorskip("openai")
    hub = pytest.importorskip("huggingface_hub")
    client = openai.OpenAI(
        base_url=f"{proxied.url}v1", api_key=proxied.key, http_client=httpx.Client(trust_env=False)
    )
    answer = client.images.edit(
        model="x", image=("kid.png", png(noise())), prompt="a hat", response_format="url"
    )
    assert answer.data[0].url.startswith(f"{proxied.url}v1/samples/")
    assert httpx.get(answer.data[0].url, trust_env=False).status_code == 200
    assert [model.id for model in client.models.list()]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    inference = hub.InferenceClient(provider="hf-inference", token=proxied.key)
    picture = inference.image_to_image(png(noise()), prompt="a hat", model=f"{proxied.url}hf/nano")
    assert picture.size == (96, 64)


def test_nothing_was_asked_of_the_root_of_the_host(proxied):
    """Runs last: all addresses of the tests above came from the page and from answers."""
    strays = [path for path in proxied.asked if not path.startswith("/kontext")]
    assert proxied.asked and not strays


def test_an_unknown_page_leads_home_and_the_description_names_the_server(proxied):
    answer = proxied.http.get(urljoin(proxied.url, "gallery"), headers={"accept": "text/html"})
    assert answer.status_code == 404 and '<a href="/kontext/">' in answer.text
    document = proxied.http.get(urljoin(proxied.url, "openapi.json")).json()
    assert document["servers"] == [{"url": proxied.url.rstrip("/")}]


def test_the_machine_itself_may_ask_without_the_path(proxied):
    direct = proxied.running.http
    assert direct.get("/healthz").status_code == direct.get("/kontext/healthz").status_code == 200
    assert direct.get("/").status_code == 200 and direct.get("/kontexts/healthz").status_code == 404


@pytest.mark.parametrize("strip", [True, False])
def test_a_path_may_have_several_parts_and_letters_of_any_script(start, strip):
    proxy = Proxy("/bilder/%C3%A9dition", strip)
    server = start(public_url=proxy.url).ready()
    proxy.backend = server.settings.port
    with httpx.Client(trust_env=False) as client:
        made = client.post(urljoin(proxy.url, "api/sessions"), files={"picture": png(noise())}).json()
        address = urljoin(proxy.url, made["turns"][0]["picture"])
        assert urlsplit(address).path.startswith("/bilder/%C3%A9dition/api/")
        assert client.get(address).status_code == 200
    server.stop()
    proxy.server.shutdown()


@pytest.mark.parametrize(
    "url",
    [
        "example.org",
        "ftp://example.org",
        "https://",
        "https://[",
        "https://example.org:x/",
        "https://example.org/?a=1",
        "https://example.org/#a",
        "https://me@example.org/",
        "https://example.org//kontext",
        "https://example.org/api/",
        "https://example.org/v1",
    ],
)
def test_a_public_url_that_cannot_work_is_refused_at_the_start(url):
    with pytest.raises(BadConfig, match="public URL"):
        Settings(public_url=url)
