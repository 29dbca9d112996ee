"""A small OpenAI-compatible endpoint on loopback, with the faults that real ones have."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-secret-0123456789"


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that leaves: its test reads what is written to stderr."""


class LanguageModel:
    """`answer`: the text to answer with, or a name of `FAULTS`; `requests`: the received requests."""

    def __init__(self):
        self.answer, self.requests, self.delay = "Make the hair a deep blue; keep the rest as it is.", [], 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append(("GET", self.path, dict(self.headers), None))
                self.reply(200, json.dumps({"data": outer.models}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(("POST", self.path, dict(self.headers), body))
                time.sleep(outer.delay)
                fault = FAULTS.get(outer.answer)
                if fault is None:
                    content = {"choices": [{"message": {"role": "assistant", "content": outer.answer}}]}
                    self.reply(200, json.dumps(content).encode())
                else:
                    fault(self)

            def reply(self, status, data, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.models = [{"id": "small-model"}, {"id": "other"}]
        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def _drip(handler):
    """One byte after the other, without an end."""
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    try:
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


FAULTS = {
    "denied": lambda handler: handler.reply(401, f"Incorrect API key provided: {KEY}".encode()),
    "elsewhere": lambda handler: handler.reply(302, b"", location="http://127.0.0.1:9/"),
    "broken": lambda handler: handler.reply(500, b"oops"),
    "no json": lambda handler: handler.reply(200, b"<html>"),
    "deep json": lambda handler: handler.reply(200, b"[" * 100_000),
    "other json": lambda handler: handler.reply(200, b'{"choices": []}'),
    "endless": lambda handler: handler.reply(200, b" " * 10**6),
    "drip": _drip,
}
