"""Pointing, what leaves the page, and what a phone shows."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser


def mask_of(hand, turn) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(httpx.get(hand.url + turn["mask"]).content)).convert("L"))


def share_white(mask: np.ndarray, left: float, top: float, right: float, bottom: float) -> float:
    height, width = mask.shape
    part = mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
    return float((part > 127).mean())


def test_typing_goes_to_the_prompt_when_a_picture_opens(hand, drawing, tmp_path):
    page = hand.open().page
    hand.drop(drawing(), "house.png")
    page.locator(".doings").wait_for()
    page.locator("#prompt:focus").wait_for()
    page.keyboard.type("Make the hair blue")
    assert page.locator("#prompt").input_value() == "Make the hair blue"
    hand.key("n")
    page.locator(".opening h1").wait_for()
    file = tmp_path / "other.png"
    file.write_bytes(drawing((120, 90)))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a picture").click()
    chooser.value.set_files(file)
    page.locator(".doings").wait_for()
    page.locator("#prompt:focus").wait_for()
    page.keyboard.type("hank")
    assert page.locator("#prompt").input_value().endswith("hank")
    assert page.locator("dialog[open]").count() == 0


def test_box_from_before_and_brush_are_united(hand):
    page = hand.start().page
    hand.key("b")
    hand.drag((0.1, 0.1), (0.3, 0.3))
    hand.say("Make it green")
    hand.key("u")  # the box comes back with its turn
    hand.key("p")
    hand.drag((0.6, 0.8), (0.9, 0.8))
    hand.say("Make it blue")
    assert page.locator(".notice.error").count() == 0
    first, second = hand.session()["turns"][1:]
    assert first["settings"]["box"] and not first["mask"]
    mask = mask_of(hand, second)
    assert share_white(mask, 0.12, 0.12, 0.28, 0.28) == 1, "the box"
    assert share_white(mask, 0.62, 0.79, 0.88, 0.81) == 1, "the stroke"
    assert share_white(mask, 0.4, 0.1, 0.9, 0.6) == 0, "the rest"


def test_eraser_takes_back_and_an_erased_drawing_is_refused_before_it_is_sent(hand):
    page = hand.start().page
    hand.key("p")
    hand.drag((0.2, 0.5), (0.8, 0.5))
    hand.key("e")
    hand.drag((0.5, 0.5), (0.8, 0.5))
    hand.say("Make it green")
    mask = mask_of(hand, hand.session()["turns"][1])
    assert share_white(mask, 0.2, 0.48, 0.38, 0.52) == 1 and share_white(mask, 0.52, 0.4, 1, 0.6) == 0
    hand.key("u", "e")
    hand.drag((0.0, 0.5), (1.0, 0.5))
    page.locator("#prompt").fill("Make it red")
    page.locator("#prompt").press("Enter")
    hand.told("Everything drawn was erased")
    assert len(hand.session()["turns"]) == 2 and page.locator("#prompt").input_value() == "Make it red"


def test_a_hint_outside_of_the_box_is_refused_before_it_is_sent(hand):
    page = hand.start().page
    hand.key("b")
    hand.drag((0.1, 0.1), (0.3, 0.3))
    hand.key("k")
    hand.drag((0.7, 0.7), (0.9, 0.9))
    page.locator("#prompt").fill("Make it red")
    page.locator("#prompt").press("Enter")
    hand.told("The red hint lies outside")
    assert len(hand.session()["turns"]) == 1


def test_a_tool_does_not_take_the_focus_from_a_prompt_that_is_being_typed(hand):
    page = hand.start().page
    hand.key("m")  # the focus is on the page, as after any key
    choose = "import('/core/drawing.js').then(({ setTool }) => setTool('pen'))"
    page.evaluate(f"{choose}.then(() => document.querySelector('#prompt').focus())")
    hand.settle()
    page.keyboard.type("Make")
    assert page.locator("#prompt").input_value() == "Make"
    hand.key("b")
    assert page.locator("kontext-pointer canvas:focus").count() == 1


def test_strokes_are_undone_one_by_one_and_have_the_chosen_width(hand):
    page = hand.start().page
    count = "(Object.values(state.pointing)[0]?.mask ?? []).length"
    hand.key("p")
    hand.drag((0.2, 0.2), (0.5, 0.2))
    for _ in range(4):
        hand.key(".")
    hand.drag((0.2, 0.6), (0.5, 0.6))
    widths = hand.state("Object.values(state.pointing)[0].mask.map((one) => one.width)")
    assert widths[1] > 2 * widths[0]
    page.get_by_role("slider", name="Size").fill("0.02")
    hand.drag((0.2, 0.8), (0.5, 0.8))
    assert hand.state("Object.values(state.pointing)[0].mask.at(-1).width") == 5
    hand.key("Control+z")
    assert hand.state(count) == 2 and hand.here() == "Original picture"
    page.get_by_role("group", name="Drawing").get_by_role("button", name="Undo").click()
    assert hand.state(count) == 1
    page.get_by_role("group", name="Drawing").get_by_role("button", name="Redo").click()
    hand.key("Control+Shift+z")
    assert hand.state(count) == 3
    page.get_by_role("group", name="Drawing").get_by_role("button", name="Clear").click()
    assert hand.state(count) == 0
    hand.key("Control+z")
    assert hand.state(count) == 3


def test_a_drawing_does_not_dim_the_picture_with_the_hand(hand):
    hand.start()
    hand.key("b")
    hand.drag((0.3, 0.3), (0.6, 0.6))
    corner = """(() => { const canvas = document.querySelector('kontext-pointer canvas');
      return canvas.getContext('2d').getImageData(4, 4, 1, 1).data[3]; })()"""
    assert hand.page.evaluate(corner) > 0
    hand.key("m")
    hand.until(f"{corner} === 0")


def test_the_call_is_shown_and_runs(hand, tmp_path):
    page = hand.start().page
    page.locator("#prompt").fill('Make the kid\'s shirt "red" $HOME 红')
    hand.key("s")
    code = page.locator("pre.program")
    command = code.text_content()
    assert command.startswith("curl ")
    if shutil.which("curl") and shutil.which("sh"):
        done = subprocess.run(["sh", "-c", command.encode()], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert b'"jobs"' in done.stdout
    page.get_by_role("button", name="Python", exact=True).click()
    program = code.text_content()
    ast.parse(program)
    done = subprocess.run(
        [sys.executable, "-"], input=program.encode(), cwd=tmp_path, timeout=120, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = tmp_path.glob("*.png")
    assert Image.open(made).size == (256, 256)
    prompts = {turn["prompt"] for turn in hand.session()["turns"][1:]}
    assert prompts == {'Make the kid\'s shirt "red" $HOME 红'}
    page.keyboard.press("Escape")


def test_the_call_of_an_edit_gives_the_same_picture(hand, tmp_path):
    page = hand.start().page
    hand.say("Make the shirt red")
    turn = hand.session()["turns"][1]
    hand.key("s")
    page.get_by_role("button", name="Python", exact=True).click()
    program = page.locator("pre.program").text_content()
    subprocess.run([sys.executable, "-"], input=program, cwd=tmp_path, text=True, timeout=120, check=True)
    (made,) = tmp_path.glob("*.png")
    first = Image.open(io.BytesIO(httpx.get(hand.url + turn["picture"]).content)).convert("RGB")
    assert np.array_equal(np.asarray(Image.open(made).convert("RGB")), np.asarray(first))
    page.keyboard.press("Escape")


def test_the_picture_goes_to_the_clipboard(make_hand, server):
    hand = make_hand(server.url, permissions=["clipboard-read", "clipboard-write"]).start()
    hand.page.get_by_role("button", name="Copy the picture").click()
    hand.told("The picture is on the clipboard")
    size = hand.page.evaluate("""async () => {
      const [item] = await navigator.clipboard.read();
      const bitmap = await createImageBitmap(await item.getType('image/png'));
      return [bitmap.width, bitmap.height]; }""")
    assert size == [256, 256]


def test_the_box_becomes_a_picture_of_its_own(hand):
    page = hand.start().page
    before = hand.session()["id"]
    source = Image.open(io.BytesIO(hand.pixels())).convert("RGB")
    hand.key("b")
    hand.drag((0.25, 0.25), (0.75, 0.5))
    box = hand.state("Object.values(state.pointing)[0].box")
    page.get_by_role("button", name="Crop to the box").click()
    hand.until(f"location.hash.slice(1) !== '{before}'")
    page.locator(f".facts >> text={box[2]} × {box[3]}").wait_for()
    x, y, width, height = box
    for _ in range(200):  # the words are there before the picture is
        cropped = Image.open(io.BytesIO(hand.pixels())).convert("RGB")
        if cropped.size == (width, height):
            break
        page.wait_for_timeout(50)
    assert np.array_equal(np.asarray(cropped), np.asarray(source.crop((x, y, x + width, y + height))))


def test_the_shared_page_stands_alone_and_is_only_text_and_pictures(hand, make_hand, tmp_path):
    page = hand.start().page
    words = "Make the <b>shirt</b> red<script>document.title='owned'</script>"
    hand.say(words)
    hand.key("i")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Share as a single page").click()
    file = tmp_path / "shared.html"
    waiting.value.save_as(file)
    page.keyboard.press("Escape")
    other = make_hand(hand.url)
    asked = []
    other.page.on("request", lambda request: asked.append(request.url))
    other.page.goto(file.as_uri())
    assert other.page.locator("figcaption").all_text_contents() == ["Original picture", words]
    assert other.page.locator("img").evaluate_all("all => all.map((one) => one.naturalWidth)") == [256, 256]
    assert other.page.title() != "owned" and other.page.locator("script").count() == 0
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_much_change_offers_a_box(hand):
    page = hand.start().page
    hand.key("b")
    hand.drag((0.0, 0.0), (0.9, 0.9))
    hand.say("Make it green")
    assert page.get_by_role("button", name="Too much?").count() == 0, "it was limited already"
    hand.key("u")
    page.locator(".now b", has_text="Original picture").wait_for()  # where the box is shown again
    hand.key("b")
    page.get_by_role("button", name="Clear").click()
    hand.key("p")
    hand.drag((0.2, 0.2), (0.3, 0.3))
    hand.say("Make it blue")
    assert "untouched" in page.locator(".facts").inner_text()


PHONES = {"portrait": (390, 844), "landscape": (844, 390)}


@pytest.mark.parametrize("way", PHONES)
def test_phone_both_ways_nothing_lies_over_another(make_hand, server, way):
    width, height = PHONES[way]
    hand = make_hand(server.url, viewport={"width": width, "height": height}, has_touch=True, is_mobile=True)
    hand.start().say("Make the shirt red")
    page = hand.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = {}
    for place in (".top", ".frame", ".tools", ".caption", ".composer", ".turns"):
        box = page.locator(place).first.bounding_box()
        boxes[place] = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
        assert box["x"] >= -1 and box["y"] >= -1, place
        assert boxes[place][2] <= width + 1 and boxes[place][3] <= height + 1, place
    names = list(boxes)
    for at, name in enumerate(names):
        for other in names[at + 1 :]:
            a, b = boxes[name], boxes[other]
            apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 1 or b[3] <= a[1] + 1
            assert apart, f"{name} {a} lies over {other} {b}"
    frame = boxes[".frame"]
    assert min(frame[2] - frame[0], frame[3] - frame[1]) > 200
    for name in ("Apply", "Add a reference picture"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= height, name
    hand.picture(f"phone-{way}")


def test_no_label_is_cut(hand):
    """The mark of the headline leaves the line above whole."""
    page = hand.open().page
    first = page.locator(".opening h1 > span").first.bounding_box()
    mark = page.locator(".opening h1 em").bounding_box()
    assert mark["y"] >= first["y"] + first["height"] - 1
    assert re.search("Theme: system", page.locator(".top-tools").inner_text())
