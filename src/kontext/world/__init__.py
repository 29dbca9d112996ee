"""An illustrated world in which every edit has an exact answer: scenes, edits, sentences, targets, masks."""

import numpy as np

from .scenes.render import render
from .tasks.chains import Chain, ChainTurn
from .tasks.distractors import distractors
from .tasks.samples import Sample, World, kind_names
from .tasks.splits import SPLITS

__all__ = [
    "SPLITS",
    "Chain",
    "Sample",
    "ChainTurn",
    "World",
    "distractors",
    "kind_names",
    "render",
    "sample",
    "scene_picture",
]


def sample(
    seed: int | str, split: str = "train", category: str | None = None, kind: str | None = None
) -> Sample:
    """A task of the whole world; see `World.sample`."""
    return World().sample(seed, split, category, kind)


def scene_picture(seed: int | str, split: str = "train") -> np.ndarray:
    """Just a picture of the whole world (uint8, 256 x 256 x 3); see `World.scene_picture`."""
    return World().scene_picture(seed, split)
