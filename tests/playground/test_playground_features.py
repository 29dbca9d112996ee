"""What every user may expect, one test for each."""

from __future__ import annotations

import io
import re

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser

SELECTED = """(() => { const field = document.querySelector('#prompt');
  return field.value.slice(field.selectionStart, field.selectionEnd); })()"""


def test_first_picture_is_one_click_away_and_its_prompt_is_ready(hand):
    page = hand.open().page
    page.get_by_role("button", name="Start with: A reader in the library").click()
    page.locator(".doings").wait_for()
    assert page.locator("#prompt").input_value() == "Make the hair blue"
    page.get_by_text(re.compile(r"Read ahead in \d+ ms")).wait_for()


def test_pictures_come_by_button_by_drop_and_by_paste(hand, drawing, tmp_path):
    page = hand.open().page
    file = tmp_path / "house.jpg"
    file.write_bytes(drawing((200, 100), "JPEG"))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a picture").click()
    chooser.value.set_files(file)
    page.get_by_text("200 × 100").first.wait_for()

    hand.key("n")
    page.evaluate(
        """(bytes) => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([new Uint8Array(bytes)], 'pasted.png', { type: 'image/png' }));
          window.dispatchEvent(new ClipboardEvent('paste', { clipboardData, cancelable: true }));
        }""",
        list(drawing((120, 90))),
    )
    page.get_by_text("120 × 90").first.wait_for()


def test_camera_is_offered_where_there_is_one(make_hand, server):
    phone = make_hand(
        server.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    ).open()
    with phone.page.expect_file_chooser() as chooser:
        phone.page.get_by_role("button", name="Take a photo").click()
    assert chooser.value.element.get_attribute("capture") == "environment"


def test_words_alone_make_a_first_picture(hand):
    page = hand.open().page
    page.get_by_role("button", name="A monster", exact=True).click()
    assert page.locator("#prompt").input_value() == "A pink monster in outer space"
    assert page.evaluate(SELECTED) == "pink"
    page.locator("#prompt").press("Enter")
    hand.page.locator(".now b", has_text="A pink monster").wait_for()
    hand.idle()
    assert hand.turns() == ["A pink monster in outer space"]


def test_prompts_come_back_with_the_arrow_key(hand):
    hand.start().say("Make the shirt red")
    hand.say("Make the sign blue")
    field = hand.page.locator("#prompt")
    field.fill("half a thou")
    for keys, text in [
        (("Alt+ArrowUp",), "Make the sign blue"),
        (("ArrowUp",), "Make the shirt red"),
        (("ArrowDown", "ArrowDown"), "half a thou"),
    ]:
        for key in keys:
            field.press(key)
        assert field.input_value() == text


def test_seed_is_shown_locked_and_honoured(hand):
    page = hand.start().page
    hand.say("Make the shirt red")
    hand.key("l")
    chip = page.locator("summary.setting", has_text="Seed")
    seed = re.search(r"\d+", chip.text_content())[0]
    first = hand.pixels()
    hand.key("u")
    hand.say("Make the shirt red")
    assert f"seed {seed}" in page.locator(".facts").text_content()
    assert hand.pixels() == first
    assert len(hand.turns()) == 3


def test_variants_are_siblings_and_never_replace(hand):
    page = hand.start().page
    hand.say("Make the shirt red")
    first = hand.pixels()
    hand.key("v")
    page.get_by_role("treeitem", name="Variant 4 of 4").wait_for()
    hand.idle()
    seen = {hand.pixels()}
    for _ in range(3):
        hand.key("]")
        hand.idle()
        page.wait_for_timeout(150)
        seen.add(hand.pixels())
    assert first in seen and len(seen) == 4


def test_shape_of_the_answer_is_drawn_and_exact(hand):
    page = hand.start().page
    page.locator("summary.setting").first.click()
    page.get_by_role("radio", name="16:9").check()
    page.get_by_text("The answer will be 256 × 144 pixels.").wait_for()
    used = page.locator(".used").evaluate(
        "one => [one.style.left, one.style.top, one.style.width, one.style.height]"
    )
    assert used == ["0%", "21.875%", "100%", "56.25%"]
    hand.say("Make the shirt red")
    assert Image.open(io.BytesIO(hand.pixels())).size == (256, 144)


