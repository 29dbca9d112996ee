"""Edits beside a busy process: the threads' settings, and what they are for."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from kontext.server.workers.launch import launch
from kontext.threads import SPINS, usable_processors

CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
WORST = 2.5  # times the quiet p95, beside one busy process
TRIES, EDITS = 3, 20


def environment(**settings):
    return {name: value for name, value in os.environ.items() if name not in CHOSEN} | settings


def python(code, *arguments, **settings):
    """What a process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment(**settings), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_waiting_threads_sleep_early_unless_the_user_decided():
    show = "import kontext, os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    assert python(show) == f"{SPINS} None"
    assert python(show, GOMP_SPINCOUNT="7") == "7 None"
    assert python(show, OMP_WAIT_POLICY="active") == "None active"


TORCH_FIRST = """
import sys, torch
if len(sys.argv) > 1:
    torch.set_num_threads(int(sys.argv[1]))
import os
from kontext import Editor
Editor.load("tiny-random", device="cpu")
print(os.environ.get("GOMP_SPINCOUNT"), torch.get_num_threads())
"""


@pytest.mark.skipif(usable_processors() < 2, reason="threads need a second processor")
def test_torch_imported_first_leaves_a_processor_to_others_unless_the_user_decided():
    processors = usable_processors()
    assert python(TORCH_FIRST) == f"None {processors - 1}"
    assert python(TORCH_FIRST, OMP_NUM_THREADS=str(processors)) == f"None {processors}"
    assert python(TORCH_FIRST, "1") == "None 1"


def test_workers_share_the_processors_and_take_the_settings_of_the_user(monkeypatch):
    taken = []

    class Process:
        def __init__(self, command, env, **_):
            taken.append(env)

    monkeypatch.setattr("kontext.server.workers.launch.subprocess.Popen", Process)
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    launch("editor", "nano", None, 1).socket.close()
    launch("editor", "nano", None, usable_processors()).socket.close()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    launch("editor", "nano", None, 2, index=1).socket.close()
    assert "OMP_NUM_THREADS" not in taken[0]
    assert usable_processors() == 1 or taken[1]["OMP_NUM_THREADS"] == "1"
    assert taken[2]["OMP_NUM_THREADS"] == "5" and taken[2]["OMP_WAIT_POLICY"] == "active"


@contextlib.contextmanager
def busy_process():
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


WARM = """
import json, sys, time
from PIL import Image
from kontext import Editor
editor, seconds = Editor.load("nano", device="cpu"), []
for i in range(int(sys.argv[2]) + 3):
    start = time.perf_counter()
    editor.edit(sys.argv[1], "make it night", seed=i)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds[3:]))
"""


@contextlib.contextmanager
def from_python(picture):
    yield lambda: json.loads(python(WARM, str(picture), str(EDITS)))


@contextlib.contextmanager
def from_the_command_line(picture):
    """Seconds of an edit alone: what a new process pays for its imports, it pays in one thread."""

    def edits():
        found = []
        for seed in range(5):
            out = str(picture.with_name("made.png"))
            command = [
                sys.executable,
                "-m",
                "kontext",
                "edit",
                str(picture),
                "make it night",
                "-o",
                out,
                "--force",
            ]
            done = subprocess.run(
                [*command, "--seed", str(seed), "--device", "cpu", "--json"],
                env=environment(),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            seconds = json.loads(done.stdout)["seconds"]
            found.append(seconds["total"] - seconds["load"])
        return found

    yield edits


@contextlib.contextmanager
def from_the_service(picture):
    from multiprocessing.connection import Connection

    from kontext.server.jobs.requests import JobRequest
    from kontext.server.workers.worker import JobPayload

    launched = launch("kontext.server.workers.worker:load_editor", "nano", "cpu", 1)
    connection = Connection(launched.socket.detach())
    assert connection.recv()[0] == "ready"

    def edit(seed):
        request = JobRequest(prompt="make it night", seed=seed)
        connection.send(("run", [JobPayload("one", request, {"picture": [picture.read_bytes()]})]))
        while connection.recv()[0] != "results":
            pass

    def edits():
        found = []
        for seed in range(EDITS + 3):
            start = time.perf_counter()
            edit(seed)
            found.append(time.perf_counter() - start)
        return found[3:]

    try:
        yield edits
    finally:
        launched.process.kill()
        launched.process.wait()
        connection.close()


@pytest.mark.slow  # and for a machine that does nothing else: tests that run at the same time are busy too
@pytest.mark.skipif(usable_processors() < 2, reason="a busy process needs a second processor")
@pytest.mark.parametrize("surface", [from_python, from_the_command_line, from_the_service])
def test_edits_beside_a_busy_process_take_little_longer(surface, tmp_path, monkeypatch):
    """Quiet and busy take turns and are compared by medians, so that other load falls on both."""
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    picture = tmp_path / "given.png"
    Image.radial_gradient("L").convert("RGB").save(picture)
    quiet, busy = [], []
    with surface(picture) as edits:
        for _ in range(TRIES):
            quiet.append(slow(edits()))
            with busy_process():
                busy.append(slow(edits()))
    assert statistics.median(busy) <= WORST * statistics.median(quiet)


def slow(seconds):
    """The 95th percentile."""
    return sorted(seconds)[round(0.95 * (len(seconds) - 1))]


def test_the_script_that_measures_it_is_usable():
    script = Path(__file__).parents[1] / "scripts" / "measure_busy.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "busy" in done.stdout
