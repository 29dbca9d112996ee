"""The "kid": our own character rig with front, side and back views."""

from .figure import CLOTHES, EXPRESSIONS, HAIRS, HATS, HELD_BEHIND_ARM, POSES, TALL_HATS, kid_svg

__all__ = ["CLOTHES", "EXPRESSIONS", "HAIRS", "HATS", "HELD_BEHIND_ARM", "POSES", "TALL_HATS", "kid_svg"]
