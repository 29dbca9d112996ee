"""Items are the same bytes everywhere, and the baselines fall where they must on the world itself."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kontext.bench import items, metrics
from kontext.errors import BadRequest

SIZE = 128
PRINT_SUM = """
import hashlib
from kontext.bench import items
keys = (("test", "local"), ("pairs", "text"), ("chinese", "generate"))
drawn = [items.draw_item(s, c, 0, 128) for s, c in keys]
print(hashlib.sha256(items.manifest(drawn).encode()).hexdigest())
"""


def soft(picture):
    """What a codec may do: half the resolution, then a blur."""
    small = Image.fromarray(picture).resize((SIZE // 2, SIZE // 2), Image.BOX)
    return np.asarray(small.resize((SIZE, SIZE), Image.BICUBIC))


@pytest.fixture(scope="module")
def drawn():
    return [items.draw_item("test", category, i, SIZE) for category in items.CATEGORIES for i in range(2)]


def test_the_manifest_is_the_same_bytes_in_two_processes_and_on_a_plainer_processor():
    plainer = {"NPY_DISABLE_CPU_FEATURES": " ".join(wide_units())}
    sums = {
        subprocess.check_output([sys.executable, "-c", PRINT_SUM], text=True, env={**os.environ, **other})
        for other in ({}, plainer)
    }
    assert len(sums) == 1 and len(sums.pop().strip()) == 64


def wide_units():
    """Units of this processor that NumPy can do without: other types of machines lack them."""
    known = np._core._multiarray_umath
    return [name for name in known.__cpu_dispatch__ if known.__cpu_features__[name]]


def test_the_sum_follows_everything_that_decides_the_score(drawn):
    assert len({item.sum for item in drawn}) == len(drawn)
    first = drawn[0]
    again = items.draw_item("test", first.category, 0, SIZE)
    assert again.sum == first.sum != items.draw_item("test", first.category, 0, 256).sum


def test_gates_on_the_world(drawn):
    """Oracle 100, copy-input 0, a codec of the target near 100, other edits 0."""
    score = {item.key: item.case.score for item in drawn}
    targets = {item.key: item.sample.target for item in drawn}
    assert all(score[k](p)["success"] == 1 and score[k](p)["combined"] == 1 for k, p in targets.items())
    assert all(score[item.key](item.input_picture)["success"] == 0 for item in drawn)
    assert np.mean([score[k](soft(p))["success"] for k, p in targets.items()]) == 1
    wrong = [score[item.key](p)["success"] for item in drawn for _, p in item.distractors]
    assert not any(wrong) and len(wrong) >= 10 * len(drawn)


def test_rivals_have_every_kind_of_mistake(drawn):
    local = [item for item in drawn if item.category == "local"]
    kinds = {label.split(" ")[0] for item in local for label, _ in item.distractors}
    assert kinds == {"unchanged", "value", "edit", "stray"}


def test_kept_and_changed_pixels_are_exact(drawn):
    for item in drawn:
        if item.category in ("local", "text"):
            case = item.case
            difference = np.abs(case.source.astype(int) - case.target).max(-1)
            assert not (case.changed & case.keep_mask).any()
            assert difference[case.keep_mask].max() <= metrics.UNTOUCHED_LEVELS
            assert (difference[case.changed] > metrics.CHANGED_LEVELS).all()


def test_chinese_items_are_those_of_test():
    english, chinese = (items.draw_item(split, "local", 0, SIZE) for split in ("test", "chinese"))
    assert chinese.scene == english.scene and np.array_equal(chinese.sample.target, english.sample.target)
    assert chinese.prompt != english.prompt and any(ord(c) > 0x4E00 for c in chinese.prompt)


def test_nothing_to_do_is_never_an_item():
    assert all(items.draw_item("test", "local", i, 64).sample.kind != "nothing" for i in range(12))


def test_unknown_names_are_refused():
    with pytest.raises(BadRequest, match="splits are test"):
        items.draw_item("train", "local", 0)


@pytest.mark.parametrize("kind", ["edits", "back", "nothing"])
def test_sessions_have_an_exact_picture_for_every_turn(kind):
    start, turns = items.draw_session(kind, 0, 4, 64)
    before = start
    for turn in turns:
        assert turn.case.score(turn.target)["success"] == 1
        if kind != "nothing":
            assert turn.case.score(before)["success"] == 0
        before = turn.target
    if kind == "back":
        assert np.array_equal(turns[1].target, start) and np.array_equal(turns[3].target, start)
    if kind == "nothing":
        assert all(np.array_equal(turn.target, start) for turn in turns)
