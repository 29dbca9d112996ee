"""The "kid": our own character rig with front, side and back views.

Three-view sheets, "show from behind", poses and two camera distances are exact.

Drawn in a box of 200 x 300 with the head centered on (100, 92) and the feet at 290. Tables hold the outlines,
one per view; functions put them together from back to front.
"""

from typing import Any

from ..colors import COLORS, HAIR_COLORS
from .body import ARMS, DARK_CLOTH, DENIM, SIDE_ARM, arm_names, arm_svg, legs, mirrored, torso
from .hair import hair_behind, hair_front
from .head import face, glasses_svg, hat_svg, head
from .strokes import shape

HAIRS = (
    "short",
    "bob",
    "long",
    "ponytail",
    "bun",
    "twintails",
    "afro",
    "curly",
    "spiky",
    "mohawk",
    "bald",
)
CLOTHES = ("tshirt", "striped", "hoodie", "dress", "overalls", "suit")
HATS = ("cap", "beanie", "tophat", "party", "crown", "strawhat", "headphones")
EXPRESSIONS = ("smile", "laugh", "sad", "surprised", "angry", "closed")
POSES = ("stand", "wave", "cheer")
TALL_HATS = ("beanie", "tophat", "party", "crown")  # would reach into a banner at the top
HELD_BEHIND_ARM = "<!--held-->"  # where an object in the hand goes: behind the arm that holds it


def kid_svg(c: dict[str, Any], view: str = "front") -> str:
    """The SVG body of a kid (`front`, `side`, `back`); what it holds goes where `HELD_BEHIND_ARM` stands."""
    skin, clothes, pose = c["skin"], c["clothes"], c["pose"]
    hair_color, color = HAIR_COLORS[c["hair_color"]].hex, COLORS[c["cloth_color"]].hex
    sleeve = DARK_CLOTH if clothes == "suit" else color
    trousers = {"overalls": DENIM, "suit": DARK_CLOTH, "dress": skin}.get(clothes, c["pants"])

    def arm(outline: tuple[str, tuple[int, int]]) -> str:
        return arm_svg(outline, clothes, skin, sleeve)

    arms = tuple(ARMS[name] for name in arm_names(pose, c["hand"]))
    if view == "back":
        arms = tuple(map(mirrored, arms))
    body = hair_behind(c["hair"], hair_color, view) + legs(view, trousers, c["shoes"])
    if view != "side":
        body += arm(arms[0]) + (arm(arms[1]) if pose != "hold" else "")
    body += torso(clothes, color, view)
    if view == "side":
        body += (arm(arms[0]) if pose == "cheer" else "") + arm(SIDE_ARM[pose])
    body += head(view, skin)
    if view != "back":
        body += face(c["expression"], c["beard"], hair_color, view)
    if view == "side":
        body += shape("M84,92 q-14,4 -8,20 q8,6 12,-4", skin)
    if view != "back" and c["glasses"]:
        body += glasses_svg(c["glasses"], view)
    body += hair_front(c["hair"], hair_color, view)
    if c["hat"]:
        nape = skin if c["hair"] == "bald" else hair_color
        body += hat_svg(c["hat"], COLORS[c["hat_color"]].hex, view, nape)
    if view == "front" and pose == "hold":
        body += HELD_BEHIND_ARM + arm(arms[1])
    return body