def test_brush_limits_and_pen_is_seen(hand):
    page = hand.start().page
    before = np.asarray(Image.open(io.BytesIO(hand.pixels())).convert("RGB"))
    hand.key("p")
    hand.drag((0.1, 0.5), (0.4, 0.5))
    hand.say("Make it green")
    after = np.asarray(Image.open(io.BytesIO(hand.pixels())).convert("RGB"))
    rows, columns = np.nonzero(np.any(before != after, axis=-1))
    assert columns.max() < 0.52 * 256 and 0.35 * 256 < rows.min() and rows.max() < 0.65 * 256
    hand.key("k")
    hand.drag((0.6, 0.6), (0.8, 0.8))
    hand.say("Make it blue")
    session = page.evaluate("location.hash.slice(1)")
    turns = httpx.get(f"{hand.url}/api/sessions/{session}").json()["turns"]
    assert turns[1]["mask"] and not turns[1]["markup"]
    markup = Image.open(io.BytesIO(httpx.get(hand.url + turns[2]["markup"]).content)).convert("RGBA")
    assert markup.size == (256, 256) and markup.getpixel((179, 179))[:3] == (255, 0, 0)
    assert markup.getpixel((10, 10))[3] == 0


def test_drawings_survive_tool_changes_resizes_and_reloads(hand):
    page = hand.start().page
    hand.key("p")
    hand.drag((0.2, 0.2), (0.5, 0.3))
    hand.key("b")
    hand.drag((0.5, 0.5), (0.9, 0.9))
    page.set_viewport_size({"width": 900, "height": 700})
    page.locator("#prompt").fill("Half a sentence")
    page.wait_for_timeout(600)
    page.reload()
    page.locator("kx-pointer canvas").wait_for()
    stored = page.evaluate(
        "import('/core/store.js').then(({ store }) => Object.values(store.state.pointing)[0])"
    )
    assert len(stored["mask"]) == 1 and stored["box"][2] > 90
    assert page.locator("#prompt").input_value() == "Half a sentence"
    page.get_by_role("button", name="Remove what is drawn").click()
    page.locator("kx-pointer canvas").wait_for(state="detached")


def test_references_have_numbers_and_roles_and_light_up(hand, drawing, tmp_path):
    page = hand.start().page
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(drawing((90, 90)))
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Add a reference picture").click()
        chooser.value.set_files(tmp_path / f"{name}.png")
        page.locator(f".reference >> nth={1 if name == 'a' else 2}").wait_for()
    page.locator("#prompt").fill("Put the roof of image 3 on the kid")
    assert page.locator(".reference.lit .number").all_text_contents() == ["3"]
    page.locator(".reference summary").first.click()
    page.get_by_role("radio", name="a style").check()
    assert page.locator("#prompt").input_value().endswith("in the style of image 2")
    assert page.locator(".reference.lit .number").all_text_contents() == ["2", "3"]
    page.keyboard.press("Escape")
    hand.say(page.locator("#prompt").input_value())
    session = page.evaluate("location.hash.slice(1)")
    assert len(httpx.get(f"{hand.url}/api/sessions/{session}").json()["turns"][1]["references"]) == 2


def test_dropping_on_a_reference_replaces_it_and_beside_adds(hand, drawing):
    page = hand.start().page
    hand.drop(drawing((90, 90)), "one.png", on=".references .add")
    page.locator("details.reference").wait_for()
    first = page.locator("details.reference img").get_attribute("src")
    hand.drop(drawing((70, 90)), "two.png", on="details.reference")
    page.locator(f"details.reference img:not([src='{first}'])").wait_for()
    assert page.locator("details.reference").count() == 1


def test_running_edit_shows_its_steps_and_stops(hand):
    page = hand.start().page
    hand.say("Make the shirt slowly red", wait=False)
    page.get_by_text(re.compile(r"step \d of 8")).wait_for()
    page.locator(".frame img.preview").wait_for()
    page.locator("#prompt").press("Escape")
    page.locator(".doings").wait_for()
    assert hand.turns() == ["Original picture"]


def test_queue_position_is_told(hand, make_hand):
    other = make_hand(hand.url)
    other.start()
    other.say("Make the shirt slowly red", wait=False)
    other.page.get_by_text(re.compile(r"step \d of 8")).wait_for()
    hand.start()
    hand.page.locator(".count input[value='2']").check()
    hand.say("Make the sign slowly blue", wait=False)
    hand.page.get_by_text(re.compile("next in the queue|number 2 in the queue")).wait_for()
    hand.page.locator("#prompt").press("Escape")
    other.page.locator("#prompt").press("Escape")
    hand.page.locator("#prompt").press("Escape")
    hand.idle()


