"""A server for each test file."""

import os
import threading

import pytest

from support.serving import Running, until


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start servers that stop with the test file."""
    running = []

    def start(data=None, **settings):
        running.append(Running(data or tmp_path_factory.mktemp("data"), **settings))
        return running[-1]

    yield start
    for program in running:
        if program.thread.is_alive():
            program.stop()


@pytest.fixture(scope="module")
def server(start):
    """KONTEXT_EXECUTOR=ray runs the same tests on two Ray actors, of which one is killed on the way."""
    if os.environ.get("KONTEXT_EXECUTOR") != "ray":
        yield start().ready()
        return
    ray = pytest.importorskip("ray")
    server = start(executor="ray", workers=2)
    workers = server.service.workers
    until(lambda: all(worker.alive for worker in workers), 300)
    death = threading.Timer(2.0, ray.kill, [workers[0]._actor])
    death.start()
    yield server
    death.cancel()
    server.stop()
    ray.shutdown()
