"""Addresses that strangers choose: nothing private is reached.

However it is spelled, resolved or redirected.
"""

import asyncio
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kontext.errors import BadConfig, BadRequest
from kontext.server import fetching
from support.serving import noise, opened, png

TRICKS = [
    "http://127.0.0.1/x.png",
    "http://127.1/x.png",
    "http://127.000.000.001/x.png",
    "http://2130706433/x.png",
    "http://0x7f000001/x.png",
    "http://0x7f.1/x.png",
    "http://0177.0.0.1/x.png",
    "http://0/x.png",
    "http://0.0.0.0/x.png",
    "http://localhost/x.png",
    "http://LOCALHOST./x.png",
    "http://[::1]/x.png",
    "http://[::]/x.png",
    "http://[::ffff:127.0.0.1]/x.png",
    "http://[::ffff:7f00:1]/x.png",
    "http://[::ffff:0:127.0.0.1]/x.png",
    "http://[::127.0.0.1]/x.png",
    "http://[64:ff9b::7f00:1]/x.png",
    "http://[2002:7f00:1::]/x.png",
    "http://[2001:0:7f00:1::]/x.png",
    "http://[fe80::1]/x.png",
    "http://[fc00::1]/x.png",
    "http://[fe80::1%25lo]/x.png",
    "http://10.0.0.1/x.png",
    "http://172.16.0.1/x.png",
    "http://192.168.1.1/x.png",
    "http://100.64.0.1/x.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://192.0.2.1/x.png",
    "http://224.0.0.1/x.png",
    "http://255.255.255.255/x.png",
    "http://240.0.0.1/x.png",
    "http://user:password@93.184.216.34/x.png",
    "http://93.184.216.34@127.0.0.1/x.png",
    "http://93.184.216.34:22/x.png",
    "http://93.184.216.34:99999/x.png",
    "http://127.0.0.1\\@93.184.216.34/x.png",
    "http://93.184.216.34\\@127.0.0.1/x.png",
    "http://93.184.216.34/x\r\nHost: 127.0.0.1",
    "http://①②⑦.⓪.⓪.①/x.png",
    "http:///x.png",
    "http:x.png",
    "//127.0.0.1/x.png",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "ftp://127.0.0.1/x.png",
    "dict://127.0.0.1:11211/stats",
    "data:text/html,hello",
    "jar:http://127.0.0.1!/x",
    "",
]


def fetch(url, **options):
    return asyncio.run(fetching.fetch(url, **{"limit_bytes": 10_000, "seconds": 3.0, **options}))


@pytest.fixture
def connections(monkeypatch):
    """Every address to which a connection is begun."""
    begun = []

    async def begin(self, host, port, *_, **__):
        begun.append(host)
        raise OSError("the test allows no connection")

    from httpcore._backends.auto import AutoBackend

    monkeypatch.setattr(AutoBackend, "connect_tcp", begin)
    return begun


@pytest.mark.parametrize("url", TRICKS)
def test_tricks_are_refused_before_any_connection(url, connections):
    with pytest.raises(BadRequest):
        fetch(url)
    assert connections == []


def test_the_connection_goes_to_the_address_that_was_looked_at(connections, monkeypatch):
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])

    def rebinding(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(BadRequest, match="reached"):
        fetch("http://rebinding.example/x.png")
    assert connections == ["93.184.216.34"]
    with pytest.raises(BadRequest, match="private"):
        fetch("http://rebinding.example/x.png")
    assert connections == ["93.184.216.34"]


def test_one_private_address_among_public_ones_is_refused(connections, monkeypatch):
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 80)) for host in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(BadRequest, match="private"):
        fetch("http://both.example/x.png")
    assert connections == []


def test_a_name_of_a_private_address_is_refused_before_a_job_is_accepted(monkeypatch):
    def looks_up(*addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    def check(**allowed):
        asyncio.run(fetching.check_host("https://hooks.example/x", **allowed))

    looks_up("93.184.216.34", "10.0.0.1")
    with pytest.raises(BadRequest, match="private"):
        check()
    check(hosts=("hooks.example",))
    check(private=True)
    looks_up("93.184.216.34")
    check()

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "not now")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    check()  # looked up again when it is called


def test_a_slow_name_server_holds_up_nobody(monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gate.wait(30))
    monkeypatch.setattr(fetching, "LOOKUP_SECONDS", 0.2)

    async def ask():
        checks = [fetching.check_host(f"https://host{i}.example/x") for i in range(20)]
        await asyncio.gather(*checks, asyncio.to_thread(lambda: None))

    try:
        asyncio.run(asyncio.wait_for(ask(), 20))
    finally:
        gate.set()


