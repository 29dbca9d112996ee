"""Boxes, masks, markup and a red frame in the picture: an edit stays where they point."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kontext.engine.pointing import drawn_frame
from support.squares import array, expected_tokens, paint_square, square


def test_a_mask_limits_what_a_region_head_expects(painting_editor, scene):
    painter = painting_editor.model.transformer
    painter.expect(expected_tokens(0, 0, 8, 8))
    painter.paint = lambda pixels: pixels.neg_()
    result = painting_editor.edit(scene, "negative", box=(32, 32, 32, 32))
    changed = (array(result.picture) != array(scene)).any(-1)
    assert changed[36:60, 36:60].all() and not changed[:, 70:].any() and not changed[:26].any()


def test_locate_shows_where_an_edit_would_act(painting_editor, make_scene):
    painter = painting_editor.model.transformer
    picture = make_scene(256, 256)  # twice the canvas
    assert painting_editor.locate(picture, "put a red square") is None  # no region head
    painter.expect(expected_tokens(2, 3, 5, 5))
    painter.worked_on.clear()
    found = array(painting_editor.locate(picture, "put a red square"))
    expected = np.zeros((256, 256), int)
    expected[96:160, 64:160] = 255
    assert painter.worked_on == [64] and np.array_equal(found, expected)
    boxed = array(painting_editor.locate(picture, "put a red square", box=(0, 0, 128, 256)))
    assert np.array_equal(boxed[96:160, 64:124], expected[96:160, 64:124]) and not boxed[:, 140:].any()
    painter.expect(expected_tokens(0, 0, 0, 0))
    assert not array(painting_editor.locate(picture, "leave it")).any()


@pytest.mark.parametrize("pointer", ["box", "mask", "markup"])
def test_pointers_limit_the_edit(painting_editor, scene, pointer):
    painting_editor.model.transformer.paint = paint_square(20, 20, 80)
    if pointer == "box":
        given = (50, 50, 30, 20)
    elif pointer == "mask":
        given = Image.new("L", (128, 128))
        given.paste(255, (50, 50, 80, 70))
    else:
        given = Image.new("RGBA", (128, 128))
        ImageDraw.Draw(given).rectangle((50, 50, 79, 69), outline=(255, 0, 0, 255), width=2)
    result = painting_editor.edit(scene, "put a red square", **{pointer: given})
    changed = (array(result.picture) != array(scene)).any(-1)
    assert changed[53:67, 53:77].all()
    changed[50:70, 50:80] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("Remove what is in the red box", True),
        ("去掉红框里的物体", True),
        ("Remove the sign", False),
    ],
)
def test_a_red_frame_in_the_picture_is_found_where_the_prompt_speaks_of_it(prompt, found):
    picture = Image.new("RGB", (200, 160), "#9cc4e4")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((10, 10, 40, 30), fill=(255, 0, 0))  # a red thing is not a frame
    draw.ellipse((120, 20, 190, 70), outline=(255, 0, 0), width=4)  # neither is a ring
    draw.rectangle((60, 80, 129, 139), outline=(255, 0, 0), width=4)
    assert drawn_frame(picture, prompt) == ((60, 80, 70, 60) if found else None)


def test_a_red_frame_limits_the_edit(painting_editor, scene):
    painting_editor.model.transformer.paint = paint_square(10, 40, 50)
    marked = scene.copy()
    ImageDraw.Draw(marked).rectangle((80, 40, 119, 99), outline=(255, 0, 0), width=4)
    assert painting_editor.edit(marked, "change what is in the red frame").changed_fraction == 0
    assert painting_editor.edit(marked, "change it").changed_fraction > 0.1


def test_a_pointer_away_from_the_change_leaves_the_picture(painting_editor, scene):
    painting_editor.model.transformer.paint = paint_square(70, 70, 20)
    result = painting_editor.edit(scene, "put a red square", mask=Image.fromarray(square(0, 0, 30)))
    assert np.array_equal(array(result.picture), array(scene))


def test_a_box_around_everything_limits_nothing_but_is_still_locked(painting_editor, scene):
    painting_editor.model.transformer.paint = paint_square()
    result = painting_editor.edit(scene, "put a red square", box=(0, 0, 128, 128))
    assert 0 < result.changed_fraction < 0.2


def test_outside_of_a_box_nothing_is_computed_from_the_first_step(painting_editor, scene):
    painter = painting_editor.model.transformer
    painter.paint = paint_square()
    everything = painting_editor.edit(
        scene, "put a red square", seed=1, steps=4, box=(32, 32, 32, 32), regions=False
    )
    assert painter.worked_on == [64] * 4
    painter.worked_on.clear()
    within = painting_editor.edit(scene, "put a red square", seed=1, steps=4, box=(32, 32, 32, 32))
    assert max(painter.worked_on) == painter.worked_on[0] == 16  # 2 x 2 tokens and their neighbors
    assert np.abs(array(everything.picture) - array(within.picture)).max() <= 2
    painter.worked_on.clear()
    painting_editor.edit(scene, "put a red square", seed=1, steps=4, box=(0, 0, 120, 120))
    assert painter.worked_on[0] == 64  # to leave out the rest would save too little
