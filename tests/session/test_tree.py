"""What holds of every tree of turns, whatever a person does to it."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from PIL import Image

from kontext.errors import BadRequest, Busy, NotFound
from kontext.session import Store


def same(a, b):
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


def test_each_turn_is_kept_to_the_last_bit(store, editor, picture, tint):
    session = store.create(picture, editor=editor)
    expected = picture
    for number in range(10):
        turn = session.edit(f"prompt {number}", seed=number)
        expected, region = tint(expected, f"prompt {number}", number)
        again = store.open(session.id).tree.find(turn.number)
        assert same(again.picture, expected) and same(again.region, region)
    assert same(store.open(session.id).turns[0].picture, picture)


def test_transparent_pictures_keep_their_alpha(store, editor, picture):
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    session = store.create(picture, editor=editor)
    session.edit("a")
    assert [turn.picture.mode for turn in store.open(session.id).turns] == ["RGBA", "RGBA"]
    assert same(store.open(session.id).turns[0].picture, picture)


def test_a_turn_says_how_it_was_made_and_can_be_made_again(store, editor, picture):
    session = store.create(picture, editor=editor)
    mask = Image.new("L", picture.size, 255)
    mine = session.edit(
        "a", seed=3, steps=2, box=(1, 2, 3, 4), references=[picture, picture], mask=mask, on_step=print
    )
    turn = store.open(session.id).current
    assert (turn.prompt, turn.seed, turn.settings) == ("a", 3, {"steps": 2, "box": [1, 2, 3, 4]})
    assert (
        turn.result_info["model"] == "tint"
        and turn.result_info["fingerprint"] == "f" * 64
        and turn.size == picture.size
    )
    assert (
        len(turn.references) == 2
        and same(turn.references[1], picture)
        and same(turn.read("mask")[0].convert("L"), mask)
    )
    session.undo()
    again = session.edit(turn.prompt, seed=turn.seed, **session.recipe(turn))
    assert again.pixels == mine.pixels and again.blobs == mine.blobs and again.settings == mine.settings


def test_variants_are_siblings_that_replace_nothing(store, editor, picture):
    session = store.create(picture, editor=editor)
    first = session.edit("a", seed=1)
    made = session.variants(3, seed=10)
    assert [turn.parent_id for turn in made] == [first.parent_id] * 3
    assert {turn.seed for turn in made} == {10, 11, 12} and len({turn.pixels for turn in made}) == 3
    assert session.current.id == made[0].id and len(session.turns) == 5
    below = session.variants(2, "b", seed=1)
    assert {turn.parent_id for turn in below} == {made[0].id}


def test_what_cannot_be_done_is_said(store, editor, picture):
    session = store.create(picture, editor=editor)
    for wrong in (session.undo, session.redo, lambda: session.delete(0), lambda: session.variants(2)):
        with pytest.raises(BadRequest):
            wrong()
    with pytest.raises(BadRequest, match="variants must be 1 to 16, got 17"):
        session.variants(17, "a")
    with pytest.raises(NotFound, match=f"no turn '0' in this session; its turns are {session.current.id}"):
        session.goto("0")
    with pytest.raises(NotFound, match="no turn 9 in this session; its turns are 0"):
        session.goto(9)
    with pytest.raises(BadRequest, match="plain JSON"):
        session.edit("a", strange=object())
    with pytest.raises(BadRequest, match="at most 10000 characters"):
        session.edit("a" * 10001)
    with pytest.raises(BadRequest, match="no editor"):
        store.open(session.id).edit("a")
    with pytest.raises(NotFound):
        store.open("nothing")
    assert len(store.open(session.id).turns) == 1


def test_a_session_can_begin_with_a_generated_picture(store, editor):
    session = store.create(editor=editor)
    with pytest.raises(NotFound, match="no picture yet"):
        session.edit("a")
    assert session.generate("a cat", seed=1).kind == "generate"
    session.edit("a hat")
    assert [turn.prompt for turn in session.history] == ["a cat", "a hat"]


def test_a_session_without_a_store_lives_in_a_temporary_folder(editor, picture):
    session = Store.temporary().create(picture, editor=editor)
    session.edit("a")
    root = session.store.blobs.root
    assert len(list(session.store.blobs.listing())) == 3
    del session
    import os

    assert not os.path.exists(root)


def test_two_openers_of_one_session_lose_nothing(store, editor, picture):
    mine = store.create(picture, editor=editor)
    theirs = Store(store.blobs.root.rsplit("/", 1)[0]).open(mine.id, editor=editor)
    mine.edit("mine")
    for refused in (lambda: theirs.edit("x"), lambda: theirs.rename("x"), lambda: theirs.goto(0)):
        with pytest.raises(Busy, match="changed by another process.*reload it"):
            refused()

    class Slow(type(editor)):
        def edit(self, *args, **kwargs):  # the other one adds a turn while this one computes
            mine.edit("meanwhile")
            return super().edit(*args, **kwargs)

    theirs.reload()
    theirs.editor = Slow()
    theirs.edit("both", turn=0)
    mine.reload()
    assert [turn.prompt for turn in mine.turns] == ["", "mine", "meanwhile", "both"]
    assert mine.current.prompt == "both" and mine.history[0].number == 0 and len(mine.history) == 2

    class Deleting(type(editor)):
        def edit(self, *args, **kwargs):
            mine.delete(1)
            return super().edit(*args, **kwargs)

    theirs.editor = Deleting()
    with pytest.raises(Busy, match="turn 1 was deleted by another process"):
        theirs.edit("late", turn=1)
    assert store.check() == []


def test_a_known_tree_is_told_as_a_stranger_reads_it(store, editor, picture):
    """What a store remembers of a session never hides what others did to it."""
    session = store.create(picture, editor=editor)
    stranger = Store(store.blobs.root.rsplit("/", 1)[0])

    def agree():
        known, read = store.open(session.id), Store(stranger.folder).open(session.id)
        assert [(turn.id, turn.name, turn.visited, turn.blobs) for turn in known.turns] == [
            (turn.id, turn.name, turn.visited, turn.blobs) for turn in read.turns
        ]
        assert (known.name, known.revision, known.current) == (read.name, read.revision, read.current)

    for change in (
        lambda other: session.edit("one"),
        lambda other: other.rename("a name", 1),
        lambda other: other.edit("two"),
        lambda other: other.goto(0),
        lambda other: other.delete(1),
        lambda other: other.rename("the session"),
    ):
        session.reload()
        change(stranger.open(session.id, editor=editor))
        agree()
    assert store.open(session.id).tree is store.open(session.id).tree  # unchanged: not read again
    stranger.delete(session.id)
    with pytest.raises(NotFound):
        store.open(session.id)


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)


class TreeMachine(RuleBasedStateMachine):
    """Random walks over a session against a model of dicts: parents, a current number, a way for redo."""

    def __init__(self):
        super().__init__()
        self.store = Store.temporary()
        self.editor = self.editor_class()
        start = Image.fromarray(np.arange(16 * 24 * 3, dtype=np.int64).astype(np.uint8).reshape(16, 24, 3))
        self.session = self.store.create(start, editor=self.editor)
        self.parents, self.pixels, self.current, self.next_number = {0: None}, {0: start.tobytes()}, 0, 1
        self.order = {0: 0}  # when each turn was last on the way to the current one
        self.clock = 0

    def visit(self, number):
        self.current, self.clock, step = number, self.clock + 1, number
        while step is not None:
            self.order[step], step = self.clock, self.parents[step]

    def children(self, number):
        return [child for child, parent in self.parents.items() if parent == number]

    def pick(self, data):
        return data.draw(st.sampled_from(sorted(self.parents)))

    @rule(prompt=WORDS.filter(len), seed=st.integers(0, 9))
    def edit(self, prompt, seed):
        before = self.session.picture
        turn = self.session.edit(prompt, seed=seed)
        assert turn.number == self.next_number
        self.parents[turn.number], self.next_number = self.current, self.next_number + 1
        self.pixels[turn.number] = self.tint(before, prompt, seed)[0].tobytes()
        self.visit(turn.number)

    @rule(data=st.data())
    def goto(self, data):
        number = self.pick(data)
        self.session.goto(number)
        self.visit(number)

    @precondition(lambda self: self.parents[self.current] is not None)
    @rule()
    def undo_then_redo_is_nothing(self):
        here = self.current
        self.session.undo()
        assert self.session.current.number == self.parents[here]
        self.session.redo()
        assert self.session.current.number == here
        self.visit(here)

    @precondition(lambda self: self.parents[self.current] is not None)
    @rule()
    def undo(self):
        parent = self.parents[self.current]
        self.session.undo()
        self.visit(parent)

    @precondition(lambda self: self.children(self.current))
    @rule()
    def redo(self):
        expected = max(self.children(self.current), key=lambda child: (self.order[child], child))
        self.session.redo()
        self.visit(expected)

    @precondition(lambda self: len(self.parents) > 1)
    @rule(data=st.data())
    def delete(self, data):
        number = data.draw(st.sampled_from(sorted(set(self.parents) - {0})))
        above = self.parents[number]
        gone, more = {number}, {number}
        while more:
            more = {child for child, parent in self.parents.items() if parent in more}
            gone |= more
        assert {turn.number for turn in self.session.delete(number)} == gone
        for item in gone:
            del self.parents[item], self.pixels[item], self.order[item]
        if self.current in gone:
            self.visit(above)

    @rule(name=NAMES)
    def rename(self, name):
        self.session.rename(name, self.current)
        assert self.session.current.name == name

    @rule()
    def collect(self):
        self.store.collect(older_than_seconds=0)

    @rule()
    def reopen(self):
        self.session = self.store.open(self.session.id, editor=self.editor)

    @invariant()
    def the_store_says_what_the_model_says(self):
        session = self.store.open(self.session.id)
        numbers = {turn.id: turn.number for turn in session.turns}
        assert {turn.number: numbers.get(turn.parent_id) for turn in session.turns} == self.parents
        assert session.current.number == self.session.current.number == self.current
        assert session.picture.tobytes() == self.pixels[self.current]

    def teardown(self):
        for turn in self.session.turns:
            assert turn.picture.tobytes() == self.pixels[turn.number]
        assert self.store.check() == []
        self.store.close()


def test_walks_over_the_tree_agree_with_a_plain_model(editor, tint):
    parts = dict(editor_class=type(editor), tint=staticmethod(tint))
    machine = type("Machine", (TreeMachine,), parts).TestCase
    machine.settings = settings(
        max_examples=12,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # 25 steps are read faster than shrunk
    )
    machine().runTest()


def test_a_long_chain_of_turns_can_be_deleted(store):
    rows = [
        (
            dict(
                number=number,
                visited=1,
                created=1.0,
                parent_id=number - 1 if number else None,
                name="",
                kind="edit" if number else "source",
                prompt="x",
                seed=1,
                settings={},
                pixels="0" * 64,
                facts={"size": [16, 16]},
            ),
            {},
        )
        for number in range(1500)  # SQLite lets 1000 deletions follow from one another
    ]
    session = store.insert_tree(rows, name="long", owner="", editor=None)
    assert len(session.delete(1)) == 1499 and len(session.turns) == 1
    store.delete(store.insert_tree(rows, name="long", owner="", editor=None).id)
    assert [item.id for item in store.sessions()] == [session.id]
