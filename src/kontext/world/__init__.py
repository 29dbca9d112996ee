"""An illustrated world in which every edit has an exact answer: scenes, edits, sentences, targets and masks."""

from .render import render
from .samples import Chain, Sample, Turn, World, kind_names
from .splits import SPLITS

__all__ = ["SPLITS", "Chain", "Sample", "Turn", "World", "kind_names", "render", "sample"]


def sample(
    seed: int | str, split: str = "train", category: str | None = None, kind: str | None = None
) -> Sample:
    """A task of the whole world; see `World.sample`."""
    return World().sample(seed, split, category, kind)
