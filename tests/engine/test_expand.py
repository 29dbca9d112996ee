"""Outpainting: the border is the model's, the picture is the original's to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kontext.engine import EditRequest
from kontext.engine.checks import check_request
from kontext.engine.expand import border_of, check_expand, expanded_size
from kontext.errors import BadRequest
from kontext.session.pixels import digest
from kontext.session.provenance import read_chain


def noise(width=64, height=64, channels=3):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels)


def inside(picture, border, size):
    left, top = border[:2]
    return picture.crop((left, top, left + size[0], top + size[1]))


@pytest.mark.parametrize("given", ["10,0,20,0", "10, 0, 20, 0", (10, 0, 20, 0), [10, 0, 20, 0]])
def test_pixels_are_taken_as_they_are(given):
    assert check_expand(given) == "10,0,20,0" and border_of((64, 48), "10,0,20,0") == (10, 0, 20, 0)
    assert expanded_size((64, 48), "10,0,20,0") == (94, 48) and expanded_size((64, 48), None) == (64, 48)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.integers(16, 2000)] * 2), st.sampled_from(["16:9", "9:16", "1:1", "3:2", "21:9", "4:5"])
)
def test_an_aspect_ratio_is_reached_by_the_smallest_border_on_both_sides(size, expand):
    across, down = map(int, expand.split(":"))
    wanted = across / down
    try:
        left, top, right, bottom = border_of(size, expand)
    except BadRequest:
        assert abs(size[0] - size[1] * wanted) <= 0.5 or abs(size[1] - size[0] / wanted) <= 0.5
        return
    width, height = left + size[0] + right, top + size[1] + bottom
    assert (left or right) == 0 or (top or bottom) == 0
    assert 0 <= right - left <= 1 and 0 <= bottom - top <= 1
    assert abs(width - height * wanted) <= 0.5 or abs(height - width / wanted) <= 0.5


@pytest.mark.parametrize(
    "wrong", ["", "1,2,3", "0,0,0,0", "-1,0,0,0", "16:0", "100:1", "a", 7, "1,2,3,4,5", "1.5,0,0,0"]
)
def test_what_is_no_border_is_refused(wrong):
    with pytest.raises(BadRequest, match="expand"):
        EditRequest(prompt="a", picture=noise(), expand=wrong)


def test_borders_that_cannot_be_are_refused_before_the_edit():
    with pytest.raises(BadRequest, match="has that aspect ratio already"):
        check_request(EditRequest(prompt="a", picture=noise(), expand="1:1"))
    with pytest.raises(BadRequest, match="expanded by 0,0,99999,0"):
        check_request(EditRequest(prompt="a", picture=noise(), expand="0,0,99999,0"))
    with pytest.raises(BadRequest, match="expand needs a picture"):
        check_request(EditRequest(prompt="a", expand="16:9"))
    with pytest.raises(BadRequest, match="give box in another edit"):
        EditRequest(prompt="a", picture=noise(), expand="16:9", box=(0, 0, 9, 9))


@pytest.mark.parametrize("expand", ["30,0,0,0", "0,7,50,3", "16:9", "1:2"])
def test_the_picture_is_kept_to_the_last_bit_and_the_border_is_made(painting_editor, make_scene, expand):
    scene, black = make_scene(100, 90), -1.0
    painting_editor.model.transformer.paint = lambda pixels: pixels.fill_(black)
    result = painting_editor.edit(scene, "make it night", seed=1, steps=2, expand=expand)
    border = border_of(scene.size, expand)
    assert result.size == expanded_size(scene.size, expand)
    assert inside(result.picture, border, scene.size).tobytes() == scene.tobytes()
    mask = np.asarray(result.region)
    assert set(np.unique(inside(result.region, border, scene.size))) == {0}
    made = np.asarray(result.picture).max(-1)[mask == 255]
    assert (mask > 0).sum() == result.size[0] * result.size[1] - 100 * 90
    assert (made < 60).mean() > 0.9  # black, but for the detail of the edge


def test_the_border_is_filled_where_the_estimate_finds_no_change(painting_editor, make_scene):
    scene, transformer = make_scene(96, 96), painting_editor.model.transformer
    result = painting_editor.edit(scene, "go on", seed=1, steps=3, expand="32,0,0,0")
    assert set(transformer.worked_on) == {transformer.worked_on[0]}  # the same tokens in every step
    assert 0 < transformer.worked_on[0] < 64 and (np.asarray(result.region)[:, :31] == 255).all()


def test_a_transparent_picture_keeps_its_alpha_and_gets_an_opaque_border(editor):
    picture = noise(channels=4)
    result = editor.edit(picture, "go on", seed=1, steps=1, expand="0,0,32,0")
    assert result.picture.mode == "RGBA" and result.size == (96, 64)
    assert inside(result.picture, (0, 0), picture.size).tobytes() == picture.tobytes()
    assert (np.asarray(result.picture)[:, 64:, 3] == 255).all()


def test_without_lock_everything_is_the_model_s(editor):
    picture = noise()
    result = editor.edit(picture, "go on", seed=1, steps=1, expand="0,0,32,0", lock=False)
    assert result.size == (96, 64) and result.region is None
    assert inside(result.picture, (0, 0), picture.size).tobytes() != picture.tobytes()


def test_variants_and_batches_expand_alike(editor):
    first, second = editor.variants(noise(), "go on", 2, seed=1, steps=1, expand="16:9")
    plain = EditRequest(picture=noise(114, 64), prompt="go on", seed=1, steps=1)
    expanding = EditRequest(picture=noise(), prompt="go on", seed=1, steps=1, expand="16:9")
    results = editor.edit_batch([plain, expanding])
    assert results[1].picture.tobytes() == first.picture.tobytes() != second.picture.tobytes()
    assert results[0].size == results[1].size == (114, 64)


def test_an_expanded_turn_can_be_made_again_and_edited(editor, tmp_path):
    session = editor.open(noise())
    turn = session.edit("go on", seed=3, steps=1, expand=(0, 8, 0, 8))
    assert turn.size == (64, 80)
    session.undo()
    assert session.edit("go on", seed=3, **session.recipe(turn)).pixels == turn.pixels
    alone = editor.edit(noise(), "go on", seed=3, steps=1, expand=(0, 8, 0, 8)).save(tmp_path / "a.png")
    for saved in (alone, session.save(tmp_path / "b.png")):
        chain = read_chain(saved)
        assert [link.size for link in chain] == [[64, 64], [64, 80]]
        again = editor.edit(noise(), "go on", seed=3, steps=1, expand=chain[1].settings["expand"])
        assert digest(again.picture) == chain[1].pixels
