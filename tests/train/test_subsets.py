"""Which tokens a batch computes that computes some only."""

import pytest
import torch

from kontext.train.subsets import LIMITS, draw_limit, nearest_tokens


def grid(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """Masks (boxes, 64) of 8 x 8 tokens; boxes: top, bottom, left, right."""
    masks = torch.zeros(len(boxes), 8, 8, dtype=torch.uint8)
    for mask, (top, bottom, left, right) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    return masks.flatten(1)


def test_all_of_every_edit_is_computed_and_the_nearest_around_it():
    masks = grid((0, 2, 0, 2), (3, 4, 3, 6), (0, 0, 0, 0))
    counts = set()
    for seed in range(40):
        active = nearest_tokens(masks, 16, torch.Generator().manual_seed(seed))
        counts.add(active.shape[1])
        assert active.shape[0] == 3 and 4 <= active.shape[1] <= 16
        assert (active.diff(dim=1) > 0).all() and active.min() >= 0 and active.max() < 64
        for mask, tokens in zip(masks[:2], active):
            chosen = torch.zeros(64, dtype=torch.bool)
            chosen[tokens] = True
            assert chosen[mask > 0].all()
            rows, columns = (mask.reshape(8, 8).any(axis).nonzero() for axis in (1, 0))
            around = [
                max(rows.min() - t // 8, t // 8 - rows.max(), columns.min() - t % 8, t % 8 - columns.max(), 0)
                for t in torch.arange(64)
            ]
            left_out = [d for t, d in enumerate(around) if not chosen[t]]
            assert max(d for t, d in enumerate(around) if chosen[t]) <= min(left_out)
    assert counts == set(range(4, 17))


def test_without_an_edit_the_tokens_around_a_random_one_are_computed():
    seen = set()
    for seed in range(40):
        active = nearest_tokens(grid((0, 0, 0, 0)), 9, torch.Generator().manual_seed(seed))
        rows, columns = active[0] // 8, active[0] % 8
        assert rows.max() - rows.min() <= 4 and columns.max() - columns.min() <= 4
        seen.add(int(active[0, 0]))
    assert len(seen) > 15


def test_an_edit_beyond_the_limit_computes_everything():
    assert nearest_tokens(grid((0, 4, 0, 4)), 15, torch.Generator()) is None
    assert nearest_tokens(grid((0, 4, 0, 4)), 16, torch.Generator()).shape == (1, 16)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_limits_are_drawn_for_a_share_of_the_batches(share):
    drawn = [draw_limit(64, share, step) for step in range(600)]
    assert abs(sum(limit is not None for limit in drawn) / 600 - share) < 0.08
    assert {limit for limit in drawn if limit} == ({int(part * 64) for part in LIMITS} if share else set())
