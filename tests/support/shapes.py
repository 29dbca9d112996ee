"""A picture of flat shapes with sharp edges."""

import numpy as np


def flat_shapes(side: int = 256, seed: int = 0, count: int = 16) -> np.ndarray:
    """(side, side, 3) uint8: `count` rectangles of random colors on blue."""
    random = np.random.default_rng(seed)
    picture = np.full((side, side, 3), (90, 170, 220), np.uint8)
    for _ in range(count):
        x, y, height = random.integers(0, side * 3 // 4, 3)
        picture[y : y + height // 3 + 10, x : x + side // 6] = random.integers(0, 256, 3)
    return picture
