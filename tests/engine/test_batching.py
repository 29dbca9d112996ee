"""Batches and variants equal single edits, and a seed does not depend on them."""

import numpy as np
import pytest
import torch

from kontext.engine import Editor, EditRequest
from kontext.engine.guidance import Guidance
from kontext.engine.sampling import Batch, sample, seeded_noise
from kontext.errors import BadRequest
from kontext.flow import schedule
from kontext.model.tokens import pack, picture_ids
from support.numeric import TINY_TERMS, difference, rounding


def noise(width=64, height=64, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pixels(result):
    return np.asarray(result.picture)


def sampled(model, seeds, contexts=None):
    """Raw tokens of a batch on a 4x4 grid of tokens, one random context picture each."""
    transformer = model.transformer
    ids, count = picture_ids(0, 4, 4), len(seeds)
    generator = torch.Generator().manual_seed(9)
    text = torch.randn(8, 6, model.preset.transformer.text_width, generator=generator)[seeds]
    pooled = torch.randn(8, model.preset.transformer.pooled_width, generator=generator)[seeds]
    context = torch.randn(8, 16, 64, generator=generator)[seeds]
    prefix = transformer.prefill(context, picture_ids(1, 4, 4))
    start = pack(torch.cat([seeded_noise(seed, 8, 8) for seed in seeds]))
    batch = Batch(noise=start, ids=ids, text=text, pooled=pooled, prefixes=[prefix])
    assert start.shape[0] == count
    return sample(transformer, batch, schedule(3, 16, 3.0), Guidance()).tokens


def test_batch_of_three_equals_three_singles(random_model):
    with torch.no_grad():
        together = sampled(random_model, [1, 4, 6])
        alone = torch.cat([sampled(random_model, [seed]) for seed in (1, 4, 6)])
    assert together.std() > 0.1
    assert difference(together, alone) <= rounding(3 * TINY_TERMS)  # three steps


def test_edit_batch_of_mixed_shapes_equals_single_edits_in_order(editor):
    requests = [
        EditRequest(picture=noise(64, 64, 1), prompt="make it red", seed=1, lock=False),
        EditRequest(picture=noise(90, 50, 2), prompt="make it blue", seed=2, lock=False),
        EditRequest(picture=noise(64, 64, 3), prompt="put on a hat", seed=3, lock=False),
        EditRequest(prompt="a cat", seed=4),
        EditRequest(
            picture=noise(64, 64, 3), prompt="put on a hat", seed=3, lock=False, references=(noise(),)
        ),
    ]
    together = editor.edit_batch(requests)
    for request, result in zip(requests, together):
        alone = editor.edit_batch([request])[0]
        assert result.seed == request.seed and result.prompt == request.prompt
        assert np.abs(pixels(result).astype(int) - pixels(alone)).max() <= 1


def test_every_step_of_a_batch_names_its_requests(editor):
    requests = [
        EditRequest(picture=noise(64, 64, seed), prompt="make it red", seed=seed, steps=steps)
        for seed, steps in enumerate((2, 3, 2))
    ]
    told = []

    def on_step(info):
        for place in range(len(info.indices)):
            assert info.preview(place).size
        told.append((tuple(info.indices), info.index, info.steps))

    editor.edit_batch(requests, on_step)
    assert told == [((0, 2), 1, 2), ((0, 2), 2, 2), ((1,), 1, 3), ((1,), 2, 3), ((1,), 3, 3)]


def test_same_seed_same_picture_other_seed_other_picture(editor):
    a, b, c = (editor.edit(noise(), "make it red", seed=seed, lock=False) for seed in (7, 7, 8))
    assert np.array_equal(pixels(a), pixels(b))
    assert not np.array_equal(pixels(a), pixels(c))


def test_noise_of_a_seed_does_not_depend_on_the_batch():
    assert torch.equal(seeded_noise(3, 8, 8), seeded_noise(3, 8, 8))
    assert not torch.equal(seeded_noise(3, 8, 8), seeded_noise(4, 8, 8))
    assert seeded_noise(3, 8, 8).dtype == torch.float32


def test_variants_are_the_edits_of_the_following_seeds(editor):
    several = editor.variants(noise(), "make it red", 3, seed=5, lock=False)
    assert [result.seed for result in several] == [5, 6, 7]
    for result in several:
        alone = editor.edit(noise(), "make it red", seed=result.seed, lock=False)
        assert np.abs(pixels(result).astype(int) - pixels(alone)).max() <= 1


def test_variants_share_one_forward_and_one_prefill(editor, count_calls):
    counts = count_calls(editor)
    editor.variants(noise(), "make it red", 4, steps=3)
    assert counts == {"encode": 1, "decode": 2, "prefill": 1, "evaluate": 3, "t5": 1}


def test_one_bad_request_stops_the_batch_before_it_starts(editor, count_calls):
    counts = count_calls(editor)
    good, bad = (EditRequest(picture=noise(), prompt="red", box=(0, 0, side, 9)) for side in (9, 90))
    with pytest.raises(BadRequest):
        editor.edit_batch([good, bad])
    assert not any(counts.values())


@pytest.mark.parametrize("count", [0, 17, -1])
def test_number_of_variants_is_limited(editor, count):
    with pytest.raises(BadRequest, match="1 to 16"):
        editor.variants(noise(), "make it red", count)


def test_prompts_of_different_padded_lengths_share_a_batch_call():
    """A model that pads prompts to their own length runs them in forwards of their own."""
    editor = Editor.load("nano-256-random")
    prompts = ["red", "give the girl a red hat and a blue coat"]
    requests = [EditRequest(picture=noise(), prompt=prompt, seed=1, steps=1) for prompt in prompts]
    together = editor.edit_batch(requests)
    alone = [editor.edit_batch([request])[0] for request in requests]
    assert [r.picture.tobytes() for r in together] == [r.picture.tobytes() for r in alone]
