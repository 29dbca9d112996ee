"""Downloads from a hub: broken connections, killed runs and full disks lose nothing."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import kontext
from kontext.checkpoint import load_model
from kontext.checkpoint.hub import cache, client
from kontext.checkpoint.hub import models as hub
from kontext.errors import BadCheckpoint, NoSpace, Unavailable
from support.hub import TRANSFORMER, Fault, nothing_left


def test_a_broken_connection_is_continued(stand_in, folders, tiny):
    stand_in.add("someone/tiny", folders["kontext"])
    stand_in.faults[TRANSFORMER] = Fault(times=3, break_after=50_000)
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint
    ranges = [request.range for request in stand_in.requests if request.path == TRANSFORMER]
    assert ranges == [None, "bytes=50000-", "bytes=100000-", "bytes=150000-"]


def test_a_hub_that_keeps_breaking_is_given_up_and_the_next_run_continues(stand_in, folders, tiny):
    stand_in.add("someone/tiny", folders["kontext"])
    stand_in.faults[TRANSFORMER] = Fault(break_after=80_000, then=Fault(times=5, status=503))
    with pytest.raises(Unavailable, match="failed .*503.; 80 kB of .* kept, run the command again"):
        hub.pull("someone/tiny")
    assert nothing_left()
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint
    assert [request.range for request in stand_in.requests if request.path == TRANSFORMER] == [
        None,
        *["bytes=80000-"] * 6,
    ]


KILLED = """
from kontext.checkpoint.hub import models
models.pull("someone/tiny", lambda now: print(now.file, now.done, flush=True))
"""


def test_a_run_that_is_killed_is_continued_by_the_next(stand_in, folders, tiny):
    stand_in.add("someone/tiny", folders["kontext"])
    stand_in.faults[TRANSFORMER] = Fault(seconds=0.02)
    environment = {**os.environ, "PYTHONPATH": str(Path(kontext.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, env=environment
    )
    blobs = cache.repo_folder("someone/tiny") / "blobs"
    end = time.monotonic() + 60
    while not any(file.stat().st_size > 20_000 for file in blobs.glob("*.incomplete")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert nothing_left()
    (partial,) = cache.partial_files("someone/tiny")
    size, earlier = partial.stat().st_size, len(stand_in.requests)
    stand_in.faults.clear()
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint
    again = [
        request
        for request in stand_in.requests[earlier:]
        if request.path == TRANSFORMER and request.method == "GET"
    ]
    assert [request.range for request in again] == [f"bytes={size}-"] and size >= 20_000
    assert not cache.partial_files("someone/tiny")


def test_a_hub_that_stalls_is_asked_again(stand_in, folders, tiny, monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.4")
    stand_in.add("someone/tiny", folders["kontext"])
    stand_in.faults[TRANSFORMER] = Fault(stall_after=30_000)
    told = []
    hub.pull("someone/tiny", told.append)
    assert any(
        "retrying transformer.safetensors: the server stopped sending" in request.note for request in told
    )
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_busy_storage_is_asked_again(stand_in, folders, tiny, status):
    stand_in.add("someone/tiny", folders["kontext"])
    stand_in.faults[TRANSFORMER] = Fault(times=2, status=status)
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint


def test_a_storage_without_ranges_sends_the_whole_file_again(stand_in, folders, tiny):
    stand_in.ranges = False
    stand_in.add("someone/tiny", folders["kontext"])
    stand_in.faults[TRANSFORMER] = Fault(break_after=40_000)
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint


def test_a_damaged_file_does_not_count(stand_in, folders, tiny):
    stand_in.add("someone/tiny", folders["kontext"])
    stand_in.faults |= {TRANSFORMER: Fault(damaged=True), "config.json": Fault(damaged=True)}
    for _ in range(2):
        with pytest.raises(BadCheckpoint, match="failed its checksum and was deleted"):
            hub.pull("someone/tiny")
        assert nothing_left() and not cache.partial_files("someone/tiny")
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_downloaded(stand_in, folders, monkeypatch):
    stand_in.add("someone/tiny", folders["kontext"])
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(NoSpace, match="needs .*, and .* has 1.0 MB free; .*HF_HOME"):
        hub.pull("someone/tiny")
    assert not [path for path in stand_in.downloaded() if path] and nothing_left()


def test_a_disk_that_fills_up_is_left_without_the_part(stand_in, folders, tiny, monkeypatch):
    stand_in.add("someone/tiny", folders["kontext"])

    class Full:
        def __init__(self, file):
            self.file, self.room = file, 20_000

        def write(self, data):
            self.room -= len(data)
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        patch.setattr(client, "open", lambda *given: Full(open(*given)), raising=False)
        with pytest.raises(NoSpace, match="no space left in .* the partial download was deleted"):
            hub.pull("someone/tiny")
    assert nothing_left() and not cache.partial_files("someone/tiny")
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint


def test_two_that_want_the_same_model_download_it_once(stand_in, folders):
    stand_in.add("someone/tiny", folders["kontext"])
    stand_in.faults[TRANSFORMER] = Fault(seconds=0.001)
    failures = []

    def pull():
        try:
            hub.pull("someone/tiny")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=pull) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    downloaded = [request.path for request in stand_in.requests if request.method == "GET" and request.path]
    assert len(downloaded) == len(set(downloaded))
    assert hub.local("someone/tiny") is not None


def test_a_hostile_hub_cannot_write_outside_of_the_cache(stand_in, folders):
    with pytest.raises(BadCheckpoint, match="impossible file"):
        cache.pointer_path("a/b", "0" * 40, "../../x")
    with pytest.raises(BadCheckpoint, match="impossible file"):
        cache.pointer_path("a/b", "../x", "y")
