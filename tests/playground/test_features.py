"""What every user may expect of the page, one test for each."""

from __future__ import annotations

import http.server
import io
import re
import threading

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
    page.get_by_text(re.compile(r"Ready · \d+ ms")).wait_for()


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


def test_picture_comes_by_its_address_where_the_server_fetches(hand, make_hand, strict_server, drawing):
    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.send_header("content-type", "image/png")
            self.end_headers()
            self.wfile.write(drawing((140, 70)))

        def log_message(self, *words):
            pass

    paste = """(address) => {
      const clipboardData = new DataTransfer();
      clipboardData.setData('text/plain', address);
      const paste = new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true });
      document.body.dispatchEvent(paste);
    }"""
    with http.server.HTTPServer(("127.0.0.1", 0), Host) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{host.server_port}/house.png"
        fetching = make_hand(strict_server.url).open()
        fetching.page.evaluate(paste, address)
        fetching.page.get_by_text("140 × 70").first.wait_for()
        hand.open().page.evaluate(paste, address)  # this server fetches nothing, and says so
        hand.page.locator(".notice.error").wait_for()
        hand.forgiving = True  # the 403
        host.shutdown()


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
        before = page.locator(".frame img.picture").get_attribute("src")
        hand.key("]")
        page.locator(f".frame img.picture:not([src='{before}'])").wait_for()
        seen.add(hand.pixels())
    assert first in seen and len(seen) == 4


def test_shape_of_the_answer_is_drawn_and_exact(hand):
    page = hand.start().page
    page.locator("summary.setting").first.click()
    page.get_by_role("radio", name="16:9").check()
    page.get_by_text("The result will be 256 × 144 pixels.").wait_for()
    used = page.locator(".used").evaluate(
        "one => [one.style.left, one.style.top, one.style.width, one.style.height]"
    )
    assert used == ["0%", "21.875%", "100%", "56.25%"]
    hand.say("Make the shirt red")
    assert Image.open(io.BytesIO(hand.pixels())).size == (256, 144)


def test_options_of_sampling_reach_the_turn_and_come_back(hand):
    page = hand.start().page
    page.locator("details.fine > summary").click()
    for label, value in (("Negative prompt", "blurry"), ("Strength", "0.5"), ("Expand (outpaint)", "16:9")):
        page.get_by_label(label).fill(value)
        page.get_by_label(label).press("Tab")
    page.get_by_label("Sampler").select_option("ab2")
    page.get_by_label("Expand (outpaint)").fill("wide")
    page.get_by_label("Expand (outpaint)").press("Tab")
    page.locator("input[aria-invalid=true]").wait_for()
    page.keyboard.press("Escape")
    hand.say("Make the shirt red")
    settings = hand.session()["turns"][1]["settings"]
    given = {"negative_prompt": "blurry", "strength": 0.5, "expand": "16:9", "sampler": "ab2"}
    assert {name: settings[name] for name in given} == given
    page.locator("details.fine > summary").click()
    assert page.get_by_label("Expand (outpaint)").input_value() == ""  # once is enough
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    hand.key("i")
    facts = page.locator("dl.facts").text_content()
    assert "Negative promptblurry" in facts and "Expanded by16:9" in facts
    page.get_by_role("button", name="Use the prompt and settings again").click()
    page.locator("#prompt:focus").wait_for()
    page.locator("details.fine > summary").click()
    assert page.get_by_label("Expand (outpaint)").input_value() == "16:9"


def test_brush_limits_and_pen_is_seen(hand):
    hand.start()
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
    turns = hand.session()["turns"]
    assert turns[1]["mask"] and not turns[1]["markup"]
    markup = Image.open(io.BytesIO(httpx.get(hand.url + turns[2]["markup"]).content)).convert("RGBA")
    assert markup.size == (256, 256) and markup.getpixel((179, 179))[:3] == (255, 0, 0)
    assert markup.getpixel((10, 10))[3] == 0


