"""Half-open connections, dripping bodies, readers that do not read.

Others are served, and what they held is free again after the deadline.
"""

import logging
import resource
import socket
import time
from dataclasses import replace

import httpx
import psutil
import pytest

from kontext.server.http.connections import RESERVED_FILES, bounds_of
from kontext.server.http.logs import SAME_LINES, WINDOW_BYTES, Throttle
from kontext.server.settings import Settings
from support.serving import LOCAL, Program, until

ATTACKERS, FILES = 300, 256
HEAD = b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nX-a: "
FORM = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n--x\r\n"
BODY = b"POST /api/pictures HTTP/1.1\r\nHost: localhost:%d\r\n" + FORM
SECONDS = {"head": 10.0, "body": 5.0}  # the second by --body-seconds
HEALTH_SECONDS = 1.0


def limited(soft, hard):
    """The beginning of a command that runs the rest with these limits of open files."""
    return ["sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh"]


def started(folder):
    program = Program(folder, "--body-seconds", "5", prefix=limited(FILES, FILES))
    program.folder = folder
    program.alive()
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    program = started(tmp_path_factory.mktemp("connections"))
    yield program
    program.stop()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A server that is not attacked: what it takes longer by, the machine is busy."""
    program = started(tmp_path_factory.mktemp("other"))
    yield program
    program.stop()


def files(program):
    return psutil.Process(program.process.pid).num_fds()


def health(program):
    start = time.monotonic()
    assert httpx.get(f"{program.url}/healthz", **LOCAL).status_code == 200
    return time.monotonic() - start


@pytest.mark.parametrize("name", SECONDS)
def test_half_open_requests_do_not_lock_others_out(program, other, name):
    quiet, before = max(health(program) for _ in range(5)), files(program)
    log = (program.folder / "log").stat().st_size
    start, sockets = time.monotonic(), []
    for _ in range(ATTACKERS):
        connection = socket.create_connection(("127.0.0.1", program.port), 10)
        connection.sendall({"head": HEAD, "body": BODY}[name] % program.port)
        sockets.append(connection)
    longest = 0.0
    while time.monotonic() - start < SECONDS[name] - 2:
        longest, quiet = max(longest, health(program)), max(quiet, health(other))
        for connection in sockets:
            try:
                connection.send(b"a")
            except OSError:
                pass  # it had to make room
        time.sleep(0.3)
    assert longest <= HEALTH_SECONDS + 3 * quiet
    assert files(program) < FILES
    until(lambda: files(program) <= before + 4, 30)
    assert time.monotonic() - start >= SECONDS[name] / 2
    assert min(health(program) for _ in range(5)) < HEALTH_SECONDS + 3 * quiet
    assert (program.folder / "log").stat().st_size - log < 10**6
    for connection in sockets:
        connection.close()


def test_the_server_raises_its_own_limit_of_open_files(program, tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 1024:
        pytest.skip("this machine allows fewer files")
    raised = Program(tmp_path, prefix=limited(300, 1024))
    raised.alive()
    assert psutil.Process(raised.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (1024, 1024)
    assert raised.stop() == 0


def test_an_answer_that_nobody_reads_is_given_up():
    from kontext.server.http.connections import Connection, Connections

    table = Connections(replace(bounds_of(Settings(), 1024), stall_seconds=5.0))
    connection = Connection.__new__(Connection)
    connection.unsent, connection.unsent_since = 0, 0.0

    class Transport:
        size = 0

        def get_write_buffer_size(self):
            return self.size

    connection.transport = transport = Transport()
    seconds = table.bounds.stall_seconds
    assert not connection.stalled(100.0, seconds)  # nothing to read
    transport.size = 10**6
    assert not connection.stalled(101.0, seconds)
    assert not connection.stalled(105.9, seconds)
    transport.size -= 100  # a byte now and then is not enough
    assert connection.stalled(106.1, seconds)
    transport.size -= 10**5
    assert not connection.stalled(106.2, seconds) and connection.stalled(111.3, seconds)


def test_bounds_follow_the_open_files_and_the_address():
    assert bounds_of(Settings(), 256).connections == 256 - RESERVED_FILES
    assert bounds_of(Settings(), 10).connections > 0
    assert bounds_of(Settings(), 10**6).connections == Settings().connections
    assert bounds_of(Settings(), 1024).per_address is None
    assert bounds_of(Settings(host="0.0.0.0"), 1024).per_address == Settings().connections_per_address
    behind = Settings(host="0.0.0.0", public_url="https://pictures.example.org")
    assert bounds_of(behind, 1024).per_address is None


def test_the_same_log_line_is_written_a_few_times_a_minute(monkeypatch):
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    log = logging.Logger("stranger")
    log.addHandler(throttle := Throttle(Lines()))
    for number in range(10_000):
        log.warning("request %d was odd", number)
    assert len(lines) == SAME_LINES
    for number in range(500):
        log.error(f"line {number} " + "x" * 10_000)
    assert WINDOW_BYTES < sum(map(len, lines)) < WINDOW_BYTES + 20_000
    throttle._began -= 61
    log.warning("another minute")
    assert lines[-1] == "another minute" and "similar lines were suppressed" in lines[-2]
