"""The promise: what was accepted ends exactly once, whatever is killed.

Servers and workers are killed with SIGKILL.

Clients submit all the while; afterwards every accepted job must have ended, every finished one must have
its picture (or its one turn), and a key must have paid for finished jobs alone.
"""

import socket

import pytest

from kontext.errors import BadConfig
from kontext.server import Settings
from kontext.server.jobs.queue import Queue
from kontext.server.run import run
from kontext.session import Store
from support.kills import submit, survive
from support.serving import Program, until


def test_a_kill_of_the_server_and_one_of_its_worker_lose_nothing(tmp_path):
    survive(tmp_path, 2, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills_lose_nothing(tmp_path, seed):
    survive(tmp_path, 25, seed=seed)


def test_a_job_that_kills_its_worker_is_given_up_and_harms_no_other(start):
    server = start(max_attempts=2).ready()
    session = server.session()
    stopper = server.edit(session, "sleep 0.5")[0]
    bad, good = server.edit(session, "die")[0], server.edit(session, "good")[0]
    server.ended(stopper)
    assert server.ended(good, 60)["state"] == "done"
    ended = server.ended(bad, 60)
    assert ended["state"] == "failed" and "2 times" in ended["error"]
    assert server.ended(server.edit(session, "still here")[0], 30)["state"] == "done"
    server.stop()


def test_a_graceful_stop_finishes_what_runs_and_keeps_what_waits(tmp_path):
    program = Program(tmp_path, "--grace", "20")
    try:
        program.ready()
        running = submit(program, prompt="sleep 1.5", steps=3)
        with Store(tmp_path / "data") as store:
            queue = Queue(store)
            until(lambda: queue.get(running).state == "running")
            waiting = submit(program, prompt="sleep 60")
            assert program.stop() == 0
            assert queue.get(running).state == "done" and queue.get(waiting).state == "queued"
    finally:
        if program.process.poll() is None:
            program.process.kill()


def test_a_stop_without_patience_returns_the_running_job(tmp_path, start):
    server = start(tmp_path, grace_seconds=0.5).ready()
    running = submit(server, prompt="sleep 60")
    until(lambda: server.service.queue.get(running).state == "running")
    server.stop()
    with Store(tmp_path) as store:
        job = Queue(store).get(running)
        assert job.state == "queued" and job.attempts == 0


def test_the_second_server_on_a_port_says_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadConfig, match="choose another with --port"):
            run(Settings(port=taken.getsockname()[1]), echo=print)
