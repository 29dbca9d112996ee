"""Where context pictures lie: positions of their tokens, and the canvas that several are stitched to."""

import numpy as np
import pytest
from PIL import Image

from kontext import pictures
from kontext.engine import EditRequest
from kontext.engine.context import Canvas
from kontext.engine.layout import lay_out

SIZES = [(64, 64), (48, 80), (80, 48)]


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def laid_out(layout, *sizes, first=True):
    given = [noise(*size, seed) for seed, size in enumerate(sizes)]
    others = [pictures.load(picture) for picture in given[first:]]
    return given, lay_out(Canvas(given[0]) if first else None, others, layout, SIZES, token_pixels=16)


def test_by_index_every_picture_has_its_own():
    _, contexts = laid_out("index", (64, 64), (80, 48), (48, 80))
    assert [context.origin for context in contexts] == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]


@pytest.mark.parametrize(
    "sizes, origins",
    [
        ([(64, 64), (64, 64)], [(1, 0, 0), (1, 4, 0)]),
        ([(48, 80), (48, 80)], [(1, 0, 0), (1, 0, 3)]),
        ([(64, 64), (48, 80), (80, 48)], [(1, 0, 0), (1, 0, 4), (1, 5, 0)]),
        ([(80, 48), (80, 48), (48, 80)], [(1, 0, 0), (1, 3, 0), (1, 0, 5)]),
    ],
)
def test_by_offset_pictures_share_a_plane_that_stays_nearly_square(sizes, origins):
    _, contexts = laid_out("offset", *sizes)
    assert [context.origin for context in contexts] == origins
    taken = set()
    for context, (_, row, column) in zip(contexts, origins):
        rows, columns = context.canvas.grid(16)
        cells = {(row + r, column + c) for r in range(rows) for c in range(columns)}
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("first", [True, False])
def test_stitched_pictures_stand_side_by_side_at_one_height(first):
    given, (context,) = laid_out("stitch", (64, 64), (32, 128), (256, 128), first=first)
    assert context.origin == (1, 0, 0) and context.canvas.image.size == (64 + 16 + 128, 64)
    assert context.canvas.image.crop((0, 0, 64, 64)).tobytes() == given[0].tobytes()
    small = np.asarray(given[1].resize((16, 64), Image.Resampling.LANCZOS), int)
    assert np.abs(np.asarray(context.canvas.image.crop((64, 0, 80, 64)), int) - small).max() <= 1


def test_a_stitched_picture_keeps_its_aspect_on_whole_tokens():
    _, (context,) = laid_out("stitch", (64, 64), (45, 100))
    joined = np.asarray(context.canvas.image)
    assert joined.shape == (64, 64 + 32, 3)  # 29 pixels of it, and its edges continued
    assert (joined[:, 64] == joined[:, 65]).all() and (joined[:, -1] == joined[:, -3]).all()
    assert (joined[:, 65] != joined[:, 66]).any() and (joined[:, -4] != joined[:, -3]).any()


def test_one_picture_lies_the_same_in_every_layout():
    assert len({laid_out(layout, (64, 64))[1][0].origin for layout in ("index", "offset", "stitch")}) == 1


def test_each_layout_gives_another_picture_alone_and_in_a_batch(editor):
    requests = [
        EditRequest(
            picture=noise(64, 64),
            prompt="make it red",
            seed=1,
            references=[noise(40, 60, 3)],
            reference_layout=layout,
            lock=False,
        )
        for layout in ("index", "offset", "stitch", None)
    ]
    together = editor.edit_batch(requests)
    alone = [editor.edit_batch([request])[0] for request in requests]
    for joined, other in zip(together, alone):
        assert np.abs(np.asarray(joined.picture, int) - np.asarray(other.picture)).max() <= 1
    assert together[0].picture.tobytes() == together[3].picture.tobytes()
    assert len({result.picture.tobytes() for result in together}) == 3
    assert together[1].settings["reference_layout"] == "offset"


def test_pictures_from_words_take_layouts_of_their_references(editor):
    made = {
        layout: editor.generate(
            "a cat", references=[noise(40, 60), noise(60, 40, 1)], seed=1, reference_layout=layout
        ).picture.tobytes()
        for layout in ("index", "offset", "stitch")
    }
    assert len(set(made.values())) == 3
