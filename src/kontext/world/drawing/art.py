"""The art pack: vector drawings and fonts that ship inside the package (authors and licenses: NOTICE).

`pack.json.gz` holds avatar definitions (`styles`), objects in parallel drawing sets (`objects`) and unnamed
icons (`icons`); the fonts are subsets in the same folder. `pack.py` builds the folder from packages.
"""

import functools
import gzip
import json
from importlib.resources import files
from typing import Any

from PIL import ImageFont

FOLDER = files("kontext.world") / "art"
CHINESE_FONT = "ZCOOLKuaiLe"


@functools.lru_cache(maxsize=1)
def pack() -> dict[str, Any]:
    """The whole pack as plain data, read once."""
    return json.loads(gzip.decompress((FOLDER / "pack.json.gz").read_bytes()))


@functools.lru_cache(maxsize=1)
def font_names() -> tuple[str, ...]:
    """Fonts for words on signs, sorted."""
    return tuple(sorted(name for name in pack()["fonts"] if name != CHINESE_FONT))


@functools.lru_cache(maxsize=3000)
def font(name: str, size_pixels: int) -> ImageFont.FreeTypeFont:
    """One font of the pack at a size."""
    return ImageFont.truetype(str(FOLDER / pack()["fonts"][name]), size_pixels)
