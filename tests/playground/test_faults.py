"""What goes wrong is said in words with a next step, and nothing is lost; what is hostile stays text."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='owned'\">'\"--><script>alert(1)</script>\u202egnp"


def test_server_gone_and_back(make_hand, start_server, tmp_path):
    running = start_server(tmp_path)
    hand = make_hand(running.url).start()
    page = hand.page
    hand.say("Make the shirt red")
    running.stop()
    hand.told("The server is not responding")
    hand.told("kontext serve")
    hand.picture("fault-server-gone")
    page.locator("#prompt").fill("Make the sign blue")
    with page.expect_event("requestfailed"):
        page.locator("#prompt").press("Enter")
    assert page.locator("#prompt").input_value() == "Make the sign blue"
    with (
        ThreadPoolExecutor() as threads
    ):  # the page may be quicker to see it than this test, and says so for 10 s
        starting = threads.submit(start_server, tmp_path, port=running.settings.port)
        hand.told("The server is back. Nothing was lost.")
        again = starting.result()
    try:
        assert hand.turns() == ["Original picture", "Make the shirt red"]
        page.locator("#prompt").press("Enter")
        page.locator(".now b", has_text="Make the sign blue").wait_for()
        hand.idle()
    finally:
        again.stop()
    hand.forgiving = True  # refused connections are on the console


def test_full_queue_keeps_the_words(make_hand, strict_server):
    hand = make_hand(strict_server.url).start()
    page = hand.page
    page.locator(".count input[value='2']").check()
    hand.say("Make the shirt slowly red", wait=False)
    page.get_by_role("treeitem", name="Variant 2 of 2").wait_for()
    page.get_by_role("treeitem", name="Original picture").click()
    page.locator("#prompt").fill("Make the sign blue")
    page.locator("#prompt").press("Enter")
    hand.told("The queue is full")
    page.locator(".notice", has_text=re.compile(r"Wait \d+ s")).wait_for()
    assert page.locator("#prompt").input_value() == "Make the sign blue"
    hand.picture("fault-queue-full")
    hand.release()
    page.locator(".thumb.busy").first.wait_for(state="detached")
    page.locator("progress").first.wait_for(state="detached")
    page.locator(".notice").wait_for(state="detached")  # there is room again
    page.locator("#prompt").press("Enter")
    page.locator(".now b", has_text="Make the sign blue").wait_for()
    hand.idle()
    hand.forgiving = True  # the 429


def test_news_flow_for_longer_than_a_body_may_take(make_hand, strict_server):
    hand = make_hand(strict_server.url).start()
    hand.page.wait_for_timeout(1000 * strict_server.settings.body_seconds + 500)
    hand.say("Make the shirt red")  # a broken stream would be on the console, and fail this


def test_refused_words_come_back_to_be_changed(make_hand, strict_server):
    hand = make_hand(strict_server.url).start()
    page = hand.page
    hand.say("Add a gorgonzola", wait=False)
    hand.told("The edit was rejected")
    hand.told("The prompt contains a word that this server does not accept")
    hand.told("Rephrase the prompt")
    hand.picture("fault-refused")
    page.get_by_role("button", name="Edit the prompt").click()
    assert page.locator("#prompt").input_value() == "Add a gorgonzola"
    hand.say("Make the shirt red")  # continues from where the rejected edit started
    assert hand.here() == "Make the shirt red" and "Original picture" in hand.turns()[0]


def test_failed_edit_can_be_tried_again(hand):
    page = hand.start().page
    hand.say("Make the kid fall over", wait=False)
    hand.told("The edit failed")
    hand.told("The painter fell over, as it was told.")
    page.get_by_role("treeitem", name="Original picture", selected=True).wait_for()
    assert len(hand.session()["turns"]) == 1, "the failed edit is no turn"
    page.get_by_role("button", name="Try again").click()
    hand.told("The edit failed")


@pytest.mark.parametrize("first", ["response", "event"])
def test_a_failed_edit_is_left_whichever_of_response_and_event_arrives_first(hand, first):
    page, held = hand.start().page, []
    hand.say("Make the sign blue")
    if first == "event":
        page.route("**/edits", lambda route: held.append((route, route.fetch())))
    hand.say(f"Make the kid fall over{' slowly' if first == 'response' else ''}", wait=False)
    if first == "response":
        page.locator(".facts", has_text="Step 2 of 8").wait_for()
        hand.release()
    hand.told("The edit failed")
    for route, response in held:
        route.fulfill(response=response)
        page.unroute("**/edits")
    shown = page.get_by_role("treeitem", name="Make the sign blue", selected=True)
    shown.wait_for()
    failed = page.get_by_role("treeitem", name="Make the kid fall over")
    failed.click()  # a look at it ...
    page.locator(".caption").get_by_role("button", name="Edit the prompt").click()
    shown.wait_for()  # ... and back to where it started
    assert page.locator("#prompt").input_value().startswith("Make the kid fall over")
    failed.click()
    page.locator(".caption").get_by_role("button", name="Dismiss").click()
    failed.wait_for(state="detached")


def test_too_large_a_picture_is_made_smaller_on_request(make_hand, strict_server, drawing):
    hand = make_hand(strict_server.url).open()
    page = hand.page
    hand.drop(drawing((800, 600)), "large.png")
    hand.told("This picture is too large")
    hand.told("0.5 megapixels")
    page.get_by_role("button", name="Scale it down and open it").click()
    page.locator(".doings").wait_for()
    width, height = map(int, re.findall(r"\d+", page.locator(".facts").text_content())[-2:])
    assert width * height <= 300_000 and abs(width / height - 4 / 3) < 0.02


@pytest.mark.parametrize("name, kind", [("notes.txt", "text/plain"), ("broken.png", "image/png")])
def test_what_is_no_picture_is_said_so(hand, name, kind):
    page = hand.open().page
    hand.drop(b"no picture at all", name, kind)
    hand.told("notes.txt is not a picture" if kind == "text/plain" else "This picture cannot be read")
    page.locator(".opening h1").wait_for()
    assert page.get_by_role("button", name="Try again").count() == 0, "the same file stays as it is"
    hand.forgiving = True  # the 400


def test_two_tabs_on_one_session_see_each_other(hand, make_hand):
    hand.start()
    other = make_hand(hand.url)
    other.page.goto(hand.url + "/" + hand.page.evaluate("location.hash"))
    other.page.locator(".doings").wait_for()
    hand.say("Make the shirt red")
    other.page.get_by_role("treeitem", name="Make the shirt red").wait_for()
    assert other.here() == "Original picture", "what is looked at stays"
    other.say("Make the sign blue")
    hand.page.get_by_role("treeitem", name="Make the sign blue").wait_for()
    assert hand.here() == "Make the shirt red"
    assert hand.turns() == other.turns()
    httpx.delete(f"{hand.url}/api/sessions/{hand.session()['id']}")
    for client in (hand, other):
        client.told("This session was deleted")
        client.page.locator(".opening h1").wait_for()


def test_lost_session_is_said_so(hand):
    hand.open().page.goto(hand.url + "/#0123456789abcdef")
    hand.told("This no longer exists")
    hand.page.locator(".opening h1").wait_for()
    hand.forgiving = True  # the 404


def test_hostile_names_and_prompts_are_text(hand, drawing):
    page = hand.open().page
    hand.drop(drawing(), f"{HOSTILE}.png")
    page.locator(".doings").wait_for()
    prompt = HOSTILE.replace("\u202e", "")  # a prompt that would be shown in another order is refused
    hand.say(prompt)
    assert hand.turns()[1] == prompt
    hand.key("i")
    page.locator("dialog[open] dd", has_text="<script>").first.wait_for()
    page.keyboard.press("Escape")
    hand.key("h")
    page.locator(".card").first.wait_for()
    assert page.title() != "owned"
    assert page.locator("img[src=x]").count() == 0


def test_policy_is_strict_and_no_other_host_is_asked(make_hand, server, drawing):
    hand, asked = make_hand(server.url), []
    hand.page.on("request", lambda request: asked.append(request.url))
    headers = httpx.get(hand.url).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "style-src 'self'" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    hand.start().say("Make the shirt red")
    hand.key("c")
    hand.drop(drawing((90, 90)), "beside.png", at=(0.9, 0.2))
    hand.page.locator("details.reference").wait_for()
    foreign = [url for url in asked if not url.startswith((hand.url, "data:", "blob:"))]
    assert foreign == []
    injected = """() => { const one = document.createElement('script');
      one.textContent = "document.title = 'owned'"; document.head.append(one); return document.title; }"""
    assert hand.page.evaluate(injected) != "owned"
    hand.forgiving = True  # the refusal of that script


def test_where_keys_are_needed_the_page_asks_for_one(make_hand, start_server, tmp_path):
    from kontext.server.auth.keys import Keys
    from kontext.session import Store

    running = start_server(tmp_path, require_keys=True)
    try:
        with Store(tmp_path) as store:
            _, key = Keys(store).create("a person")
        hand = make_hand(running.url)
        hand.forgiving = True  # the 401 before the key
        page = hand.page
        page.goto(running.url)
        page.get_by_label("Key", exact=True).fill("wrong")
        page.get_by_role("button", name="Log in").click()
        dialog = page.locator("dialog.login[open]")
        dialog.get_by_role("alert").get_by_text("This key is invalid").wait_for()
        assert page.locator(".notice").count() == 0
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Start with: A kid with a sign").click()
        page.locator(".doings").wait_for()
        page.reload()
        page.locator(".doings").wait_for()
        assert page.locator("dialog[open]").count() == 0
    finally:
        running.stop()


def test_the_picture_before_stays_until_the_new_one_is_decoded(hand):
    page = hand.start().page
    before = hand.pixels()
    held = []
    page.route("**/picture*", lambda route: held.append(route))
    hand.say("Make the shirt red", wait=False)
    hand.until("document.querySelector('.frame[aria-busy=true]:not(.working)') !== null")
    assert hand.pixels() == before
    page.unroute("**/picture*")  # lets those go on that were held
    hand.idle()
    assert held and hand.pixels() != before
