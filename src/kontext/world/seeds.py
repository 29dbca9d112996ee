"""Random generators from readable seeds.

A generator depends on its parts alone, never on the process, so that the same seed draws the same picture
everywhere and in any order.
"""

import hashlib
import random


def digest(*parts: object) -> int:
    """A 64-bit number from the text of `parts` (SHA-256), equal in every process."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def generator(*parts: object) -> random.Random:
    """A generator seeded by `digest(*parts)`."""
    return random.Random(digest(*parts))
