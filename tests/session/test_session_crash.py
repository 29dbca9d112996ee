"""kill -9 at random moments of session writes and of a chat: the state before or after a call."""

import json
import os
import random
import signal
import time
from functools import partial

import pytest
from tint import TintEditor

from kontext.commands.chat import Chat
from kontext.session import Store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def state(session):
    """All that a person could miss: the tree with pictures and names, and where they are in it."""
    numbers = {turn.id: turn.number for turn in session.turns}
    rows = [(turn.number, numbers.get(turn.parent_id), turn.pixels, turn.name) for turn in session.turns]
    return rows, session.current.number


def calls(count):
    """A fixed sequence of calls on a session; what each does follows from its place and from the session."""
    kinds = ["edit"] * 8 + ["goto"] * 3 + ["delete"] * 2 + ["rename", "collect", "branch"]

    def call(index, session):
        draw, numbers = random.Random(index), [turn.number for turn in session.turns]
        kind = draw.choice(kinds)
        if kind == "edit" or len(numbers) < 3:
            session.edit(f"prompt {index}", seed=index)
        elif kind == "goto":
            session.goto(draw.choice(numbers))
        elif kind == "delete":
            session.delete(draw.choice(numbers[1:]))
        elif kind == "rename":
            session.rename(f"name {index}", draw.choice(numbers))
        elif kind == "collect":
            session.store.collect(older_than_seconds=0)
        else:
            session.edit("other", turn=draw.choice(numbers), seed=index, references=[session.picture])

    return [partial(call, index) for index in range(count)]


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
    """Kill and go on, `kills` times; after each kill the state is one of the two that the last call stands
    between.
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
