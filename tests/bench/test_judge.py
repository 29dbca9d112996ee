"""The judge client against a local stand-in endpoint that can answer, babble, dawdle and fail."""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from kontext.bench.judge import Judge, NoScore


class Endpoint:
    """Answers each request with the next of ``script``: text, a status number, or seconds to sleep first."""

    def __init__(self):
        self.script, self.asked = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, dict(self.headers), body))
                said = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                if isinstance(said, float):
                    time.sleep(said)
                    said = '{"done": 9, "kept": 9, "natural": 9, "clean": 9}'
                status = said if isinstance(said, int) else 200
                data = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
                try:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(data)
                except BrokenPipeError:
                    pass  # the client gave up waiting, as it should

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def judge(self, **settings):
        settings = {"timeout_seconds": 2.0, "pause_seconds": 0.0} | settings
        return Judge(self.url, "some-vision-model", **settings)


@pytest.fixture
def endpoint():
    endpoint_server = Endpoint()
    yield endpoint_server
    endpoint_server.server.shutdown()
    endpoint_server.server.server_close()


RED, BLUE = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")


def test_an_answer_becomes_viescore(endpoint):
    endpoint.script = ['Sure:\n```json\n{"done": 8, "kept": 9, "natural": 2, "clean": 7, "why": "seam"}\n```']
    scores = endpoint.judge(key="secret").viescore(RED, BLUE, 'make {it} "blue"')
    assert scores == {"sc": 8, "pq": 2, "overall": 4}
    path, headers, body = endpoint.asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    text, first, second = body["messages"][0]["content"]
    assert 'make {it} "blue"' in text["text"] and body["model"] == "some-vision-model"
    sent = [
        Image.open(io.BytesIO(base64.b64decode(p["image_url"]["url"].split(",")[1]))) for p in (first, second)
    ]
    assert [p.getpixel((0, 0)) for p in sent] == [(255, 0, 0), (0, 0, 255)]


def test_imgedit_caps_the_second_and_third_by_the_first(endpoint):
    endpoint.script = ['{"done": 2, "fit": 5, "clean": 1}']
    assert endpoint.judge().imgedit(RED, BLUE, "x") == {"done": 2, "fit": 2, "clean": 1, "overall": 5 / 3}


@pytest.mark.parametrize("answers, expected", [("AB", 1.0), ("BA", 0.0), ("AA", 0.5), (["tie", "B"], 0.5)])
def test_a_pair_is_won_only_in_both_orders(endpoint, answers, expected):
    endpoint.script = [json.dumps({"better": a}) for a in answers]
    assert endpoint.judge().better(RED, BLUE, RED, "x") == expected


@pytest.mark.parametrize(
    "nonsense",
    ["I like it", "{not json}", '{"done": 8}', '{"done": 80, "kept": 1, "natural": 1, "clean": 1}', "[1]"],
)
def test_nonsense_is_asked_again_and_then_named(endpoint, nonsense):
    endpoint.script = [nonsense]
    with pytest.raises(NoScore, match="not understood"):
        endpoint.judge().viescore(RED, BLUE, "x")
    assert len(endpoint.asked) == 3


def test_one_good_answer_after_nonsense_and_an_error_counts(endpoint):
    endpoint.script = ["hm", 503, '{"done": 4, "kept": 4, "natural": 9, "clean": 9}']
    assert endpoint.judge().viescore(RED, BLUE, "x")["overall"] == 6


def test_a_slow_answer_is_given_up(endpoint):
    endpoint.script = [4.0]
    started = time.perf_counter()
    with pytest.raises(NoScore, match="within 0.1 seconds"):
        endpoint.judge(timeout_seconds=0.1, tries=2).viescore(RED, BLUE, "x")
    assert time.perf_counter() - started < 4


def test_a_refused_key_is_not_asked_again(endpoint):
    endpoint.script = [401]
    with pytest.raises(NoScore, match="401"):
        endpoint.judge().viescore(RED, BLUE, "x")
    assert len(endpoint.asked) == 1


def test_nobody_there_is_no_score():
    with pytest.raises(NoScore, match="cannot be reached"):
        Judge("http://127.0.0.1:9", "m", tries=1).viescore(RED, BLUE, "x")
