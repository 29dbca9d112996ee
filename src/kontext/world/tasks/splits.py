"""What training never sees.

    train     the rest
    test      drawn like train, but from scenes set aside by their own hash
    pairs     pictures that show a held-out pair of attributes, such as green curly hair
    phrasing  hand-written sentences, on scenes of test
    words     signs with held-out words

A pair is held out by its hash: about one in twelve, so that each of its two values appears in other pairs.
"""

import functools
import json

from ..drawing.signs import WORDS
from ..scenes.scene import Scene
from ..seeds import digest

SPLITS = ("train", "test", "pairs", "phrasing", "words")
HELD_OUT_WORDS = tuple(word for word in WORDS if digest("held-out word", word) % 7 == 0)
TRAIN_WORDS = tuple(word for word in WORDS if word not in HELD_OUT_WORDS)
_PAIRS_KEPT = 12
_SCENES_KEPT = 16


@functools.lru_cache(maxsize=20000)
def is_held_out(kind: str, first: str, second: str) -> bool:
    """Whether a pair of attributes is held out from training."""
    return digest("held-out pair", kind, first, second) % _PAIRS_KEPT == 0


def pairs(scene: Scene) -> list[tuple[str, str, str]]:
    """The pairs of attributes that a scene shows, as (kind, first, second)."""
    if "foreign" in scene:
        items = scene["foreign"]["items"]
        return [("shape", item["name"], item["color"]) for item in items if item["kind"] == "shape"]
    out = []
    c, background = scene["character"], scene["background"]
    if c:
        if c["hair"] and c["hair"] != "bald" and not (c["hat"] and c["family"] != "kid"):
            out.append(("hair", c["hair"], c["hair_color"]))
        out.append(("clothes", c["clothes"] or c["family"], c["cloth_color"]))
        if c["hat"]:
            out.append(("hat", c["hat"], c["hat_color"]))
    things = [*scene["objects"], scene["held"]] if scene["held"] else scene["objects"]
    for thing in things:
        out.append(("place", background["place"], thing["name"]))
        if thing["color"]:
            out.append(("object", thing["name"], thing["color"]))
    return out


def shows_held_out_pair(scene: Scene | None) -> bool:
    return scene is not None and any(is_held_out(*pair) for pair in pairs(scene))


def words_of(scene: Scene | None) -> list[str]:
    """The words that can be read in a picture."""
    if scene is None:
        return []
    word = scene["foreign"]["banner"] if "foreign" in scene else scene["sign"] and scene["sign"]["word"]
    return [word] if word else []


def is_test_scene(scene: Scene) -> bool:
    """Whether a scene, in whatever style, belongs to the share (one in sixteen) that only tests draw."""
    plain = json.dumps({**scene, "box": None, "style": None}, sort_keys=True)
    return digest("scene", plain) % _SCENES_KEPT == 0


def admits_start(split: str, scene: Scene) -> bool:
    """Whether a picture to start from may be of a split; `admits` also looks at what comes out."""
    if split == "pairs":
        return True
    if shows_held_out_pair(scene):
        return False
    if split == "words":
        return True
    return is_test_scene(scene) == (split != "train")


def admits_reference(split: str, scene: Scene) -> bool:
    """Whether a second picture may be of a split."""
    return split == "pairs" or not (shows_held_out_pair(scene) or split == "train" and is_test_scene(scene))


def admits(split: str, before: Scene | None, after: Scene) -> bool:
    """Whether an edit from `before` (None: made from words) to `after` is of a split."""
    if not admits_start(split, after if before is None else before):
        return False
    if split == "pairs":
        return shows_held_out_pair(after)
    if shows_held_out_pair(after):
        return False
    if split == "words":
        return any(word in HELD_OUT_WORDS for word in words_of(before) + words_of(after))
    return True
