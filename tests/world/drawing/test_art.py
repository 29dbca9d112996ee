"""The art pack: complete, small, and every piece of it named in NOTICE."""

from pathlib import Path

import pytest

from kontext.errors import NotFound
from kontext.world.drawing import art
from kontext.world.drawing.art import pack
from kontext.world.drawing.objects import ART_SETS, CONCEPTS
from kontext.world.drawing.out_of_domain import AVATARS
from kontext.world.drawing.pack import FONTS, ICON_SETS, STYLES, build_pack

NOTICE = Path(__file__).parents[3] / "NOTICE"
FOLDER = Path(str(art.FOLDER))


def test_notice_names_every_asset_of_the_pack():
    notice = NOTICE.read_text("utf-8")
    for style in pack()["styles"]:
        assert f"({style})" in notice, style
    for drawing_set in pack()["objects"]:
        assert f"@iconify-json/{ICON_SETS[drawing_set]} " in notice, drawing_set
    for path in FOLDER.iterdir():
        if path.name != "pack.json.gz":
            line = next(line for line in notice.splitlines() if line.startswith(f"{path.name} "))
            assert ("OFL-1.1" in line or "Apache-2.0" in line) and "Copyright" in line
    assert pack().keys() == {"styles", "objects", "icons", "fonts"}


def test_pack_holds_all_that_is_drawn_and_is_small():
    assert pack()["styles"].keys() == {*STYLES, *AVATARS}
    assert all(pack()["objects"][drawing_set].keys() == CONCEPTS.keys() for drawing_set in ART_SETS)
    assert {path.name for path in FOLDER.iterdir()} == {*pack()["fonts"].values(), "pack.json.gz"}
    assert pack()["fonts"].keys() == FONTS.keys()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1.5e6


def test_no_art_without_terms_of_redistribution():
    assert not {"avataaars", "bottts", "openmoji"} & {*pack()["styles"], *pack()["objects"]}


def test_building_without_packages_says_what_is_missing(tmp_path):
    with pytest.raises(NotFound, match="install @expo-google-fonts"):
        build_pack(tmp_path / "node_modules", tmp_path / "art")
