"""A window of a picture is decoded as it would be within the whole, and finished as the whole would be."""

import numpy as np
import pytest
import torch
from PIL import Image

from kontext.checkpoint import load_model
from kontext.engine import Editor
from kontext.engine.context import Canvas, decode
from kontext.engine.detail import add_detail
from kontext.engine.regions import change_map, find_region, region_of, window_of
from kontext.engine.sizes import plan_edit
from kontext.model.window import Window


@pytest.fixture(scope="module")
def autoencoder():
    return load_model("tiny-random").autoencoder


@pytest.mark.parametrize(
    "window",
    [Window(56, 104, 64, 120), Window(0, 40, 0, 48), Window(120, 160, 150, 192), Window(0, 160, 0, 192)],
)
@torch.inference_mode()
def test_with_its_own_norms_a_window_is_the_wholes(autoencoder, window):
    latents = torch.randn(1, 16, 20, 24, generator=torch.Generator().manual_seed(0))
    whole, norms = autoencoder.decode_with_norm_stats(latents)
    assert torch.equal(whole, autoencoder.decode(latents))
    part = autoencoder.decode_window(latents, norms, window)
    expected = whole[:, :, window.top : window.bottom, window.left : window.right]
    assert float((part - expected).abs().max()) < 1e-4 * float(whole.abs().max())


def test_a_window_is_where_latents_differ_with_a_margin():
    before = torch.zeros(1, 16, 20, 24)
    latents = before.repeat(2, 1, 1, 1) + 1e-5
    assert window_of(latents, before).area == 0
    latents[0, 3, 5:8, 10:12] += 1
    assert window_of(latents, before) == Window(32, 72, 72, 104)
    latents[1, 0, 0, 23] -= 1
    assert window_of(latents, before) == Window(0, 72, 72, 192)
    latents[1, 0, 19, 0] -= 1
    assert window_of(latents, before) is None


@torch.inference_mode()
def test_pictures_are_painted_into_their_sources():
    """Those of a batch that are of different pictures each with the norms of their own."""
    contexts = Editor(load_model("tiny-random")).contexts
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(2)]
    canvases = [Canvas(picture.resize((128, 128))) for picture in pictures]
    for sources in (canvases, [canvases[0]] * 2):
        latents = torch.cat([contexts.latents(source) for source in sources]).clone()
        painted, window = contexts.paint(latents, sources)
        assert window.area == 0
        for made, source in zip(painted, sources):
            assert np.array_equal(made, contexts.reconstruct(source))
        latents[:, :, 4:8, 8:12] += 0.1
        painted, window = contexts.paint(latents, sources)
        whole = decode(contexts.model, latents).astype(int)
        inside = np.zeros((128, 128), bool)
        window.of(inside)[:] = True
        for made, exact, source in zip(painted, whole, sources):
            view = contexts.reconstruct(source)
            assert np.array_equal(made[~inside], view[~inside])
            assert np.abs(made - exact)[inside].mean() < 0.3 * np.abs(view - exact)[inside].mean()


@pytest.mark.parametrize("side", [128, 768])
def test_regions_are_those_of_the_whole_picture(side):
    random = np.random.default_rng(0)
    codec = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
    window, step = Window(side // 4, side // 2, 0, side // 2), side // 32
    result = codec.copy()
    window.of(result)[step : 5 * step, step : 9 * step] ^= 96
    window.of(result)[2 * step : 7 * step, 10 * step : 15 * step] += 12
    mask = Image.fromarray(np.uint8(255 * (np.arange(side)[None] > side // 8).repeat(side, 0)))
    for inside in (None, mask):
        whole = find_region(change_map(result, codec), (side, side), inside).soft
        assert 0 < whole.mean() < 0.3
        assert np.allclose(region_of(result, codec, inside, window).soft, whole, atol=1e-6)
    assert region_of(codec, codec, None, Window(0, 0, 0, 0)).empty


@pytest.mark.parametrize("size", [(128, 128), (300, 300), (256, 190)])
def test_detail_of_a_part_is_that_of_the_whole(size):
    random = np.random.default_rng(0)
    original = Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).resize(size)
    plan = plan_edit(size, "match", [(128, 128)])
    codec = np.asarray(plan.place(original).resize((64, 64)).resize((128, 128)))
    painted = codec.copy()
    painted[40:80, 30:90] = painted[40:80, 30:90][..., ::-1]
    box = (size[0] // 8, size[1] // 4, size[0] * 3 // 4, size[1] * 2 // 3)
    part = add_detail(Image.fromarray(painted), original, codec, plan, box)
    whole = add_detail(Image.fromarray(painted), original, codec, plan).crop(box)
    assert part.size == whole.size
    assert np.abs(np.asarray(part).astype(int) - np.asarray(whole)).max() <= 1
