"""What a page shows of its server: the queue, its errors, its models, the login, its place below a path."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser


def test_an_edit_is_shown_before_the_server_has_answered(hand):
    page = hand.start().page
    held = []
    page.route("**/edits", lambda route: held.append(route))
    page.locator("#prompt").fill("Make the shirt red")
    page.locator("#prompt").press("Enter")
    page.get_by_role("treeitem", name="Sending: Make the shirt red").wait_for()
    page.get_by_role("img", name="Sending").wait_for()
    assert page.locator("#prompt").input_value() == "Make the shirt red", "kept until it is accepted"
    held[0].continue_()
    page.unroute("**/edits")
    page.locator(".now b", has_text="Make the shirt red").wait_for()
    hand.idle()
    assert hand.turns() == ["Original picture", "Make the shirt red"]
    assert page.locator("#prompt").input_value() == ""


def test_an_edit_that_does_not_reach_the_server_goes_again(hand):
    page = hand.start().page
    page.route("**/edits", lambda route: route.abort())
    page.locator("#prompt").fill("Make the shirt red")
    page.locator("#prompt").press("Enter")
    hand.told("The server is not responding")
    assert (
        hand.turns() == ["Original picture"] and page.locator("#prompt").input_value() == "Make the shirt red"
    )
    page.unroute("**/edits")
    page.locator(".notice").get_by_role("button", name="Try again").click()
    page.locator(".now b", has_text="Make the shirt red").wait_for()
    hand.idle()
    assert page.locator(".notice.error").count() == 0, "an error goes with its cause"
    hand.forgiving = True  # the aborted request


def test_errors_of_a_session_stay_behind_when_it_is_left(hand):
    page = hand.start().page
    hand.say("Make the kid fall over", wait=False)
    hand.told("The edit failed")
    hand.key("n")
    page.locator(".opening h1").wait_for()
    assert page.locator(".notice").count() == 0


def test_words_that_ask_for_a_change_ask_for_a_picture_first(hand):
    page = hand.open().page
    page.locator("#prompt").fill("Make the hair blue")
    page.locator("#prompt").press("Enter")
    page.get_by_text("no picture is open").wait_for()
    assert page.locator(".opening h1").count() == 1
    page.get_by_role("button", name="Create a new picture anyway").click()
    hand.page.locator(".now b", has_text="Make the hair blue").wait_for()
    hand.idle()


def test_queue_lists_what_waits_and_stops_it_all(hand):
    page = hand.start().page
    page.locator(".count input[value='3']").check()
    hand.say("Make the shirt slowly red", wait=False)
    page.get_by_role("treeitem", name="Variant 3 of 3").wait_for()
    page.get_by_role("button", name="Queue: 3 active edits").click()
    assert page.locator(".jobs li").count() == 3
    hand.picture("queue")
    page.get_by_role("button", name="Stop all 3").click()
    page.get_by_text("The queue is empty.").wait_for()
    page.keyboard.press("Escape")
    hand.until("!document.querySelector('.busy-count')")
    assert hand.turns() == ["Original picture"]


def test_the_model_says_what_is_offered(make_hand, start_server, tmp_path):
    running = start_server(tmp_path, model="skilled")
    hand = make_hand(running.url)
    try:
        page = hand.open().page
        assert page.locator(".example .ask").all_text_contents() == ["Paint it purple"]
        assert page.locator(".suggestions .chip").all_text_contents() == ["Ball"]
        page.locator(".example").click()
        page.locator(".doings").wait_for()
        assert page.locator("#prompt").input_value() == "Paint it purple"
        page.locator("#prompt").fill("")
        assert page.locator(".suggestions .chip").all_text_contents() == ["Color"]
        prompt, counter = page.locator("#prompt"), page.locator("#tokens")
        prompt.fill("Paint it")  # far from the limit
        page.wait_for_timeout(600)
        assert counter.count() == 0
        prompt.fill("Paint it purple and green")
        counter.get_by_text("26 / 40").wait_for()
        prompt.fill("Paint it purple and green and yellow too")
        page.locator("#tokens.over", has_text="41 / 40").wait_for()
        page.locator(".above.over", has_text="It has 41 tokens, and this model reads at most 40").wait_for()
        prompt.press("Enter")
        hand.told("The prompt is too long")
        assert len(hand.session()["turns"]) == 1 and not hand.session()["jobs"]
        assert prompt.input_value().endswith("too"), "the words stay"
        prompt.fill("Paint it purple and green and yellow")
        counter.get_by_text("37 / 40").wait_for()
        hand.say("Paint it purple and green and yellow")
        hand.page.locator(".notice").wait_for(state="detached")  # sent at last
        prompt.fill("")
        page.get_by_role("button", name="中文").click()
        page.get_by_role("button", name="颜色").click()
        assert page.locator("#prompt").input_value() == "变成紫色"
    finally:
        hand.forgiving = True  # the server goes under the open page
        running.stop()


def test_where_there_are_several_models_one_is_chosen(make_hand, start_server, tmp_path):
    running = start_server(tmp_path, more_models=("second",))
    hand = make_hand(running.url)
    try:
        page = hand.start().page
        choice, prompt = page.get_by_role("combobox", name="Model"), page.locator("#prompt")
        open_panel = page.locator("details.fine summary")
        assert page.locator(".model").inner_text() == "painter"
        prompt.fill("Make the shirt blue and the sign red, please")
        page.wait_for_timeout(600)
        assert page.locator("#tokens").count() == 0, "the first model has no limit"
        open_panel.click()
        choice.select_option("second")
        page.keyboard.press("Escape")
        page.locator("#tokens.over", has_text="45 / 40").wait_for()
        page.locator(".model", has_text="second").wait_for()
        hand.say("Make the shirt red")
        assert hand.session()["turns"][-1]["facts"]["model"] == "second"
        page.reload()
        page.locator(".model", has_text="second").wait_for()  # remembered
        page.locator(".doings").wait_for()
        hand.say("Make it blue")
        open_panel.click()
        choice.select_option("painter")
        page.keyboard.press("Escape")
        hand.say("Make it green")
        assert [turn["facts"].get("model") for turn in hand.session()["turns"]][1:] == [
            "second",
            "second",
            "painter",
        ]
        hand.key("s")
        page.locator("dialog[open] pre", has_text='"model":"painter"').wait_for()
    finally:
        hand.forgiving = True  # the server goes under the open page
        running.stop()


def test_one_can_log_out(make_hand, start_server, tmp_path):
    from kontext.server.auth.keys import Keys
    from kontext.session import Store

    running = start_server(tmp_path, require_keys=True)
    try:
        with Store(tmp_path) as store:
            _, key = Keys(store).create("a person")
        hand = make_hand(running.url)
        hand.forgiving = True  # the 401 without a key
        page = hand.page
        page.goto(running.url)
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Log in").click()
        page.locator(".example").first.wait_for()
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Key", exact=True).wait_for()
        assert page.context.cookies() == []
    finally:
        running.stop()


def test_the_page_works_below_a_path(make_hand, server):
    """As behind a proxy that serves it at /kontext/: nothing is asked for at the root."""
    hand, asked = make_hand(server.url), []
    page = hand.page
    page.route(
        f"{server.url}/kontext/**",
        lambda route: route.continue_(url=route.request.url.replace("/kontext/", "/", 1)),
    )
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/kontext/")
    page.get_by_role("button", name="Start with: A kid with a sign").click()
    page.locator(".doings").wait_for()
    hand.say("Make the shirt red")
    hand.key("c")
    page.locator(".frame .divider").wait_for()
    calls = [url.removeprefix(server.url) for url in asked if "/api/" in url]
    assert calls and all(path.startswith("/kontext/api/") for path in calls), calls
