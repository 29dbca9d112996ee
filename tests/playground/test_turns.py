"""What every user may expect of turns and sessions: comparing, seeing, renaming, finding and taking out."""

from __future__ import annotations

import io
import re

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser


def test_two_turns_compared(hand):
    page = hand.start().page
    hand.say("Make the shirt red")
    hand.key("c")

    def choose(mode: str) -> None:
        page.get_by_role("button", name=mode, exact=True).click()
        hand.picture(f"compare-{mode.split()[0].lower()}")

    choose("Side by side")
    assert page.locator(".sides .frame").count() == 2
    hand.key("+")
    transforms = page.locator(".frame").evaluate_all("all => all.map((one) => one.style.transform)")
    assert len(set(transforms)) == 1 and "scale(1.5)" in transforms[0]
    hand.key("0")

    choose("Flicker")
    page.get_by_role("button", name="Pause").click()
    seen = page.locator(".which").text_content()
    page.get_by_role("button", name="Swap").click()
    assert page.locator(".which").text_content() != seen

    choose("Difference")
    share = page.get_by_text(re.compile(r"of the pixels differ")).text_content()
    assert 8 < float(share.split(" ")[0]) < 18
    page.locator(".pick.b select").select_option(label="0 · Original picture")
    page.get_by_text("No pixels differ").wait_for()


def test_picture_before_is_shown_while_one_holds(hand):
    page = hand.start().page
    hand.say("Make the shirt red")
    original, edit = (turn["picture"] for turn in hand.session()["turns"])
    shown = page.locator(".frame img.picture")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.down(" ")
    page.locator(".frame .before").wait_for()
    assert shown.get_attribute("src") == original
    page.keyboard.up(" ")
    assert shown.get_attribute("src") == edit
    shown.hover()
    page.mouse.down()
    page.locator(".frame .before").wait_for()
    page.mouse.up()
    assert shown.get_attribute("src") == edit


def test_region_and_lock_are_seen_at_work(hand):
    page = hand.open().page
    page.evaluate("""() => {
      const look = () => (window.lit ||= document.querySelector('canvas.news')?.dataset.of);
      new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true });
    }""")
    hand.start().say("Make the shirt red")
    edit = hand.session()["turns"][1]
    assert page.evaluate("window.lit") == edit["region"], "what changed lights up once"
    assert re.search(r"^1\d % changed, the rest untouched", page.locator(".facts").inner_text())
    hand.key("g")
    page.locator("canvas.veil[data-drawn]").wait_for()
    region = Image.open(io.BytesIO(httpx.get(hand.url + edit["region"]).content)).convert("L")
    veil = """(canvas) => { const { width, height } = canvas;
      const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
      return Array.from({ length: 256 }, (_, at) => [at % 16, at >> 4].map((place) => (place + 0.5) / 16))
        .map(([x, y]) => data[(Math.floor(y * height) * width + Math.floor(x * width)) * 4 + 3]); }"""
    alphas = page.locator("canvas.veil").evaluate(veil)
    cells = list(np.asarray(region).reshape(16, 16, 16, 16).swapaxes(1, 2).reshape(256, 256) > 127)
    shown = [alpha == 0 for alpha, cell in zip(alphas, cells, strict=True) if cell.all()]
    hidden = [alpha > 0 for alpha, cell in zip(alphas, cells, strict=True) if not cell.any()]
    assert len(shown) > 8 and all(shown), "what the edit touched is seen as it is"
    assert len(hidden) > 100 and all(hidden), "all else lies under the veil"
    hand.key("u")
    page.locator("summary.setting").nth(2).click()
    page.get_by_label("Keep everything else").uncheck()
    page.keyboard.press("Escape")
    hand.say("Make the shirt blue")
    assert "100 % changed" in page.locator(".facts").inner_text()
    assert "untouched" not in page.locator(".facts").inner_text()
    hand.key("g")
    hand.told("the whole picture was regenerated")
    page.locator("summary.setting").nth(2).click()
    page.get_by_label("Keep everything else").check()
    page.keyboard.press("Escape")
    hand.say("Change nothing")
    assert "Nothing changed: rephrase" in page.locator(".facts").inner_text()


def test_picture_stays_where_it_is(hand):
    """Suggestions, hints, progress and variants come and go around it."""
    page = hand.start().page
    frame, places = page.locator(".frame"), []

    def look() -> None:
        places.append(frame.bounding_box())

    look()
    page.locator("#prompt").fill("Make the shirt slowly red")
    look()
    page.locator("#prompt").press("Enter")
    page.get_by_text("step 2 of 8").wait_for()
    look()
    hand.release()
    hand.idle()
    look()
    hand.key("v")
    page.get_by_role("treeitem", name="Variant 4 of 4").wait_for()
    hand.idle()
    look()
    hand.key("b")
    look()
    assert all(place == places[0] for place in places), places


