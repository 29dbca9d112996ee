"""Letters in the picture: a head of training predicts which letter each part of a target's token shows.

The error of pixels says little about which letter goes where; this says it directly. A token is divided into
`COLUMNS` columns, and each has the class of the letter over its center, or none.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontext.world.drawing.raster import SIZE
from kontext.world.drawing.signs import letter_boxes
from kontext.world.scenes.scene import Scene

COLUMNS = 4
"""Columns of a token."""

CLASSES = 1 + len(string.ascii_uppercase)
"""None, A, B, ..., Z."""

EMPTY_WEIGHT = 0.1
"""Weight of columns without a letter."""


def letter_grid(scene: Scene, tokens: int) -> np.ndarray:
    """The letters that a picture of `tokens` x `tokens` tokens shows: classes, int8 (tokens^2, COLUMNS)."""
    grid = np.zeros((tokens, tokens * COLUMNS), np.int8)
    rows = (np.arange(tokens) + 0.5) * SIZE / tokens
    columns = (np.arange(tokens * COLUMNS) + 0.5) * SIZE / (tokens * COLUMNS)
    sign = None if "foreign" in scene or scene["sheet"] else scene["sign"]
    for letter, (left, top, right, bottom) in letter_boxes(sign) if sign else []:
        if letter in string.ascii_uppercase:
            half = SIZE / tokens / 2  # a letter counts in every row of tokens of which it fills a quarter
            inside = (rows + half / 2 > top) & (rows - half / 2 < bottom)
            across = (columns >= left) & (columns < right)
            grid[np.ix_(inside, across)] = 1 + string.ascii_uppercase.index(letter)
    return grid.reshape(tokens, tokens, COLUMNS).reshape(-1, COLUMNS)


class LetterHead(nn.Linear):
    """Logits (b, n, COLUMNS, CLASSES) of the letters that tokens (b, n, width) will show."""

    def __init__(self, width: int):
        super().__init__(width, COLUMNS * CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = F.layer_norm(tokens.float(), tokens.shape[-1:])
        return super().forward(normed).unflatten(-1, (COLUMNS, CLASSES))


class LetterLoss:
    """The loss of the letters, and the share of letters that were right since the last log line."""

    def __init__(self) -> None:
        self.right: Tensor | None = None
        self.all: Tensor | None = None

    def __call__(self, logits: Tensor, letters: Tensor, counts: Tensor) -> Tensor:
        """Cross-entropy of logits (b, n, COLUMNS, CLASSES), mean over the letters (b, n, COLUMNS).

        counts (b, n): weight of each token, such as 1 where the edit acts.
        """
        logits, counts, letters = logits.float(), counts[..., None], letters.long()
        right = ((logits.argmax(-1) == letters) * (letters > 0) * counts).sum()
        shown = ((letters > 0) * counts).sum()
        self.right = right if self.right is None else self.right + right
        self.all = shown if self.all is None else self.all + shown
        weights = counts * torch.where(letters > 0, 1.0, EMPTY_WEIGHT)
        error = F.cross_entropy(logits.flatten(0, 2), letters.flatten(), reduction="none")
        return (error * weights.flatten()).sum() / weights.sum().clamp_min(1)

    def take(self) -> dict[str, object]:
        """The figure since the last call; it waits for the device, which the loss does not."""
        right, shown, self.right, self.all = self.right, self.all, None, None
        if right is None or shown is None or not float(shown):
            return {}
        return {"letters": float(right) / float(shown)}


@contextmanager
def recorded_inputs(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """The first arguments that a module is called with inside the block; none without a module."""
    inputs: list[Tensor] = []
    if module is None:
        yield inputs
        return
    hook = module.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        yield inputs
    finally:
        hook.remove()
