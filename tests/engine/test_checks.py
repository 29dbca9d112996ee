"""What a request may be, checked without a model: both edges of every range, and each kind of pointer."""

import pytest
from PIL import Image

from kontext.engine.checks import check_request
from kontext.engine.requests import MAX_SEED, EditRequest
from kontext.errors import BadPicture, BadRequest, NotFound

PICTURE = Image.new("RGB", (64, 48), "white")


def ask(count=1, **fields):
    check_request(EditRequest(**{"prompt": "red", "picture": PICTURE, **fields}), count)


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("steps", (1, 200), (0, 201, -1, 1.5)),
        ("guidance", (1, 30, 2.5), (0.9, 30.1, float("nan"), float("inf"))),
        ("seed", (0, MAX_SEED), (-1, MAX_SEED + 1, 0.5)),
        ("prompt", ("x", "把"), ("", "  \n", None, "\udcff")),
        ("size", ("match", "16x16", "4:3"), ("1x1", "big", "99999x16", "100:1")),
        (
            "box",
            ((0, 0, 64, 48), (63, 47, 1, 1)),
            ((0, 0, 65, 48), (64, 0, 1, 1), (0, 0, 0, 1), (-1, 0, 5, 5)),
        ),
        ("references", ((), (PICTURE,) * 3), ((PICTURE,) * 4,)),
    ],
)
def test_both_edges_of_every_range(name, allowed, refused):
    for value in allowed:
        ask(**{name: value})
    for value in refused:
        with pytest.raises(BadRequest):
            ask(**{name: value})


def test_variants_and_the_seeds_they_take():
    ask(16)
    ask(2, seed=MAX_SEED - 1)
    for count, fields in ((0, {}), (17, {}), (10**12, {}), (2, {"seed": MAX_SEED})):
        with pytest.raises(BadRequest):
            ask(count, **fields)


def test_pictures_are_read_and_compared():
    with pytest.raises(NotFound):
        ask(picture="none.png")
    with pytest.raises(BadPicture):
        ask(references=[b"I am text"])
    for name in ("mask", "markup"):
        with pytest.raises(BadRequest, match="64x48"):
            ask(**{name: Image.new("RGBA", (10 + 16, 20), "white")})
    with pytest.raises(BadRequest, match="all black"):
        ask(mask=Image.new("L", PICTURE.size))


def test_from_words_alone():
    ask(picture=None)
    ask(picture=None, size="48x32")
    for size in ("match", "1x1"):
        with pytest.raises(BadRequest):
            ask(picture=None, size=size)
    with pytest.raises(BadRequest):
        ask(picture=None, box=(0, 0, 5, 5))