def test_zoom_and_pan(hand):
    page = hand.start().page
    hand.key("+", "+")
    assert "scale(2.25)" in page.locator(".frame").get_attribute("style")
    before = page.locator(".frame").bounding_box()
    hand.drag((0.5, 0.5), (0.55, 0.5))
    assert page.locator(".frame").bounding_box()["x"] > before["x"]
    hand.key("0")
    assert "scale(1)" in page.locator(".frame").get_attribute("style")


def test_turns_are_renamed_reused_and_deleted(hand):
    page = hand.start().page
    hand.say("Make the shirt red")
    hand.say("Make the sign blue")
    hand.key("u", "i")
    facts = dict(
        zip(*(page.locator(f".facts {part}").all_text_contents() for part in ("dt", "dd")), strict=True)
    )
    turn = hand.session()["turns"][1]
    assert facts["Prompt"] == "Make the shirt red" and facts["Seed"] == str(turn["seed"])
    assert facts["Made from"] == "0 · Original picture" and facts["Size"] == "256 × 256"
    assert facts["Steps"] == "8" and facts["Model"] == "painter" and facts["Lock"] == "on"
    page.get_by_label("Name of this turn").fill("red shirt")
    page.get_by_label("Name of this turn").press("Tab")
    page.get_by_role("treeitem", name="red shirt", include_hidden=True).wait_for()
    page.get_by_role("button", name="Use the prompt and settings again").click()
    page.locator("#prompt:focus").wait_for()
    assert page.locator("#prompt").input_value() == "Make the shirt red"
    assert hand.here() == "Original picture"
    page.locator("#prompt").fill("")
    hand.key("r", "i")
    page.get_by_role("button", name="Delete this turn").click()
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_role("treeitem", name="red shirt").wait_for(state="detached")
    assert hand.turns() == ["Original picture"]


def test_words_go_back_to_the_first_picture(hand):
    page = hand.start().page
    hand.say("Make the shirt red")
    hand.say("Make the sign blue")
    hand.key("i")
    page.get_by_role("button", name="Use the prompt on the first picture").click()
    assert hand.here() == "Original picture"
    assert page.locator("#prompt").input_value() == "Make the sign blue"


def test_all_turns_are_done_to_another_picture(hand, drawing, tmp_path):
    page = hand.start().page
    hand.say("Make the shirt red")
    hand.say("Make the sign blue")
    first = hand.session()
    (tmp_path / "other.png").write_bytes(drawing((120, 90)))
    hand.key("i")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Apply all edits to another picture").click()
    chooser.value.set_files(tmp_path / "other.png")
    page.locator(".now b", has_text="Make the sign blue").wait_for()
    hand.until(f"location.hash.slice(1) !== '{first['id']}'")
    page.locator(".thumb img >> nth=2").wait_for()
    hand.idle()
    second = hand.session()
    for turn, other in zip(first["turns"][1:], second["turns"][1:], strict=True):
        assert (turn["prompt"], turn["seed"]) == (other["prompt"], other["seed"])
        assert other["size"] == [120, 90]


def test_gallery_survives_a_reload_finds_opens_renames_and_deletes(hand):
    page = hand.start().page
    name = page.locator(".top .session-name")
    name.fill("Zebra 42")
    name.press("Enter")
    hand.key("n")
    page.reload()
    page.locator(".opening h1").wait_for()
    hand.key("h")
    page.get_by_placeholder("Search by name").fill("zebra")
    page.get_by_role("button", name="Open Zebra 42").click()
    page.locator(".doings").wait_for()
    assert name.input_value() == "Zebra 42"
    hand.key("h")
    page.get_by_placeholder("Search by name").fill("zebra")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_text("No session has this name.").wait_for()


def test_session_file_comes_back(hand, tmp_path):
    page = hand.start().page
    hand.say("Make the shirt red")
    hand.key("i")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download the session").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    assert file.suffix == ".zip"
    page.keyboard.press("Escape")
    hand.key("n")
    hand.drop(file.read_bytes(), file.name, "application/zip")
    hand.told("Restored with 2 turns.")


def test_download_without_history_has_none(hand, tmp_path):
    page = hand.start().page
    hand.say("Make the shirt red")
    hand.key("i")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download without history").click()
    waiting.value.save_as(tmp_path / "bare.png")
    assert "kontext" not in Image.open(tmp_path / "bare.png").text


def test_deep_link_opens_the_session(hand, make_hand):
    hand.start().say("Make the shirt red")
    other = make_hand(hand.url)
    address = hand.url + "/" + hand.page.evaluate("location.hash")
    other.page.goto(address)
    other.page.locator(".doings").wait_for()
    assert other.turns() == ["Original picture", "Make the shirt red"]
    hand.start()
    hand.page.goto(address)  # also where the page is open already
    hand.page.get_by_role("treeitem", name="Make the shirt red").wait_for()
