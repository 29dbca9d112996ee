"""A real server on loopback, with real worker processes and a fake editor; and what tests need to use it."""

import base64
import contextlib
import io
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import uvicorn
from PIL import Image

FAKE = f"{Path(__file__).parent / 'fake_editor.py'}:make"
LOCAL = dict(trust_env=False, timeout=60)


class Running:
    """A server in a thread of this process."""

    def __init__(self, data, **settings):
        from kontext.server import Settings, create_app

        listener = socket.socket(proto=socket.IPPROTO_TCP)  # as `kontext serve` listens
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        options = dict(host="127.0.0.1", port=port, data=data, editor=FAKE, grace_seconds=5.0) | settings
        self.settings = Settings(**options)
        self.url = f"http://127.0.0.1:{port}"
        self.app = create_app(self.settings)
        config = uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=2, access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()
        until(lambda: self.server.started)
        self.service = self.app.state.service
        self.loop = self.service.loop
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def ready(self):
        until(lambda: self.http.get("/readyz").status_code == 200)
        return self

    def stop(self):
        self.http.close()
        self.loop.call_soon_threadsafe(self.service.begin_stop)
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    # What most tests do

    def session(self, picture=None, **fields):
        files = {"picture": ("kid.png", png(picture or noise()), "image/png")}
        answer = self.http.post("/api/sessions", files=files, data=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def edit(self, session, prompt, **fields):
        answer = self.http.post(f"/api/sessions/{session['id']}/edits", json={"prompt": prompt, **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()["jobs"]

    def ended(self, job, seconds=300):
        def look():
            found = self.http.get(f"/api/jobs/{job['id']}").json()
            return found if found["state"] not in ("queued", "running") else None

        return until(look, seconds)

    def load(self, session):
        answer = self.http.get(f"/api/sessions/{session['id']}")
        assert answer.status_code == 200, answer.text
        return answer.json()


class Program:
    """`kontext serve` as a process of its own on a fixed port."""

    def __init__(self, folder, *options, editor=FAKE, prefix=()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.prefix = list(prefix)
        self.log = open(folder / "log", "ab")
        self.options = [
            "--data",
            str(folder / "data"),
            "--port",
            str(self.port),
            "--editor",
            editor,
            *options,
        ]
        self.start()

    def start(self):
        command = [
            *self.prefix,
            sys.executable,
            "-c",
            "from kontext.cli import main; main()",
            "serve",
            *self.options,
        ]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def workers(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def memory(self):
        """Resident bytes of the server itself."""
        return psutil.Process(self.process.pid).memory_info().rss

    def seconds(self):
        """Processor seconds so far: (server, workers)."""
        all_ = [psutil.Process(self.process.pid), *self.workers()]
        return [round(sum(process.cpu_times()[:2]), 1) for process in all_]

    def ready(self):
        until(lambda: httpx.get(f"{self.url}/readyz", **LOCAL).status_code == 200, 300)

    def alive(self):
        """Wait for the server itself; its workers may still load."""
        until(lambda: httpx.get(f"{self.url}/healthz", **LOCAL).status_code == 200, 180)

    def kill(self):
        workers = self.workers()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        gone, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, "a worker outlived its server"

    def stop(self):
        workers = self.workers()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert not psutil.wait_procs(workers, timeout=60)[1], "a worker outlived its server"
        return code


def until(true, seconds=300.0):
    """Wait for something to come true; what it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if found := true():
                return found
        time.sleep(0.02)
    raise AssertionError(f"it did not come true within {seconds} s")


def noise(size=(96, 64), seed=5):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def opened(data):
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def b64(picture):
    return base64.b64encode(png(picture)).decode()


def same(data, picture):
    return np.array_equal(np.asarray(opened(data).convert("RGB")), np.asarray(picture))


def polled(server, url):
    def look():
        answer = server.http.get(url).json()
        return answer if answer["status"] != "Pending" else None

    return until(look)