@pytest.fixture
def site():
    """A web server on loopback with pictures, redirects and endless bodies."""
    picture = png(noise())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/picture":
                self.answer(200, picture)
            elif self.path == "/loop":
                self.answer(302, b"", location="/loop")
            elif self.path == "/away":
                self.answer(302, b"", location="http://169.254.169.254/")
            elif self.path == "/once":
                self.answer(307, b"", location="/picture")
            elif self.path == "/large":
                self.answer(200, b"x" * 1_000_000)
            elif self.path == "/slow":
                threading.Event().wait(1.5)
                self.answer(200, picture)
            else:
                self.answer(404, b"")

        def answer(self, status, body, **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_redirects_sizes_and_times_are_bounded(site, monkeypatch):
    allowed = dict(private=True, limit_bytes=100_000)
    assert opened(fetch(f"{site}/picture", **allowed)).size == opened(fetch(f"{site}/once", **allowed)).size
    for path, words in [("loop", "redirects"), ("large", "larger than"), ("none", "404")]:
        with pytest.raises(BadRequest, match=words):
            fetch(f"{site}/{path}", **allowed)
    with pytest.raises(BadRequest, match="within"):
        fetch(f"{site}/slow", private=True, seconds=0.3)


def test_a_redirect_into_the_own_network_is_refused(site, monkeypatch):
    """The first address is allowed by hand, the second one is looked at."""
    port = int(site.rsplit(":", 1)[1])
    monkeypatch.setattr(fetching, "PORTS", (port,))
    true = fetching.check_address
    monkeypatch.setattr(fetching, "check_address", lambda text: None if text == "127.0.0.1" else true(text))
    with pytest.raises(BadRequest, match="private"):
        fetch(f"{site}/away")


def test_urls_are_taken_only_where_the_operator_allows_them(server, start, site):
    body = {"prompt": "x", "input_image": f"{site}/picture"}
    answer = server.http.post("/v1/flux-kontext-pro", json=body)
    assert answer.status_code == 400 and "port" in answer.json()["message"]
    answer = server.http.post("/api/pictures", json={"url": "https://example.org/x.png"})
    assert answer.status_code == 400 and "does not fetch" in answer.json()["message"]
    allowing = start(fetch_urls=True, private_addresses=True).ready()
    assert allowing.http.post("/v1/flux-kontext-pro", json=body).status_code == 200
    answer = allowing.http.post("/api/pictures", json={"url": f"{site}/picture"})
    assert answer.status_code == 201 and answer.json()["size"] == [96, 64]
    allowing.stop()


@pytest.mark.parametrize(
    "entry, host, port, named",
    [
        ("n8n.lan:5678", "n8n.lan", 5678, True),
        ("N8N.lan.:5678", "n8n.LAN", 5678, True),
        ("n8n.lan:5678", "n8n.lan", 80, False),
        ("n8n.lan:5678", "x.n8n.lan", 5678, False),
        ("n8n.lan", "n8n.lan", 80, True),
        ("n8n.lan", "n8n.lan", 443, True),
        ("n8n.lan", "n8n.lan", 22, False),
        ("n8n.lan:*", "n8n.lan", 22, True),
        ("127.0.0.1:5678", "127.0.0.1", 5678, True),
        ("127.0.0.1:5678", "127.1", 5678, False),
        ("[::1]:5678", "0:0:0:0:0:0:0:1", 5678, True),
        ("::1", "[::1]", 443, True),
    ],
)
def test_a_named_host_is_named_with_its_ports(entry, host, port, named):
    assert fetching.is_named(host, port, [entry]) is named


@pytest.mark.parametrize(
    "entry", ["", "http://n8n.lan", "n8n.lan/x", "n8n.lan:x", "n8n.lan:99999", "a b", "[::1", "u@h", "1:2:3"]
)
def test_a_host_that_cannot_be_read_is_refused_at_the_start(entry):
    from kontext.server import Settings

    for option in ("picture_hosts", "webhook_hosts"):
        with pytest.raises(BadConfig, match="write NAME"):
            Settings(**{option: (entry,)})


def test_named_hosts_are_reached_and_lead_nowhere_else(site, monkeypatch):
    """By name and by address; a redirect to a host that is not named is looked at like any other."""
    named = [site.removeprefix("http://")]
    for public in (True, False):
        assert opened(fetch(f"{site}/once", hosts=named, public=public, limit_bytes=100_000)).size == (96, 64)
        with pytest.raises(BadRequest, match="private"):
            fetch(f"{site}/away", hosts=named, public=public)
    by_name = site.replace("127.0.0.1", "localhost")
    with pytest.raises(BadRequest, match="port"):
        fetch(f"{by_name}/picture", hosts=named)
    resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
    with pytest.raises(BadRequest, match="private"):
        fetch("http://n8n.lan/picture")
    inside = f"n8n.lan:{site.rsplit(':', 1)[1]}"
    assert fetch(f"http://{inside}/picture", hosts=[inside], limit_bytes=100_000)


def test_the_operator_names_hosts_for_pictures_and_for_webhooks_apart(start, site):
    host = site.removeprefix("http://")
    server = start(picture_hosts=(host,), webhook_hosts=("127.0.0.1:5678", "n8n.lan:*")).ready()
    assert server.http.get("/api/capabilities").json()["features"]["fetch_urls"]

    def submit(**fields):
        return server.http.post("/v1/flux-kontext-pro", json={"prompt": "x", **fields})

    assert submit(input_image=f"{site}/picture").status_code == 200
    assert server.http.post("/api/pictures", json={"url": f"{site}/picture"}).status_code == 201
    answer = submit(input_image="https://example.org/x.png")
    assert answer.status_code == 400 and "does not fetch" in answer.json()["message"]
    assert submit(input_image="http://127.0.0.1:5678/x.png").status_code == 400
    assert submit(webhook_url="http://127.0.0.1:5678/hook?a=1").status_code == 200
    assert submit(webhook_url="http://n8n.lan:9000/hook").status_code == 200
    for url in (f"{site}/hook", "http://127.0.0.1:5679/", "http://10.0.0.1/"):
        assert submit(webhook_url=url).status_code == 400, url
    document = server.http.get("/openapi.json").json()
    described = document["components"]["schemas"]["KontextInputs"]["properties"]["webhook_url"]
    assert {"type": "string", "format": "uri", "minLength": 1, "maxLength": 2083} in described["anyOf"]
    server.stop()
