"""Differences between two pictures: whether they are visible, and where."""

import numpy as np

from .styles import channel_maximum, dilated

_VISIBLE = 10  # of 255: smaller differences are not visible
_VISIBLE_PIXELS = 120
_MARGIN = 2  # pixels


def _difference(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The largest difference of the three channels (uint8, height x width)."""
    return channel_maximum(np.maximum(source, target) - np.minimum(source, target))


def visible(source: np.ndarray, target: np.ndarray) -> bool:
    """Whether two pictures differ visibly."""
    return bool(np.count_nonzero(_difference(source, target) > _VISIBLE) >= _VISIBLE_PIXELS)


def change_mask(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pixels that differ, widened by two pixels (bool, height x width)."""
    return dilated(_difference(source, target) > 0, _MARGIN)
