"""kill -9 at random moments of session writes and of a chat: the state before or after a call."""

import json
import os
import random
import signal
import time
from functools import partial

import pytest

from kontext.commands.chat import Chat
from kontext.session import Store
from support.session_calls import calls, state
from support.tint import TintEditor

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def lines(count):
    """The same for a chat, as what a person types."""
    words = ["make it blue"] * 4 + ["/undo", "/redo", "/goto 0", "/rename it", "/nonsense", "/variants 2"]

    def line(index, session):
        Chat(session, lambda *_: None).run([random.Random(index).choice(words)])

    return [partial(line, index) for index in range(count)]


def run_and_kill(folder, session_id, steps, after_seconds):
    """A process that takes the steps, killed after a time; returns how many it says it had finished."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            with Store(folder) as store:
                session = store.open(session_id, editor=TintEditor())
                for index, step in enumerate(steps):
                    step(session)
                    os.write(write, json.dumps(index).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(write)
    time.sleep(after_seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return len(pipe.readlines())


def survive(folder, picture, steps, kills, seed):
    """Kill and go on, `kills` times.

    After each kill the state is one of the two that the last call stands between.
    """
    with Store(folder / "expected") as store:
        session = store.create(picture, editor=TintEditor())
        expected = [state(session)]
        for step in steps:
            step(session)
            expected.append(state(session))
    draw, at = random.Random(seed), 0
    with Store(folder / "store") as store:
        session_id = store.create(picture).id
    for _ in range(kills):
        done = at + run_and_kill(folder / "store", session_id, steps[at:], draw.uniform(0.005, 0.12))
        with Store(folder / "store") as store:
            assert store.check() == []
            found = state(store.open(session_id))
        assert found in expected[done : done + 2]
        at = done if found == expected[done] else done + 1
        if at >= len(steps):
            break
    with Store(folder / "store") as store:
        session = store.open(session_id, editor=TintEditor())
        for step in steps[at:]:
            step(session)
        assert state(session) == expected[-1]
        store.collect(older_than_seconds=0)
        assert store.check() == []
        named = {sha256 for turn in session.turns for names in turn.blobs.values() for sha256 in names}
        assert {found.name for found in store.blobs.listing()} == named


def test_killed_session_writes_lose_nothing(tmp_path, picture):
    survive(tmp_path, picture, calls(60), kills=12, seed=1)


def test_killed_chats_lose_nothing(tmp_path, picture):
    survive(tmp_path, picture, lines(60), kills=12, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [calls, lines])
def test_fifty_kills_lose_nothing(tmp_path, picture, steps):
    survive(tmp_path, picture, steps(300), kills=50, seed=3)
