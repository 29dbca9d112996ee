"""A server for each test file."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serving import Running  # noqa: E402


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start servers that stop with the test file."""
    running = []

    def start(data=None, **settings):
        running.append(Running(data or tmp_path_factory.mktemp("data"), **settings))
        return running[-1]

    yield start
    for one in running:
        if one.thread.is_alive():
            one.stop()


@pytest.fixture(scope="module")
def server(start):
    return start().ready()
