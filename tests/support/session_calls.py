"""A fixed sequence of calls on a session, and what of it a person could miss."""

import random
from functools import partial


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
