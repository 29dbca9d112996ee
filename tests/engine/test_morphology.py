"""Morphology against definitions written out point by point."""

import torch

from kontext.engine.morphology import connected, dilate, erode, feather, largest_in_square


def point(rows=9, columns=11, at=(4, 5)):
    mask = torch.zeros(1, 1, rows, columns, dtype=torch.bool)
    mask[0, 0, at[0], at[1]] = True
    return mask


def test_the_largest_value_of_a_square_is_that_of_its_window():
    field = torch.randn(1, 1, 7, 9, generator=torch.Generator().manual_seed(0))
    found = largest_in_square(field, 2)[0, 0]
    for y in range(7):
        for x in range(9):
            window = field[0, 0, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            assert found[y, x] == window.max()


def test_a_point_dilates_to_a_disc_and_erodes_back():
    grown = dilate(point(), 3)[0, 0]
    rows, columns = torch.meshgrid(torch.arange(9) - 4, torch.arange(11) - 5, indexing="ij")
    reach = torch.maximum(rows.abs(), columns.abs())
    assert torch.equal(grown, (reach <= 3) & (rows.abs() + columns.abs() <= 4))  # diamond, square, diamond
    assert torch.equal(erode(dilate(point(), 3), 3), point())


def test_only_what_reaches_a_seed_is_connected():
    allowed = torch.zeros(1, 1, 8, 40, dtype=torch.bool)
    allowed[..., 2:5, 2:20] = True
    allowed[..., 2:5, 30:38] = True
    found = connected(allowed, point(8, 40, (3, 4)))
    assert found[..., :20].equal(allowed[..., :20]) and not found[..., 20:].any()


def test_a_feather_falls_evenly_outside_of_the_mask():
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    mask[..., :3] = True
    soft = feather(mask, 3)[0, 0, 4]
    assert torch.allclose(soft, torch.tensor([1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0]))