def test_box_is_shown_to_the_model_when_the_words_speak_of_it(hand):
    page = hand.start().page
    for words in ("Make it green", "Remove the thing in the red box", "去掉红框里的物体"):
        page.get_by_role("treeitem", name="Original picture").click()
        hand.key("b")
        hand.drag((0.25, 0.25), (0.75, 0.75))
        hand.say(words)
    _, plain, *shown = hand.session()["turns"]
    assert plain["settings"]["box"] and not plain["markup"]
    for turn in shown:
        overlay = Image.open(io.BytesIO(httpx.get(hand.url + turn["markup"]).content)).convert("RGBA")
        x, y, w, h = turn["settings"]["box"]
        assert overlay.getbbox() == (x, y, x + w, y + h)
        assert overlay.getpixel((x + 1, y + h // 2)) == (255, 0, 0, 255)
        assert overlay.getpixel((x + w // 2, y + h // 2))[3] == 0


def test_drawings_survive_tool_changes_resizes_and_reloads(hand):
    page = hand.start().page
    hand.key("p")
    hand.drag((0.2, 0.2), (0.5, 0.3))
    hand.key("b")
    hand.drag((0.5, 0.5), (0.9, 0.9))
    page.set_viewport_size({"width": 900, "height": 700})
    page.locator("#prompt").fill("Half a sentence")
    hand.until("localStorage.getItem('kontext.drafts')?.includes('Half a sentence')")
    page.reload()
    page.locator("kontext-pointer canvas").wait_for()
    stored = hand.state("Object.values(state.pointing)[0]")
    assert len(stored["mask"]) == 1 and stored["box"][2] > 90
    assert page.locator("#prompt").input_value() == "Half a sentence"
    hand.key("b")
    page.get_by_role("button", name="Clear").click()
    hand.key("Escape")
    page.locator("kontext-pointer canvas").wait_for(state="detached")


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
    assert len(hand.session()["turns"][1]["references"]) == 2


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
    page.get_by_text("step 2 of 8").wait_for()
    page.locator(".frame img.preview").wait_for()
    page.locator("#prompt").press("Escape")
    page.locator(".doings").wait_for()
    assert hand.turns() == ["Original picture"]


def test_queue_position_is_told(hand, make_hand):
    other = make_hand(hand.url)
    other.start()
    other.say("Make the shirt slowly red", wait=False)
    other.page.get_by_text("step 2 of 8").wait_for()
    hand.start()
    hand.page.locator(".count input[value='2']").check()
    hand.say("Make the sign blue", wait=False)
    hand.page.get_by_text(re.compile("next in the queue|number 2 in the queue")).wait_for()
    hand.release()
    hand.page.get_by_role("treeitem", name="Variant 2 of 2: Make the sign blue").wait_for()
    hand.idle()


def test_presets_select_what_is_to_be_filled_in(hand):
    page = hand.start().page
    known = ["Change clothes", "Poster text", "Three views", "Background", "Style", "Add an object"]
    assert page.locator(".suggestions .chip").all_text_contents() == known
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


def test_colors_follow_the_system_until_chosen(make_hand, server):
    hand = make_hand(server.url, color_scheme="dark").open()
    color = "getComputedStyle(document.body).backgroundColor"
    dark = hand.page.evaluate(color)
    hand.page.get_by_role("button", name="Theme: system").click()
    light = hand.page.evaluate(color)
    assert dark != light
    hand.page.reload()
    hand.page.locator(".opening h1").wait_for()
    assert hand.page.evaluate(color) == light


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


def test_dropping_into_a_session_offers_both_uses(hand, drawing):
    page = hand.start().page
    session = page.evaluate("location.hash")
    hand.drop(drawing((90, 90)), "right.png", at=(0.9, 0.3))
    page.locator("details.reference").wait_for()
    assert page.evaluate("location.hash") == session
    hand.drop(drawing((90, 60)), "left.png", at=(0.1, 0.3))
    page.get_by_text("90 × 60").first.wait_for()
    assert page.evaluate("location.hash") != session
