"""One rule for what an edit takes, wherever it comes from: text that is text, numbers that are numbers."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from kontext.engine.requests import EditRequest, check_prompt
from kontext.errors import BadRequest

ARRAY = np.zeros((20, 20, 3), np.uint8)


@pytest.mark.parametrize(
    "prompt",
    [
        "Make the hair blue",
        "把头发染成蓝色",
        "👩‍👩‍👧 and 🏳️‍🌈",
        "اجعل الشعر أزرق",
        "a\u200fb \u2067c\u2069 \u202ad\u202c",  # marks, isolates and embeddings of right-to-left text
        "two\nlines\tand\r\na tab",
        "é as e\u0301",
    ],
)
def test_text_of_all_scripts_is_a_prompt(prompt):
    assert EditRequest(prompt=prompt).prompt == prompt


@pytest.mark.parametrize(
    "prompt, said",
    [
        ("a cut \ud83d", "half of a character .* U\\+D83D at position 7"),
        ("caf\udce9", "terminal not set to UTF-8.* U\\+DCE9 at position 4"),
        ("a\0b", "a control character: U\\+0000 at position 2"),
        ("a\x1b[31mb", "a control character: U\\+001B"),
        ("a\x7f", "U\\+007F"),
        ("a\x9b", "U\\+009B"),
        ("a\u202egnp.exe", "a right-to-left override.*U\\+202E at position 2"),
        ("\u202da", "a left-to-right override"),
        ("", "the prompt is empty"),
        (" \n\t", "the prompt is empty"),
        ("\ufeff \u200b", "the prompt is empty"),
        (None, "the prompt is empty"),
        (b"text", "prompt must be text, got bytes"),
        (3, "prompt must be text, got int"),
    ],
)
def test_what_is_no_text_is_refused_in_words(prompt, said):
    for check in (check_prompt, lambda value: EditRequest(prompt=value)):
        with pytest.raises(BadRequest, match=said) as refused:
            check(prompt)
        str(refused.value).encode()  # can be printed anywhere


WHOLE = [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)]
NONE_WHOLE = [
    True,
    np.True_,
    torch.tensor(True),
    3.7,
    3.0,
    np.float32(3),
    "3",
    b"3",
    [3],
    float("nan"),
    3j,
    object(),
]


@pytest.mark.parametrize("name", ["seed", "steps"])
@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_of_all_kinds_become_int(name, value):
    found = getattr(EditRequest(prompt="x", **{name: value}), name)
    assert type(found) is int and found == 3


@pytest.mark.parametrize("name", ["seed", "steps"])
@pytest.mark.parametrize("value", NONE_WHOLE, ids=lambda value: type(value).__name__)
def test_what_is_no_whole_number_is_refused_in_words(name, value):
    with pytest.raises(BadRequest, match=f"{name} must be a whole number, [01] to [0-9]+, got"):
        EditRequest(prompt="x", **{name: value})


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("seed", -1, "seed must be 0 to 9007199254740991, got -1"),
        ("seed", 2**53, "seed must be 0 to"),
        ("steps", -(10**300), r"steps must be 1 to 200, got -1[0]{55}\.\.\."),
        ("reference_layout", np.array([1, 2]), "reference_layout must be"),
        ("reference_layout", ["stitch"], "reference_layout must be"),
        ("steps", 0, "steps must be 1 to 200, got 0"),
        ("guidance", float("nan"), "guidance must be 1 to 30, got nan"),
        ("guidance", float("inf"), "guidance must be 1 to 30, got inf"),
        ("guidance", True, "guidance must be a number, 1 to 30, got True"),
        ("guidance", "2.5", "guidance must be a number"),
        ("guidance", 2j, "guidance must be a number"),
        ("guidance", 10**400, "guidance must be a number"),
        ("lock", "no", "lock must be True or False, got 'no'"),
        ("regions", 1, "regions must be True or False"),
        ("box", (1, 2, 3), "box \\(1, 2, 3\\) is invalid; use X,Y,W,H"),
        ("box", (1, 2, 3.5, 4), "is invalid"),
        ("box", (True, 2, 3, 4), "is invalid"),
        ("box", "1,2,3,4", "is invalid"),
        ("box", 5, "is invalid"),
        ("size", (64.5, 64), "size .* is invalid"),
        ("size", (64, True), "is invalid"),
        ("size", 64, "is invalid"),
        ("references", 3, "references must be a picture or a list of pictures, got int"),
        ("references", {"a.png": 1}, "got dict"),
        ("references", [ARRAY] * 5, "at most 4 are accepted"),
    ],
)
def test_other_fields_are_refused_in_words(name, value, said):
    with pytest.raises(BadRequest, match=said):
        EditRequest(prompt="x", **{name: value})


def test_integers_that_python_does_not_print_are_refused_in_words():
    for name, value in (
        ("seed", 10**5000),
        ("guidance", 10**5000),
        ("box", (0, 0, 10**5000, 1)),
        ("size", (10**5000, 9)),
    ):
        with pytest.raises(BadRequest, match=name):
            EditRequest(prompt="x", **{name: value})


def test_other_fields_become_plain_values():
    request = EditRequest(
        prompt="x",
        guidance=np.float32(2.5),
        lock=np.False_,
        box=np.array([1, 2, 3, 4]),
        size=[np.int32(64), 80],
    )
    assert (request.guidance, request.lock, request.box, request.size) == (2.5, False, (1, 2, 3, 4), (64, 80))
    assert type(request.box[0]) is int and type(request.size[0]) is int
    assert EditRequest(prompt="x", guidance=Fraction(5, 2)).guidance == 2.5


@pytest.mark.parametrize(
    "value", ["a.png", Path("a.png"), b"bytes", ARRAY], ids=lambda value: type(value).__name__
)
def test_references_are_one_picture_several_or_none(value):
    assert len(EditRequest(prompt="x", references=value).references) == 1
    assert len(EditRequest(prompt="x", references=[value, value]).references) == 2
    assert len(EditRequest(prompt="x", references=(each for each in (value, value))).references) == 2
    assert EditRequest(prompt="x", references=None).references == ()
