"""The whole story, as one person would live it; its pictures are kept in build/playground."""

from __future__ import annotations

import io
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser


def test_whole_story(hand, drawing, tmp_path):
    page = hand.open().page
    hand.picture("story-01-start")

    hand.drop(drawing(), "my house.png")
    page.locator(".doings").wait_for()
    page.get_by_text("Ready · ").first.wait_for()
    assert page.locator(".session-name").first.input_value() == "my house"
    hand.picture("story-02-opened")

    hand.say("Make the wall red slowly", wait=False)
    page.locator(".frame img.preview").wait_for()
    page.get_by_text("step 2 of 8").wait_for()
    hand.picture("story-03-preview")
    hand.release()
    hand.idle()
    hand.say("Make the roof blue")
    hand.say("Add a yellow sun")
    assert hand.turns() == [
        "Original picture",
        "Make the wall red slowly",
        "Make the roof blue",
        "Add a yellow sun",
    ]
    hand.picture("story-04-three-edits")

    # branch from the first picture
    page.get_by_role("treeitem", name="Original picture").click()
    page.locator(".count input[value='3']").check()
    hand.say("Make the door green")
    assert len(hand.turns()) == 7
    hand.idle()
    page.get_by_role("treeitem", name="Variant 3 of 3").locator("progress").wait_for(state="detached")
    hand.picture("story-05-branch-with-variants")
    assert len({page.locator(f".row.many .thumb img >> nth={n}").get_attribute("src") for n in range(3)}) == 3

    # compare the last edit of the first line with the original
    page.get_by_role("treeitem", name="Add a yellow sun").click()
    hand.key("c")
    page.locator(".pick.a select").select_option(label="0 · Original picture")
    divider = page.get_by_role("slider", name="Divider between A and B")
    divider.press("Home")
    assert divider.get_attribute("aria-valuetext") == "100 % of B"
    for _ in range(40):
        divider.press("ArrowRight")
    assert divider.get_attribute("aria-valuetext") == "60 % of B"
    hand.picture("story-06-compare")
    hand.key("Escape")

    # point with a box: only there anything changes
    before = np.asarray(Image.open(io.BytesIO(hand.pixels())).convert("RGB"))
    hand.key("b")
    hand.drag((0.25, 0.5), (0.5, 0.75))
    hand.picture("story-07-box")
    page.locator(".count input[value='1']").check()
    hand.say("Turn the thing in the red box into a pink gift")
    after = np.asarray(Image.open(io.BytesIO(hand.pixels())).convert("RGB"))
    rows, columns = np.nonzero(np.any(before != after, axis=-1))
    assert abs(columns.min() - 80) <= 2 and abs(columns.max() - 159) <= 2
    assert abs(rows.min() - 120) <= 2 and abs(rows.max() - 179) <= 2
    hand.key("g")
    page.locator("canvas.veil").wait_for()
    hand.picture("story-08-region")

    # undo and redo
    hand.key("u")
    assert hand.here() == "Add a yellow sun"
    hand.key("r")
    assert hand.here() == "Turn the thing in the red box into a pink gift"

    # download with the history, reload, restore from the file
    hand.idle()
    with page.expect_download() as waiting:
        hand.key("d")
    assert waiting.value.suggested_filename.endswith(".png")
    file = tmp_path / "mine.png"
    waiting.value.save_as(file)
    assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), after)
    page.reload()
    page.locator(".doings").wait_for()
    assert hand.here() == "Turn the thing in the red box into a pink gift"
    assert len(hand.turns()) == 8

    hand.key("n")
    page.locator(".opening h1").wait_for()
    hand.drop(file.read_bytes(), "mine.png")
    hand.told("Restored with")
    page.locator(".doings").wait_for()
    assert hand.turns()[-1] == "Turn the thing in the red box into a pink gift"
    assert len(hand.turns()) == 5
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(hand.pixels())).convert("RGB")), after)
    hand.picture("story-09-restored")

    # the session as one file, and everything in the gallery
    packed = httpx.get(f"{hand.url}/api/sessions/{hand.session()['id']}/export").content
    assert zipfile.ZipFile(io.BytesIO(packed)).testzip() is None
    hand.key("h")
    page.get_by_role("button", name="Open my house").wait_for()
    hand.picture("story-10-gallery")
