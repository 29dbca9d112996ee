"""A toy item with exact source, target and distractors, so that the metrics are tested without the world."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Item:
    source: np.ndarray
    target: np.ndarray
    category: str = "local"


def scene(disc=(220, 40, 40), square=(40, 90, 220), stripe=(250, 220, 60), size=128, shift=0):
    """A sky gradient with a disc, a square and thin stripes, as uint8 (size, size, 3)."""
    rows, columns = np.mgrid[:size, :size]
    picture = np.stack([150 + 60 * rows / size, 200 + 30 * rows / size, 235 + 0 * rows], -1)
    picture[np.hypot(rows - size * 0.4, columns - size * 0.32 - shift) < size * 0.17] = disc
    inside = (rows > size * 0.55) & (rows < size * 0.85) & (columns > size * 0.58) & (columns < size * 0.9)
    picture[inside] = square
    picture[(rows > size * 0.9) & (np.sqrt(columns) % 2 < 1)] = stripe
    return picture.round().astype(np.uint8)


@pytest.fixture(scope="session")
def toy():
    """Make the disc green; distractors: other colors, the other thing, a stray change, a moved disc."""
    green = (40, 170, 70)
    distractors = [
        scene(disc=(40, 90, 220)),
        scene(disc=(250, 150, 40)),
        scene(square=green),
        scene(disc=green, square=(250, 150, 40)),
        scene(disc=green, stripe=(30, 30, 30)),
        scene(disc=green, shift=12),
    ]
    return Item(scene(), scene(disc=green)), distractors
