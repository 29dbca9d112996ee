"""Sessions with the real editor: what it takes is what a session keeps; a turn can be made again."""

import inspect

import numpy as np
import pytest

from kontext.engine import Editor
from kontext.session.provenance import SETTINGS
from kontext.session.session import NOT_KEPT, PICTURES


@pytest.fixture(scope="module")
def real_editor():
    return Editor.load("tiny-random", device="cpu")


def test_every_argument_of_an_edit_is_kept_with_its_turn():
    taken = set(inspect.signature(Editor.edit).parameters) - {"self", "picture", "prompt", "seed"}
    assert taken == set(SETTINGS) | set(PICTURES) | set(NOT_KEPT)


def test_a_session_with_an_editor_repeats_and_locks(real_editor, picture, tmp_path):
    session = real_editor.open(picture)
    turn = session.edit("Make the hair blue", seed=3, steps=2, box=(4, 4, 20, 16), references=[picture])
    outside = np.ones((32, 48), bool)
    outside[4:20, 4:24] = False
    assert np.array_equal(np.asarray(turn.picture)[outside], np.asarray(picture)[outside])
    assert turn.facts["fingerprint"] == real_editor.model.fingerprint and turn.facts["steps"] == 2
    session.undo()
    again = session.edit(turn.prompt, seed=turn.seed, **session.recipe(turn))
    assert again.pixels == turn.pixels
    first, second = session.variants(2)
    assert first.parent_id == second.parent_id == turn.parent_id and first.seed + 1 == second.seed
    restored = session.store.restore(session.save(tmp_path / "a.png"), editor=real_editor)
    restored.undo()
    repeated = restored.edit(first.prompt, seed=first.seed, steps=2, box=(4, 4, 20, 16), references=[picture])
    assert repeated.pixels == first.pixels