@pytest.mark.parametrize("mode", ["Side by side", "Flicker", "Difference"])
def test_two_turns_compared(hand, mode):
    page = hand.start().page
    hand.say("Make the shirt red")
    hand.key("c")
    page.get_by_role("button", name=mode, exact=True).click()
    if mode == "Difference":
        share = page.get_by_text(re.compile(r"of the pixels differ")).text_content()
        assert 8 < float(share.split(" ")[0]) < 18
        page.locator(".pick.b select").select_option(label="0 · Original picture")
        page.get_by_text("Not one pixel differs").wait_for()
    elif mode == "Flicker":
        page.get_by_role("button", name="Pause").click()
        seen = page.locator(".which").text_content()
        page.get_by_role("button", name="Swap").click()
        assert page.locator(".which").text_content() != seen
    else:
        assert page.locator(".sides .frame").count() == 2
        hand.key("+")
        assert (
            page.locator(".frame").evaluate_all("all => new Set(all.map((one) => one.style.transform)).size")
            == 1
        )
    hand.picture(f"compare-{mode.split()[0].lower()}")


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
    page.get_by_label("Name of this turn").fill("red shirt")
    page.get_by_label("Name of this turn").press("Tab")
    page.get_by_role("treeitem", name="red shirt", include_hidden=True).wait_for()
    page.get_by_role("button", name="Use everything again").click()
    page.locator("#prompt:focus").wait_for()
    assert page.locator("#prompt").input_value() == "Make the shirt red"
    assert hand.here() == "Original picture"
    page.locator("#prompt").fill("")
    hand.key("r", "i")
    page.get_by_role("button", name="Delete this turn").click()
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_role("treeitem", name="red shirt").wait_for(state="detached")
    assert hand.turns() == ["Original picture"]


def test_gallery_finds_opens_renames_and_deletes(hand):
    page = hand.start().page
    name = page.locator(".top .session-name")
    name.fill("Zebra 42")
    name.press("Enter")
    hand.key("n", "h")
    page.get_by_placeholder("Search by name").fill("zebra")
    page.get_by_role("button", name="Open Zebra 42").click()
    page.locator(".doings").wait_for()
    assert name.input_value() == "Zebra 42"
    hand.key("h")
    page.get_by_placeholder("Search by name").fill("zebra")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_text("No session has that name.").wait_for()


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


def test_presets_select_what_is_to_be_filled_in(hand):
    page = hand.start().page
    page.get_by_role("button", name="Poster text").click()
    field = page.locator("#prompt")
    assert field.input_value() == "Make the poster say 'HELLO'"
    page.keyboard.type("PARTY")
    assert field.input_value() == "Make the poster say 'PARTY'"


def test_chinese_from_the_browser_and_by_the_button(make_hand, server):
    hand = make_hand(server.url, locale="zh-CN")
    hand.page.goto(server.url)
    hand.page.get_by_role("heading", name="说出要改什么").wait_for()
    assert hand.page.evaluate("document.documentElement.lang") == "zh"
    hand.picture("chinese")
    hand.page.get_by_role("button", name="English").click()
    hand.page.get_by_role("heading", name="Say what to change").wait_for()
    hand.page.reload()
    hand.page.get_by_role("heading", name="Say what to change").wait_for()


def test_colours_follow_the_system_until_chosen(make_hand, server):
    hand = make_hand(server.url, color_scheme="dark").open()
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = hand.page.evaluate(colour)
    hand.page.get_by_role("button", name="Colours: as the system").click()
    light = hand.page.evaluate(colour)
    assert dark != light
    hand.page.reload()
    hand.page.locator(".opening h1").wait_for()
    assert hand.page.evaluate(colour) == light


def test_phone_shows_everything_without_sideways_scrolling(make_hand, server):
    hand = make_hand(
        server.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    ).start()
    hand.say("Make the shirt red")
    page = hand.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for place in (".frame", "#prompt", ".send", ".turns", ".tools", ".doings"):
        box = page.locator(place).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 361 and box["y"] + box["height"] <= 741, place
    assert page.locator(".frame").bounding_box()["width"] > 200
    page.locator("summary.setting").first.tap()
    panel = page.locator(".panel.sizes").bounding_box()
    assert panel["x"] >= 0 and panel["x"] + panel["width"] <= 360
    hand.picture("phone-sizes")


def test_warnings_of_the_engine_are_told(hand):
    hand.start().say("Make the photo blue")
    hand.told("The painter knows no photographs.")


def test_deep_link_opens_the_session(hand, make_hand):
    hand.start()
    other = make_hand(hand.url)
    other.page.goto(hand.url + "/" + hand.page.evaluate("location.hash"))
    other.page.locator(".doings").wait_for()
    assert other.turns() == ["Original picture"]


def test_dropping_into_a_session_offers_both_uses(hand, drawing):
    page = hand.start().page
    session = page.evaluate("location.hash")
    hand.drop(drawing((90, 90)), "right.png", at=(0.9, 0.3))
    page.locator("details.reference").wait_for()
    assert page.evaluate("location.hash") == session
    hand.drop(drawing((90, 60)), "left.png", at=(0.1, 0.3))
    page.get_by_text("90 × 60").first.wait_for()
    assert page.evaluate("location.hash") != session
