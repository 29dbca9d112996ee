"""Whether a picture is of the kind that our small models know: drawings, not photographs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from kontext.pictures import PhotoWarning

POOR_ROUND_TRIP_DB = 20.0
"""Of a picture through the codec alone. Pictures of the illustrated world: 22 and more."""
EVEN = 4
"""Levels of 255 by which neighbors in a flat area may differ: models' own drawings have some noise."""
LITTLE_FLAT = 0.34
"""Share of even pixels. In drawings, also those that nano made or edited: 0.38 and more; in photographs of
people, animals and things mostly below 0.3.
"""


def flat_share(picture: Image.Image) -> float:
    """Share of pixels that are as even as a drawing's with their right and lower neighbor, 0 to 1."""
    pixels = np.asarray(picture, np.int16)
    right = np.abs(np.diff(pixels, axis=1)).max(-1)[:-1]
    below = np.abs(np.diff(pixels, axis=0)).max(-1)[:, :-1]
    return float((np.maximum(right, below) <= EVEN).mean())


def photo_warning(model_name: str, round_trip_db: float, flat: float) -> list[PhotoWarning]:
    """One warning, or none, for a picture with this round trip through the codec and this flat share."""
    if round_trip_db >= POOR_ROUND_TRIP_DB and flat >= LITTLE_FLAT:
        return []
    return [
        PhotoWarning(
            f"this looks like a photograph, and {model_name} knows illustrations; expect little, or load "
            "FLUX.1 Kontext [dev] with --model"
        )
    ]
