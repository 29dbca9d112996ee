"""Headers that no client should send, sent byte by byte: never a status of 500, never a traceback."""

import http.client
import itertools
import re
import socket

import pytest

from support.serving import noise, png

STRANGE = [
    b"",
    b" ",
    b"http://[",
    b"http://[::1",
    b"http://]",
    b"[",
    b"]",
    b"[]",
    b"[::1",
    b"[::1]",
    b"[::::]",
    b"[v1.x]",
    b"http://[fe80::1%25lo]",
    b"http://host:port",
    b"http://host:99999999",
    b"host:99999",
    b"host:-1",
    b":",
    b"::",
    b"null",
    b"//",
    b"http://\xff\xfe",
    b"\xe4\xbd\xa0",
    b"http://user:pw@127.0.0.1",
    b"http://\\@",
    b"\\",
    b"%",
    b"%00%zz",
    b"*",
    b"-1",
    b"1e9",
    b"9" * 5000,
    "٣".encode(),
    b"x" * 5000,
    b",,,;;;===",
    b'"',
    b"bytes=-",
    b"bytes=5-1",
    b"bytes=0-0,1-1,2-2",
    b"bytes=" + b"9" * 5000 + b"-",
    b"Bearer",
    b"Bearer \xff",
    b"Basic ===",
    b"multipart/form-data",
    b"multipart/form-data; boundary=",
    b"multipart/form-data; boundary=" + b"x" * 3000,
    b"multipart/form-data; boundary=\xff",
    b'multipart/form-data; boundary="',
    b"multipart/form-data; boundary=x; charset=nowhere",
    b"multipart/form-data; boundary=x; charset=utf-16",
    b"multipart/form-data; boundary=x; charset=\x80",
    b"application/json; charset=nowhere",
    b"application/x-www-form-urlencoded; charset=nowhere",
    b"kontext_key=\xff; a; =b; ;;",
    b'kontext_key="\\377\\"',
    b"gzip, nothing;q=x",
    b"text/html;q=",
]
READ = [
    b"host",
    b"origin",
    b"sec-fetch-site",
    b"content-type",
    b"content-length",
    b"cookie",
    b"authorization",
    b"x-key",
    b"accept",
    b"accept-language",
    b"accept-encoding",
    b"if-none-match",
    b"range",
    b"if-range",
    b"transfer-encoding",
    b"expect",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-prefix",
    b"forwarded",
    b"last-event-id",
]
FORM = b'--x\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na\r\n--x--\r\n'


def ask(port, method, path, headers, body=b""):
    """The status of a request of exactly these bytes; None when the connection was closed without one."""
    head = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(f"{method} {path} HTTP/1.1\r\n".encode() + head + b"connection: close\r\n\r\n" + body)
        link.shutdown(socket.SHUT_WR)
        with link.makefile("rb") as file:
            answer = file.read()
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert b"Traceback" not in answer
    return int(found[1]) if found else None


@pytest.fixture(scope="module", params=["open, below a path", "with keys"])
def hostile(request, start):
    """A server, and requests that read many headers."""
    keys = request.param == "with keys"
    settings = {} if keys else {"host": "0.0.0.0", "public_url": "https://example.org/kontext/"}
    server = start(require_keys=keys, **settings).ready()
    export = "/api/examples"
    if not keys:
        export = f"/api/sessions/{server.http.post('/api/sessions', json={'name': 'x'}).json()['id']}/export"
    yield (
        server,
        [
            ("GET", "/", b"", b""),
            ("GET", export, b"", b""),
            ("POST", "/v1/flux-kontext-pro", b"application/json", b'{"prompt": ""}'),
            ("POST", "/v1/images/edits", b"multipart/form-data; boundary=x", FORM),
            ("POST", "/api/login", b"application/json", b'{"key": "x"}'),
        ],
    )
    server.stop()


def test_no_header_makes_the_server_fail(hostile, caplog):
    """Every third pair of a value and a header, the requests in turn."""
    server, routes = hostile
    host, statuses = f"127.0.0.1:{server.settings.port}".encode(), set()
    for place, (value, name) in enumerate(list(itertools.product(STRANGE, READ))[::3]):
        method, path, kind, body = routes[place % len(routes)]
        headers = {b"host": host, b"content-length": str(len(body)).encode()}
        if kind:
            headers[b"content-type"] = kind
        status = ask(server.settings.port, method, path, {**headers, name: value}, body)
        assert status is None or status < 500, (method, path, name, value, status)
        statuses.add(status)
    assert {200, 400} <= statuses or server.settings.keys_needed
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("kind", [value for value in STRANGE if b"charset" in value])
def test_no_character_set_makes_a_form_fail(server, kind):
    for body in (FORM, b'{"prompt": "a"}'):
        for path in ("/v1/images/edits", "/api/pictures", "/api/sessions/import"):
            answer = server.http.post(path, content=body, headers={"content-type": kind})
            assert 400 <= answer.status_code < 500, (path, kind)


@pytest.mark.parametrize(
    "origin", ["http://[", "http://[::1", "http://x:y", "", "null", "//", "file://", "\\"]
)
def test_an_origin_that_cannot_be_parsed_is_foreign(server, origin):
    answer = server.http.post("/v1/flux-kontext-pro", json={"prompt": "x"}, headers={"origin": origin})
    assert answer.status_code == 403 and answer.json()["code"] == "forbidden"


def test_the_origin_of_the_public_url_is_our_own(start):
    server = start(public_url="https://Example.org:443/kontext").ready()
    for origin, status in (
        ("https://example.org", 400),
        ("https://example.org:443", 400),
        ("http://example.org", 403),
        ("https://example.org:8443", 403),
        ("https://example.org.evil.net", 403),
        ("https://evil.net/example.org", 403),
    ):
        body = {"inputs": "x", "parameters": {"prompt": "x"}}
        answer = server.http.post("/hf/x", json=body, headers={"origin": origin})
        assert answer.status_code == status, origin
    server.stop()


def test_a_host_that_cannot_be_read_is_400_where_every_name_is_answered(start):
    server = start(host="0.0.0.0", require_keys=False).ready()
    for host in ("[", "[::1", "a b", "a/b", "a@b", "host:99999", "é"):
        link = http.client.HTTPConnection("127.0.0.1", server.settings.port, timeout=30)
        link.putrequest("GET", "/", skip_host=True)
        link.putheader("Host", host.encode("latin-1"))
        link.endheaders()
        assert link.getresponse().status == 400, host
        link.close()
    files = {"picture": png(noise())}
    assert server.http.post("/api/sessions", files=files, headers={"host": "[::1]:80"}).status_code == 201
    server.stop()


def test_head_is_get_without_a_body(server):
    session = server.session(noise((64, 48)))
    paths = (
        "/",
        "/healthz",
        "/api/sessions",
        "/api/capabilities",
        session["turns"][0]["picture"],
        "/api/none",
    )
    for path in paths:
        got, head = server.http.get(path), server.http.head(path)
        assert head.status_code == got.status_code and not head.content, path
        for name in ("content-type", "content-length", "etag", "content-security-policy"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
    assert server.http.head(f"/api/sessions/{session['id']}/edits").status_code == 405
    assert server.http.get("/api/sessions").json()["sessions"]
