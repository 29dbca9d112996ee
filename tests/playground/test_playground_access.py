"""For everybody: no violations that axe knows, the whole story by keyboard, names and live words."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.browser

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="module")
def axe() -> str:
    package = pytest.importorskip("axe_playwright_python.base", reason="pip install axe-playwright-python")
    return package.AXE_FILE_PATH.read_text(encoding="utf-8")


def violations(page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate(
        "axe.run(document, { resultTypes: ['violations'] }).then((result) => result.violations)"
    )
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes']][:4]}" for one in found
    ]


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(make_hand, server, axe, look):
    hand = make_hand(server.url, reduced_motion="reduce", **LOOKS[look]).open()
    page = hand.page
    found = {"start": violations(page, axe)}
    hand.picture(f"{look}-start")
    hand.start()
    hand.say("Make the shirt red")
    hand.key("v")
    page.get_by_role("treeitem", name="Variant 4 of 4").wait_for()
    hand.idle()
    found["turns"] = violations(page, axe)
    hand.picture(f"{look}-turns")
    hand.key("b")
    hand.drag((0.2, 0.2), (0.6, 0.6))
    found["box"] = violations(page, axe)
    hand.key("Escape", "c")
    found["compare"] = violations(page, axe)
    hand.picture(f"{look}-compare")
    hand.key("Escape")
    page.locator("summary.setting").first.click()
    found["sizes"] = violations(page, axe)
    page.keyboard.press("Escape")
    for key, name in (("i", "details"), ("?", "help"), ("h", "gallery")):
        hand.key(key)
        page.locator(f"dialog.{name}[open] h2").wait_for()
        found[name] = violations(page, axe)
        hand.picture(f"{look}-{name}")
        page.keyboard.press("Escape")
    assert not any(found.values()), "\n".join(
        f"{place}: {one}" for place, all_ in found.items() for one in all_
    )


def test_story_by_keyboard_alone(hand):
    """Not one click: start, edit, branch, variants, box, compare, undo, gallery."""
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
    page.locator("kx-pointer canvas:focus").wait_for()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    box = page.evaluate(
        "import('/core/store.js').then(({ store }) => Object.values(store.state.pointing)[0].box)"
    )
    assert box == [101, 93, 93, 93]
    assert "Box at 101, 93" in page.locator("[role=status].spoken").text_content()
    page.keyboard.press("/")
    page.keyboard.type("Turn the thing in the red box into a green ball")
    page.keyboard.press("Enter")
    page.locator(".now b", has_text="Turn the thing").wait_for()
    hand.idle()

    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.locator(".compare-bar").wait_for()
    page.keyboard.press("Escape")
    page.locator(".compare-bar").wait_for(state="detached")
    page.keyboard.press("Control+Z")
    assert hand.here() == "Original picture"
    page.keyboard.press("Control+Shift+Z")
    assert hand.here().startswith("Turn the thing")
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    page.get_by_role("heading", name="Gallery").wait_for()


def test_brush_paints_by_keyboard(hand):
    page = hand.start().page
    hand.key("p")
    page.locator("kx-pointer canvas:focus").wait_for()
    for key in ("ArrowLeft", " ", "ArrowRight", "ArrowRight", " ", "ArrowRight"):
        page.keyboard.press(key)
    strokes = page.evaluate(
        "import('/core/store.js').then(({ store }) => Object.values(store.state.pointing)[0].mask)"
    )
    assert len(strokes) == 1 and len(strokes[0]["points"]) == 3
    page.keyboard.press("Backspace")
    assert (
        page.evaluate(
            "import('/core/store.js').then(({ store }) => Object.keys(store.state.pointing).length)"
        )
        == 0
    )


def test_single_keys_can_be_switched_off(hand):
    page = hand.start().page
    hand.key("?")
    page.get_by_label("Single-letter keys").uncheck()
    page.keyboard.press("Escape")
    hand.key("h")
    assert page.locator("dialog[open]").count() == 0


def test_progress_is_spoken_politely(hand):
    page = hand.start().page
    spoken = page.locator("[role=status].spoken")
    assert spoken.get_attribute("aria-live") == "polite"
    hand.say("Make the shirt slowly red", wait=False)
    page.get_by_text("Started, 8 steps.").wait_for(state="attached")
    hand.idle()
    assert re.match(r"Done: Make the shirt slowly red\. [\d.]+ m?s [\d.]+ % changed", spoken.text_content())


def test_every_control_has_a_name_and_its_key(hand):
    hand.start().say("Make the shirt red")
    nameless = hand.page.locator("button, summary, input, textarea, select").evaluate_all(
        """all => all.filter((one) => one.checkVisibility())
          .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    for name, key in (
        ("Undo: back to the turn before", "u"),
        ("Compare", "c"),
        ("Download", "d"),
        ("Gallery", "h"),
    ):
        assert (
            hand.page.get_by_role("button", name=name, exact=True).get_attribute("aria-keyshortcuts") == key
        )


def test_reduced_motion_stops_the_flicker(make_hand, server):
    hand = make_hand(server.url, reduced_motion="reduce").start()
    hand.say("Make the shirt red")
    hand.key("c")
    hand.page.get_by_role("button", name="Flicker", exact=True).click()
    hand.page.get_by_role("button", name="Play").wait_for()
