"""Edits that start from the noised picture instead of from noise."""

import numpy as np
import pytest

from kontext import pictures
from kontext.engine import EditRequest
from kontext.engine.checks import check_request
from kontext.engine.layout import canvas_of
from kontext.errors import BadRequest
from kontext.flow import from_strength, schedule


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "steps, strength, taken",
    [(4, 1.0, 4), (4, 0.75, 3), (4, 0.6, 3), (4, 0.01, 1), (28, 0.5, 14)],
)
def test_strength_takes_the_last_steps_of_the_schedule(steps, strength, taken):
    whole = schedule(steps, 256)
    assert from_strength(whole, strength) == whole[steps - taken :]


def test_only_the_steps_taken_are_evaluated_and_told(editor):
    told = []
    result = editor.edit(noise(), "make it red", steps=4, strength=0.5, lock=False, on_step=told.append)
    assert (result.steps, result.evaluations, result.settings["strength"]) == (4, 2, 0.5)
    assert [(info.index, info.steps) for info in told] == [(1, 2), (2, 2)]


def test_the_lower_the_strength_the_nearer_the_picture(editor):
    kept = editor.contexts.reconstruct(canvas_of(pictures.load(noise()), editor.model.preset.sizes))
    far = []
    for strength in (1.0, 0.5, 0.25):
        result = editor.edit(noise(), "make it red", seed=1, steps=4, strength=strength, lock=False)
        far.append(np.abs(np.asarray(result.picture, int) - kept).mean())
    assert far[0] > far[1] > far[2]


def test_strength_one_is_an_edit_without_it(editor):
    plain, whole = (
        editor.edit(noise(), "make it red", seed=1, steps=3, **more) for more in ({}, {"strength": 1})
    )
    assert plain.picture.tobytes() == whole.picture.tobytes()


def test_strength_needs_a_picture(editor):
    request = EditRequest(prompt="a cat", strength=0.5)
    with pytest.raises(BadRequest, match="strength needs a picture"):
        check_request(request)
    with pytest.raises(BadRequest, match="strength needs a picture"):
        editor.edit_batch([request])
    with pytest.raises(BadRequest, match="box and mask need a picture"):
        check_request(EditRequest(prompt="a cat", box=(1, 2, 3, 4), mask=noise()))


def test_steps_of_guidance_are_counted_from_the_first_that_is_taken(editor):
    options = dict(steps=4, strength=0.5, negative_prompt="blurry", lock=False)
    assert editor.edit(noise(), "a", guidance_steps="1-1", **options).evaluations == 3
    with pytest.raises(BadRequest, match="begin after the last step, 2"):
        editor.edit(noise(), "a", guidance_steps="3-4", **options)
