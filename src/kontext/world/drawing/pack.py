r"""Building the art pack from the published packages.

    npm i --ignore-scripts @iconify-json/{fluent-emoji-flat,fluent-emoji-high-contrast,noto,twemoji} \
        @expo-google-fonts/{abril-fatface,alfa-slab-one,...,zcool-kuaile}
    pip install dicebear-styles fonttools
    kontext world pack src/kontext/world/art --packages node_modules

Fonts are cut down to the characters that are needed; a font that is changed may not keep its reserved name,
so the copies carry names of their own.
"""

import gzip
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import BadRequest, NotFound
from .art import CHINESE_FONT
from .objects import ART_SETS, CONCEPTS
from .out_of_domain import AVATARS

WORLD = Path(__file__).parents[1]
STYLES = ("open-peeps", "critters", "personas", "micah")
ICON_SETS = dict(
    zip(ART_SETS, ("fluent-emoji-flat", "noto", "twemoji", "fluent-emoji-high-contrast"), strict=True)
)
FONTS = {
    "AbrilFatface": "abril-fatface",
    "AlfaSlabOne": "alfa-slab-one",
    "Anton": "anton",
    "Bangers": "bangers",
    "BebasNeue": "bebas-neue",
    "Bungee": "bungee",
    "Chewy": "chewy",
    "Lobster": "lobster",
    "LuckiestGuy": "luckiest-guy",
    "Pacifico": "pacifico",
    "PermanentMarker": "permanent-marker",
    "PressStart2P": "press-start-2p",
    "Righteous": "righteous",
    "TitanOne": "titan-one",
    CHINESE_FONT: "zcool-kuaile",
}
_ICON_CATEGORIES = ("Animals & Nature", "Food & Drink", "Activities", "Travel & Places", "Objects")
_ICON_BYTES = 1600  # larger drawings are left out
_ICONS = 240


def build_pack(packages: Path, folder: Path) -> list[Path]:
    """Write `pack.json.gz` and the fonts into `folder`; `packages` is a node_modules folder.

    The same packages give the same bytes. Raises NotFound where a package is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, package in FONTS.items():
        source = packages / "@expo-google-fonts" / package / "400Regular" / f"{name}_400Regular.ttf"
        if not source.exists():
            raise NotFound(f"no font {source}; install @expo-google-fonts/{package} there")
        written.append(folder / f"{name}.ttf")
        written[-1].write_bytes(_subset(source, _characters(name)))
    pack = {
        "styles": {name: _avatar_style(name) for name in (*STYLES, *AVATARS)},
        "objects": {art: _icons(packages, package) for art, package in ICON_SETS.items()},
        "icons": _more_icons(packages),
        "fonts": {name: f"{name}.ttf" for name in FONTS},
    }
    text = json.dumps(pack, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    written.append(folder / "pack.json.gz")
    written[-1].write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    return written


def _characters(font: str) -> str:
    """ASCII; for the Chinese font also every Chinese character of the world's sentences."""
    ascii_characters = "".join(map(chr, range(32, 127)))
    if font != CHINESE_FONT:
        return ascii_characters
    text = "".join(path.read_text("utf-8") for path in sorted(WORLD.rglob("*.py")))
    return ascii_characters + "".join(sorted({character for character in text if ord(character) > 0x2000}))


def _subset(source: Path, characters: str) -> bytes:
    try:
        from fontTools import subset
        from fontTools.ttLib import TTFont
    except ImportError as error:
        raise BadRequest("the pack needs fonttools to cut fonts down: pip install fonttools") from error
    options = subset.Options(
        layout_features=[], hinting=False, name_IDs=[0, 1, 2, 4, 6, 13, 14], notdef_outline=True
    )
    font = TTFont(source, recalcTimestamp=False)
    cutter = subset.Subsetter(options)
    cutter.populate(text=characters)
    cutter.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 4, 6):
            record.string = "KontextSigns"
    out = io.BytesIO()
    font.save(out)
    return out.getvalue()


def _avatar_style(name: str) -> dict[str, Any]:
    try:
        text = files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8")
    except ModuleNotFoundError as error:
        raise NotFound("the pack needs the avatar definitions: pip install dicebear-styles") from error
    style = json.loads(text)
    return {key: style[key] for key in ("canvas", "components", "colors")}


def _icon_file(packages: Path, package: str, name: str) -> dict[str, Any]:
    path = packages / "@iconify-json" / package / name
    if not path.exists():
        raise NotFound(f"no {path}; install @iconify-json/{package} there")
    return json.loads(path.read_text("utf-8"))


def _drawing(icons: dict[str, Any], name: str) -> list[Any]:
    """[width, height, SVG body] of an icon, following aliases."""
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    default = icons.get("width", 16), icons.get("height", 16)
    return [icon.get("width", default[0]), icon.get("height", default[1]), icon["body"]]


def _icons(packages: Path, package: str) -> dict[str, list[Any]]:
    icons = _icon_file(packages, package, "icons.json")
    return {name: _drawing(icons, concept.icon) for name, concept in CONCEPTS.items()}


def _more_icons(packages: Path) -> dict[str, list[Any]]:
    """Small flat icons other than the concepts, evenly over the categories' order."""
    package = ICON_SETS["flat"]
    icons, about = _icon_file(packages, package, "icons.json"), _icon_file(packages, package, "metadata.json")
    known = {concept.icon for concept in CONCEPTS.values()}
    names = [
        name for category in _ICON_CATEGORIES for name in about["categories"][category] if name not in known
    ]
    small = [
        name for name in names if len(icons["icons"].get(name, {"body": " " * 9999})["body"]) <= _ICON_BYTES
    ]
    return {name: _drawing(icons, name) for name in small[:: max(1, len(small) // _ICONS)][:_ICONS]}
