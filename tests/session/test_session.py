"""Sessions with the real editor: what it takes is what a session keeps; a turn can be made again."""

import inspect

import numpy as np
import pytest
import torch

from kontext.engine import EditOptions, Editor
from kontext.session.provenance import SETTINGS
from kontext.session.settings import NOT_KEPT, PICTURES


@pytest.fixture(scope="module")
def real_editor():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model only waits for its threads
    yield Editor.load("tiny-random", device="cpu")
    torch.set_num_threads(threads)


def test_every_argument_of_an_edit_is_kept_with_its_turn():
    assert set(EditOptions.__annotations__) - {"seed"} == set(SETTINGS) | set(PICTURES)
    calling = set(inspect.signature(Editor.edit).parameters) - {"self", "picture", "prompt", "options"}
    assert calling == set(NOT_KEPT)


def test_a_session_with_an_editor_repeats_and_locks(real_editor, picture, tmp_path):
    session = real_editor.open(picture)
    turn = session.edit("Make the hair blue", seed=3, steps=2, box=(4, 4, 20, 16), references=[picture])
    outside = np.ones((32, 48), bool)
    outside[4:20, 4:24] = False
    assert np.array_equal(np.asarray(turn.picture)[outside], np.asarray(picture)[outside])
    assert turn.result_info["fingerprint"] == real_editor.model.fingerprint and turn.result_info["steps"] == 2
    session.undo()
    again = session.edit(turn.prompt, seed=turn.seed, **session.recipe(turn))
    assert again.pixels == turn.pixels
    first, second = session.variants(2)
    assert first.parent_id == second.parent_id == turn.parent_id and first.seed + 1 == second.seed
    restored = session.store.restore(session.save(tmp_path / "a.png"), editor=real_editor)
    restored.undo()
    repeated = restored.edit(turn.prompt, seed=turn.seed, steps=2, box=(4, 4, 20, 16), references=[picture])
    assert repeated.pixels == turn.pixels  # alone as before; among variants, rounding may be another


def many_local_edits(session, turns):
    """Edit inside boxes, compare each turn with the first picture; returns where no box ever was."""
    first = np.asarray(session.picture)
    untouched = np.ones(first.shape[:2], bool)
    for number in range(turns):
        x, y = number * 7 % 30, number * 5 % 14
        session.edit(f"Make it {number}", seed=number, steps=1, box=(x, y, 9, 9))
        untouched[y : y + 9, x : x + 9] = False
        assert np.array_equal(np.asarray(session.picture)[untouched], first[untouched])
    return untouched


def test_after_ten_turns_what_was_not_edited_is_the_first_picture(real_editor, picture):
    assert many_local_edits(real_editor.open(picture), 10).mean() > 0.3


@pytest.mark.slow
def test_after_a_hundred_turns_what_was_not_edited_is_the_first_picture(real_editor, picture):
    assert many_local_edits(real_editor.open(picture), 100).mean() > 0.2
