"""A small stand-in for a model hub on loopback.

The endpoints that `huggingface_hub` and the product use, and what goes wrong on real ones.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kontext.checkpoint.hub import models as hub

LARGE_BYTES = 2000
"""Files from this size on are in "LFS": the answer sends the client to a storage host."""
CHUNK_BYTES = 1000
TRANSFORMER = "transformer.safetensors"


@dataclass
class Repo:
    files: dict[str, bytes]
    gated: bool = False
    """Only tokens of `StandIn.accepted` may download files."""

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files)).encode()).hexdigest()


@dataclass
class Fault:
    """What happens to the next `times` answers with bytes of a file."""

    times: int = 1
    break_after: int | None = None
    """Bytes after which the connection is closed."""
    stall_after: int | None = None
    """Bytes after which nothing more is sent."""
    seconds: float = 0.0
    """Between two pieces."""
    status: int | None = None
    damaged: bool = False
    """Other bytes than those of the digest."""
    then: Fault | None = None
    """What happens afterwards."""


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class StandIn:
    """The hub. `url` is what HF_ENDPOINT must be."""

    repos: dict[str, Repo] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {"known", "accepted"})
    accepted: set[str] = field(default_factory=lambda: {"accepted"})
    faults: dict[str, Fault] = field(default_factory=dict)
    """By path of a file."""
    ranges: bool = True
    """Whether parts of files are sent."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> StandIn:
        stand_in = self
        handler = type("Handler", (_Handler,), {"hub": stand_in})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        port = self.server.server_address[1]
        self.url, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, source: Path | dict[str, bytes], gated: bool = False) -> Repo:
        """A repository with the files of a folder."""
        if isinstance(source, Path):
            files = [file for file in sorted(source.rglob("*")) if file.is_file()]
            source = {file.relative_to(source).as_posix(): file.read_bytes() for file in files}
        repo = self.repos[name] = Repo(dict(source), gated)
        return repo

    def downloaded(self) -> list[str]:
        """Paths whose bytes were asked for, in that order."""
        return [request.path for request in self.requests if request.method == "GET" and request.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802 (the library's name)
        self._route()

    def do_GET(self) -> None:  # noqa: N802
        self._route()

    def _route(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        if token is not None and token not in self.hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif parts[0] == "page":
            self._answer(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})
        elif parts[:2] == ["api", "models"]:
            self._record("", token)
            kind, revision = parts[4:6] if len(parts) > 5 else ("revision", "main")
            self._info("/".join(parts[2:4]), revision, as_tree=kind == "tree")
        elif parts[0] == "storage":
            name, path = "/".join(parts[1:3]), "/".join(parts[3:])
            self._record(path, token)
            self._send_file(path, self.hub.repos[name].files[path], {})
        elif parts[2:3] == ["resolve"]:
            path = "/".join(parts[4:])
            self._resolve("/".join(parts[:2]), parts[3], path, token)
        else:
            self._refuse(404, "", "not found")

    def _record(self, path: str, token: str | None) -> None:
        self.hub.requests.append(Request(self.command, path, self.headers.get("range"), token))

    def _info(self, name: str, revision: str, as_tree: bool) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._refuse(401 if self.headers.get("authorization") is None else 404, "RepoNotFound")
        elif revision not in ("main", repo.commit):
            self._refuse(404, "RevisionNotFound")
        elif as_tree:
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
                for path, data in repo.files.items()
            ]
            self._answer(200, json.dumps(entries).encode(), {})
        else:
            siblings = [{"rfilename": path} for path in repo.files]
            body = {"id": name, "modelId": name, "sha": repo.commit, "private": False, "tags": []}
            self._answer(200, json.dumps({**body, "siblings": siblings}).encode(), {})

    def _resolve(self, name: str, revision: str, path: str, token: str | None) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._refuse(401 if token is None else 404, "RepoNotFound")
            return
        if repo.gated and token not in self.hub.accepted:
            self._refuse(401 if token is None else 403, "GatedRepo")
            return
        if revision not in ("main", repo.commit):
            self._refuse(404, "RevisionNotFound")
            return
        data = repo.files.get(path)
        if data is None:
            self._refuse(404, "EntryNotFound", headers={"X-Repo-Commit": repo.commit})
            return
        headers = {"X-Repo-Commit": repo.commit}
        if len(data) >= LARGE_BYTES:
            headers |= {
                "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.hub.storage}/storage/{name}/{path}",
            }
            self._answer(302, b"", headers)
        else:
            digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self._record(path, token)
            self._send_file(path, data, {**headers, "ETag": f'"{digest}"'})

    def _send_file(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        fault = self.hub.faults.get(path) if self.command == "GET" else None
        while fault is not None and fault.times <= 0:
            fault = fault.then
        if fault is not None:
            fault.times -= 1
            if fault.status is not None:
                self._refuse(fault.status, "")
                return
        start = 0
        if self.hub.ranges and (wanted := self.headers.get("range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        body = data[start:] if not (fault and fault.damaged) else bytes(len(data) - start)
        self.send_response(206 if start else 200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = 0
        for at in range(0, len(body), CHUNK_BYTES):
            piece = body[at : at + CHUNK_BYTES]
            if fault and fault.break_after is not None and sent + len(piece) > fault.break_after:
                self.wfile.write(piece[: fault.break_after - sent])
                self.close_connection = True
                return
            if fault and fault.stall_after is not None and sent >= fault.stall_after:
                time.sleep(3)
                self.close_connection = True
                return
            try:
                self.wfile.write(piece)
            except OSError:  # the client is gone
                self.close_connection = True
                return
            sent += len(piece)
            time.sleep(fault.seconds if fault else 0)

    def _refuse(
        self, status: int, code: str, message: str = "", headers: dict[str, str] | None = None
    ) -> None:
        more = {"X-Error-Code": code, "X-Error-Message": message or code}
        self._answer(status, b"", {**more, **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def nothing_left() -> bool:
    """Whether no model is in the models folder, not even a part of one."""
    folder = hub.models_folder()
    return not folder.exists() or all(path.suffix == ".lock" for path in folder.iterdir())
