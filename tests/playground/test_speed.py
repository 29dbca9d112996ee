"""How fast the page is. On a busy machine, which would say nothing about it, the quick tests are skipped.

`-m slow -s` measures with the shipped weights, twenty times each, and prints the medians; run it on a machine
that does nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from statistics import median

import pytest

pytestmark = pytest.mark.browser

INTERACTIVE_MILLISECONDS = 500
FIRST_PREVIEW_MILLISECONDS = 300
AFTER_ENGINE_MILLISECONDS = 100
PAGE_BYTES = 150_000
FEW, MANY = 3, 20
MARKS = """(() => {
  const at = (name, since = 0) =>
    performance.getEntriesByName(`kontext:${name}`).map((one) => one.startTime)
      .filter((time) => time > since);
  const send = at('send').at(-1);
  return [send, at('preview', send)[0], at('shown', send)[0]];
})()"""
# One promise and no question meanwhile: the tests share the processors with the page and the model.
AWAIT_SHOWN = """window.shown = new Promise((done) => new PerformanceObserver((marks, watcher) => {
  if (!marks.getEntriesByName('kontext:shown').length) return;
  watcher.disconnect();
  done();
}).observe({ type: 'mark' }));0"""
PAGE_WEIGHT = """performance.getEntries().filter((one) => !one.name.includes('/api/'))
  .reduce((sum, one) => sum + (one.transferSize ?? 0), 0)"""


@pytest.fixture
def quiet_machine():
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        pytest.skip(f"the machine is busy (load {load:.1f} on {cores} cores); timings would say nothing")


def interactive(make_hand, url: str, times: int) -> tuple[list[float], list[int]]:
    """Milliseconds until the page takes clicks and keys, and its bytes, in a window without a cache."""
    milliseconds, weights = [], []
    for _ in range(times):
        page = make_hand(url).open().page
        page.locator(".example").first.wait_for()
        milliseconds.append(page.evaluate("performance.getEntriesByName('kontext:interactive')[0].startTime"))
        weights.append(page.evaluate(PAGE_WEIGHT))
        page.context.close()
    return milliseconds, weights


def answers(hand, times: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds from Enter to the first preview; to the picture, less the engine's own; the engine's."""
    hand.start()
    previews, waits, engine = [], [], []
    for index in range(times):
        hand.key("u")
        hand.page.wait_for_timeout(500)  # no user types faster; work after the response is done
        hand.page.evaluate(AWAIT_SHOWN)
        hand.say(f"Make the shirt {'red' if index % 2 else 'blue'}", wait=False)
        hand.page.evaluate("shown")
        send, preview, shown = hand.page.evaluate(MARKS)
        engine.append(1000 * hand.state("state.session.turns[state.here].facts.seconds.total"))
        previews.append((preview or shown) - send)  # a quick answer overtakes its previews
        waits.append(shown - send - engine[-1])
    return previews, waits, engine


def test_page_is_interactive_soon(quiet_machine, make_hand, server):
    milliseconds, _ = interactive(make_hand, server.url, FEW)
    assert min(milliseconds) < INTERACTIVE_MILLISECONDS, milliseconds


def test_answers_are_shown_as_soon_as_they_are_there(quiet_machine, hand):
    previews, waits, _ = answers(hand, FEW)
    assert min(waits) < AFTER_ENGINE_MILLISECONDS, waits
    assert min(previews) < FIRST_PREVIEW_MILLISECONDS, previews


@pytest.fixture
def service(tmp_path):
    """`kontext serve` with the shipped weights, in a process of its own; its address."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "kontext", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    with log.open("wb") as written, subprocess.Popen(command, stderr=written) as process:
        while not (found := re.search(r"ready at (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[1]
        process.terminate()


@pytest.mark.slow
def test_shipped_weights_answer_at_once(service, make_hand, capsys):
    milliseconds, weights = interactive(make_hand, service, MANY)
    previews, waits, engine = answers(make_hand(service), MANY)
    with capsys.disabled():
        print(f"\nmedians of {MANY} (least to most), milliseconds")
        for name, values in {
            "page interactive": milliseconds,
            "Enter to first preview": previews,
            "Enter to picture, less the engine": waits,
            "engine": engine,
        }.items():
            print(f"{name:34} {median(values):6.0f} ({min(values):.0f} to {max(values):.0f})")
        print(f"{'page, bytes sent':34} {max(weights)}")
    assert median(milliseconds) < INTERACTIVE_MILLISECONDS
    assert median(previews) < FIRST_PREVIEW_MILLISECONDS
    assert median(waits) < AFTER_ENGINE_MILLISECONDS
    assert max(weights) < PAGE_BYTES
