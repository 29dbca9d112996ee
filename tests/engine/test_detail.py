"""The original's own detail comes back in the colors of the edit, and only where the edit is of colors."""

import numpy as np
import pytest
import torch
from PIL import Image

from kontext.engine.detail import add_detail, color_maps, inverse
from kontext.engine.sizes import plan_edit
from support.shapes import flat_shapes


def scene(side=256, seed=0):
    """Flat shapes with sharp edges and fine lines, which a small canvas shows as a blur."""
    picture = flat_shapes(side, seed, count=12)
    for row in range(0, side, side // 16):
        picture[row : row + side // 128] = 20
    return picture


def blurred(picture, plan):
    """The original on the canvas, as a codec might give it."""
    canvas = plan.place(Image.fromarray(picture))
    return np.asarray(canvas.resize((64, 64)).resize(canvas.size))


@pytest.fixture(params=[(256, 256), (512, 512)])
def given(request):
    picture = scene(request.param[0])
    plan = plan_edit(request.param, "match", [(128, 128)])
    return picture, plan, blurred(picture, plan)


def test_where_nothing_changes_the_result_is_the_original(given):
    picture, plan, codec = given
    made = np.asarray(add_detail(Image.fromarray(codec), Image.fromarray(picture), codec, plan))
    assert np.abs(made.astype(int) - picture).max() <= 1


def test_detail_takes_the_colors_of_the_edit(given):
    picture, plan, codec = given
    night = np.array([[0.3, 0.1, 0.0], [0.0, 0.3, 0.1], [0.1, 0.1, 0.4]])

    def edit(pixels):
        return np.rint(pixels @ night.T + 8).astype(np.uint8)

    target = edit(picture.astype(float))
    painted = Image.fromarray(edit(codec.astype(float)))
    made = np.asarray(add_detail(painted, Image.fromarray(picture), codec, plan), float)
    alone = np.asarray(plan.restore(painted), float)
    assert np.abs(made - target).mean() < 0.3 * np.abs(alone - target).mean()


def test_new_things_hide_the_old_detail(given):
    picture, plan, codec = given
    painted = np.array(codec)
    painted[32:96, 32:96] = (250, 240, 30)
    made = np.asarray(add_detail(Image.fromarray(painted), Image.fromarray(picture), codec, plan), float)
    scale = picture.shape[0] // 128
    inside = made[44 * scale : 84 * scale, 44 * scale : 84 * scale]
    assert np.abs(inside - (250, 240, 30)).max() <= 1


def test_a_trace_of_the_old_in_a_new_picture_brings_no_detail_back(given):
    picture, plan, codec = given
    other = blurred(scene(picture.shape[0], seed=5)[::-1, ::-1].copy(), plan)
    painted = Image.fromarray(np.rint(0.85 * other + 0.15 * codec).astype(np.uint8))
    made = np.asarray(add_detail(painted, Image.fromarray(picture), codec, plan), float)
    alone = np.asarray(plan.restore(painted), float)
    lost = picture - np.asarray(plan.restore(Image.fromarray(codec)), float)
    assert np.abs(made - alone).mean() < 0.05 * np.abs(lost).mean()


def test_maps_of_a_color_change_are_that_change():
    change = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.25]])
    codec = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    result = np.rint(codec @ change.numpy().T).astype(np.uint8)
    maps = color_maps(result, codec)
    assert torch.allclose(maps.mean(dim=(2, 3)), change, atol=0.02)


def test_inverse_is_that_of_the_library():
    x = torch.randn(200, 3, 1, generator=torch.Generator().manual_seed(0)) * 0.3
    matrices = x @ x.mT + 1e-4 * torch.eye(3)  # as of colors on a line
    # The inverse is rounded to float32, and its product with the matrix shows that times the condition.
    limit = 4 * torch.finfo(torch.float32).eps * torch.linalg.cond(matrices)
    assert ((inverse(matrices) @ matrices - torch.eye(3)).abs().amax((1, 2)) <= limit).all()
