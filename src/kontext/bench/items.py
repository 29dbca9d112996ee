"""Items: world samples by seed and split, with their rivals, at the size the model works at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kontext.bench.metrics import Case, Picture


@dataclass(frozen=True, eq=False)
class Item:
    """One edit to ask for, with its exact answer."""

    key: str
    split: str
    prompt: str
    seed: int
    sample: Any

    @property
    def given(self) -> Picture:
        """What is shown first: the source, the first reference, or grey where there is neither."""
        sample = self.sample
        if sample.source is not None:
            return sample.source
        return sample.references[0] if sample.references else np.full_like(sample.target, 128)

    @cached_property
    def rivals(self) -> tuple[Picture, ...]:
        return ()

    @cached_property
    def case(self) -> Case:
        return Case.of(self.sample, self.rivals)
