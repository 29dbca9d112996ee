"""Accessibility: no axe violations, the whole story by keyboard, names and live regions."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.browser

SIDEWAYS = {"viewport": {"width": 844, "height": 390}, "has_touch": True, "is_mobile": True}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def axe() -> str:
    package = pytest.importorskip("axe_playwright_python.base", reason="pip install axe-playwright-python")
    return package.AXE_FILE_PATH.read_text(encoding="utf-8")


RUN_AXE = "axe.run(document, { resultTypes: ['violations'] }).then((result) => result.violations)"


@pytest.mark.parametrize(
    "size, all_colors",
    [({}, ("light", "dark")), (PHONE, ("light",)), (SIDEWAYS, ("light",))],
    ids=["desk", "phone", "sideways"],
)
def test_axe_finds_nothing(make_hand, server, axe, size, all_colors):
    """In every state of the page."""
    hand = make_hand(server.url, reduced_motion="reduce", **size).open()
    page = hand.page
    page.evaluate(axe)
    found = []

    def check(place: str) -> None:
        for colors in all_colors:
            page.emulate_media(color_scheme=colors)
            hand.until("!document.getAnimations().length")
            for violation in page.evaluate(RUN_AXE):
                where = [node["html"][:160] for node in violation["nodes"]][:4]
                found.append(f"{place}, {colors}: {violation['id']}: {violation['help']}: {where}")

    check("start")
    page.locator("#prompt").fill("Make the hair blue")
    page.locator("#prompt").press("Enter")
    page.get_by_text("no picture is open").wait_for()
    check("asked for a picture")
    hand.start()
    hand.say("Make the shirt slowly red", wait=False)
    page.get_by_text("step 2 of 8").wait_for()
    check("running")
    hand.key("q")
    page.locator("dialog.queue[open] h2").wait_for()
    check("queue")
    page.keyboard.press("Escape")
    hand.release()
    hand.idle()
    hand.key("v")
    page.get_by_role("treeitem", name="Variant 4 of 4").wait_for()
    hand.idle()
    check("turns")
    hand.key("b")
    hand.drag((0.2, 0.2), (0.6, 0.6))
    check("box")
    hand.key("p")
    hand.drag((0.2, 0.7), (0.6, 0.7))
    check("brush")
    hand.key("e")
    hand.drag((0.0, 0.4), (1.0, 0.4))
    check("eraser")
    hand.key("Escape", "c")
    check("compare")
    hand.key("Escape")
    page.locator("summary.setting").first.click()
    check("sizes")
    page.keyboard.press("Escape")
    for key, name in (("i", "details"), ("?", "help"), ("h", "gallery"), ("s", "code")):
        hand.key(key)
        page.locator(f"dialog.{name}[open] h2").wait_for()
        check(name)
        page.keyboard.press("Escape")
    assert not found, "\n".join(found)


def file_chooser_by_key(page):
    """Press the key again where a page that is still settling has missed it."""
    chosen = []
    page.once("filechooser", lambda chooser: chosen.append(chooser))
    for _ in range(20):
        page.keyboard.press("Escape")
        page.keyboard.press("o")
        page.wait_for_timeout(1500)
        if chosen:
            return chosen[0]
    raise AssertionError(f"no file chooser; focus is on {page.evaluate('document.activeElement.outerHTML')}")


def test_story_by_keyboard_alone(hand, tmp_path):
    """Not one click: start, edits, variants, branch, box, compare, undo, download, restore, gallery."""
    page = hand.open().page
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.includes('Start with: A kid with a sign')"):
            break
    page.keyboard.press("Enter")
    page.locator(".doings").wait_for()
    assert page.evaluate("document.activeElement.id") == "prompt"

    page.keyboard.press("Control+A")
    page.keyboard.type("Make the shirt red")
    page.keyboard.press("Enter")
    page.locator(".now b", has_text="Make the shirt red").wait_for()
    hand.idle()

    for words in ("Make the sign blue", "Add a yellow sun"):
        page.keyboard.type(words)
        page.keyboard.press("Enter")
        page.locator(".now b", has_text=words).wait_for()
        hand.idle()

    page.keyboard.press("Escape")  # out of the prompt; from here on single keys
    page.keyboard.press("v")
    page.get_by_role("treeitem", name="Variant 4 of 4").wait_for()
    hand.idle()
    page.keyboard.press("]")

    page.keyboard.press("t")
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.ariaLabel") == "Original picture"
    page.keyboard.press("Enter")
    assert hand.here() == "Original picture"

    page.keyboard.press("b")
    page.locator("kontext-pointer canvas:focus").wait_for()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert hand.state("Object.values(state.pointing)[0].box") == [101, 93, 93, 93]
    assert "Box at 101, 93" in page.locator("[role=status].spoken").text_content()
    page.keyboard.press("/")
    page.keyboard.type("Turn the thing in the red box into a green ball")
    page.keyboard.press("Enter")
    page.locator(".now b", has_text="Turn the thing").wait_for()
    hand.idle()

    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.locator("kontext-compare input:focus").wait_for()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    divider = page.get_by_role("slider", name="Divider between A and B")
    assert divider.get_attribute("aria-valuetext") == "47 % of B"
    page.keyboard.press("Escape")
    page.locator(".compare-bar").wait_for(state="detached")
    page.keyboard.press("Control+Z")
    assert hand.here() == "Original picture"
    page.keyboard.press("Control+Shift+Z")
    assert hand.here().startswith("Turn the thing")

    with page.expect_download() as waiting:
        page.keyboard.press("d")
    waiting.value.save_as(tmp_path / "mine.png")
    page.reload()
    page.locator(".doings").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.locator(".opening h1").wait_for()
    file_chooser_by_key(page).set_files(tmp_path / "mine.png")
    hand.told("Restored with 2 turns.")
    page.locator(".doings").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.get_by_role("heading", name="Shortcuts").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    page.get_by_role("heading", name="Gallery").wait_for()


def test_brush_paints_by_keyboard(hand):
    page = hand.start().page
    hand.key("p")
    page.locator("kontext-pointer canvas:focus").wait_for()
    for key in ("ArrowLeft", " ", "ArrowRight", "ArrowRight", " ", "ArrowRight"):
        page.keyboard.press(key)
    strokes = hand.state("Object.values(state.pointing)[0].mask")
    assert len(strokes) == 1 and len(strokes[0]["points"]) == 3
    page.keyboard.press("Backspace")
    assert hand.state("Object.keys(state.pointing).length") == 0


def test_keys_are_listed_and_single_ones_can_be_switched_off(hand):
    page = hand.start().page
    hand.key("?")
    listed = page.locator(".keys kbd").all_text_contents()
    known = page.evaluate("import('/core/keys.js').then(({ KEYS }) => KEYS.map((one) => one.key))")
    assert len(listed) == len(known) == len(set(known)) and {"U", "Space", "Esc", "?"} <= set(listed)
    assert all(
        words and not words.startswith("key.") for words in page.locator(".keys dd").all_text_contents()
    )
    page.get_by_label("Single-letter shortcuts").uncheck()
    page.keyboard.press("Escape")
    hand.key("h")
    assert page.locator("dialog[open]").count() == 0


def test_progress_is_spoken_politely(hand):
    page = hand.start().page
    status = page.locator("[role=status].spoken")
    assert status.get_attribute("aria-live") == "polite"
    hand.say("Make the shirt slowly red", wait=False)
    page.get_by_text("Started, 8 steps.").wait_for(state="attached")
    hand.release()
    hand.idle()
    page.get_by_text("Done: Make the shirt").wait_for(state="attached")
    assert re.match(r"Done: Make the shirt slowly red\. [\d.]+ m?s [\d.]+ % changed", status.text_content())


def test_every_control_has_a_name_and_its_key(hand):
    hand.start().say("Make the shirt red")
    nameless = hand.page.locator("button, summary, input, textarea, select").evaluate_all(
        """all => all.filter((one) => one.checkVisibility())
          .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    for name, key in (
        ("Undo: back to the previous turn", "u"),
        ("Compare", "c"),
        ("Download", "d"),
        ("Gallery", "h"),
    ):
        assert (
            hand.page.get_by_role("button", name=name, exact=True).get_attribute("aria-keyshortcuts") == key
        )


def test_reduced_motion_stops_what_moves(make_hand, server):
    hand = make_hand(server.url, reduced_motion="reduce").start()
    hand.say("Make the shirt red")
    hand.page.locator("canvas.news").wait_for(state="detached")
    hand.key("c")
    hand.page.get_by_role("button", name="Flicker", exact=True).click()
    hand.page.get_by_role("button", name="Play").wait_for()
    moving = """[...document.querySelectorAll('*')].map((one) => getComputedStyle(one))
      .flatMap((look) => [look.animationDuration, look.transitionDuration])
      .filter((one) => parseFloat(one) > 0.01)"""
    assert hand.page.evaluate(moving) == []


def test_in_a_low_window_the_tools_cover_nothing(hand):
    page = hand.start().page
    for width, height in ((1280, 570), (1280, 600), (1280, 720), (900, 640), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        tools, caption = (page.locator(name).bounding_box() for name in (".tools", ".caption"))
        assert tools["y"] + tools["height"] <= caption["y"] + 2, (width, height)
        page.locator("details.fine summary").click()
        panel = page.locator("details.fine .panel").bounding_box()
        assert panel["y"] >= 0 and panel["y"] + panel["height"] <= height, (width, height)
        page.keyboard.press("Escape")
