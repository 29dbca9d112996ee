"""A real server with a painter by rules for a model, and a real Chromium, for the tests of the playground."""

from __future__ import annotations

import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
GATE = "PAINTER_GATE"  # a file for which the painter waits in the middle of slow edits
START_AGAIN = """async () => {
  const [{ leave }, { store }, { initial }] = await Promise.all(
    ['sessions', 'store', 'state'].map((name) => import(`/core/${name}.js`)));
  document.querySelectorAll('dialog[open]').forEach((dialog) => dialog.close());
  localStorage.clear();
  leave();
  const { capabilities, examples } = store.state;
  store.set({ ...initial(), ready: true, capabilities, examples });
}"""
SHARED = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US", "accept_downloads": True}
ARTEFACTS = HERE.parents[1] / "build/playground"  # screenshots are kept here
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LONGEST_WAIT = 60_000  # milliseconds; generous, since a busy machine is slow and no failure


@dataclass
class Running:
    """A server in a thread of this process."""

    url: str
    settings: object
    _server: object
    _thread: threading.Thread = field(repr=False)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(20)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(data: Path, **settings) -> Running:
    """A server on loopback, ready for work."""
    import uvicorn

    from kontext.server import Settings, create_app

    settings = {
        "port": free_port(),
        "editor": f"{HERE.parent / 'support' / 'painter.py'}:load",
        "grace_seconds": 1.0,
        **settings,
    }
    chosen = Settings(data=data, **settings)
    config = uvicorn.Config(
        create_app(chosen), port=chosen.port, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{chosen.port}"
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return Running(url, chosen, server, thread)
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise TimeoutError("the server did not become ready in 240 s")


@pytest.fixture(scope="session")
def server(tmp_path_factory, gate) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("playground"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def strict_server(tmp_path_factory, gate) -> Iterator[Running]:
    """Few jobs, small pictures, one forbidden word; pictures by address."""
    folder = tmp_path_factory.mktemp("strict")
    words = folder / "words.txt"
    words.write_text("gorgonzola\n")
    limits = dict(active_jobs=2, body_bytes=400_000, picture_pixels=300_000, banned_words=words)
    limits |= dict(fetch_urls=True, private_addresses=True, body_seconds=3.0)
    running = start(folder / "data", **limits)
    yield running
    running.stop()


@pytest.fixture(scope="module")  # not longer: its event loop keeps tests of other folders from running theirs
def browser() -> Iterator:
    """Chromium, or a skip that says how to get one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    named = os.environ.get("CHROMIUM")
    program = named or next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium found: apt-get install --no-install-recommends chromium, or set CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def gate(tmp_path_factory) -> Path:
    """Slow edits go on when this file is there."""
    file = tmp_path_factory.mktemp("gate") / "open"
    os.environ[GATE] = str(file)  # workers inherit it
    return file


@dataclass
class Hand:
    """What a person does with the page, in few words."""

    page: object
    url: str
    gate: Path
    problems: list[str]
    forgiving: bool = False
    """Set where errors on the console belong to what is tested."""

    def open(self) -> Hand:
        """The first page, as on a first visit."""
        if self.page.url.startswith(self.url):
            self.page.evaluate(START_AGAIN)
        else:
            self.page.goto(self.url)
        self.page.locator(".opening h1").wait_for()
        self.page.locator(".example").first.wait_for()
        return self

    def release(self) -> None:
        """Let slow edits go on."""
        self.gate.touch()

    def session(self) -> dict:
        """The open session as the server has it."""
        name = self.page.evaluate("location.hash.slice(1)")
        return httpx.get(f"{self.url}/api/sessions/{name}").json()

    def state(self, what: str):
        """Something of the page's own state, as JavaScript over `state`."""
        return self.page.evaluate(f"import('/core/store.js').then(({{ store: {{ state }} }}) => {what})")

    def until(self, what: str) -> None:
        """Wait for JavaScript to be true; `wait_for_function` would need a lax content policy."""
        give_up = time.monotonic() + LONGEST_WAIT / 1000
        while not self.page.evaluate(what):
            assert time.monotonic() < give_up, f"not so in {LONGEST_WAIT} ms: {what}"
            self.page.wait_for_timeout(50)

    def start(self, example: str = "A kid with a sign") -> Hand:
        """Open an example picture, its suggested prompt taken away."""
        self.open()
        self.page.get_by_role("button", name=f"Start with: {example}").click()
        self.page.locator(".doings").wait_for()
        self.page.locator("#prompt").fill("")
        self.idle()  # the picture is there to draw on
        self.settle()
        return self

    def say(self, prompt: str, wait: bool = True) -> None:
        """Type a prompt, press Enter, wait until the answer is on the stage."""
        self.page.locator("#prompt").fill(prompt)
        self.page.locator("#prompt").press("Enter")
        if wait:
            self.page.locator(".now b", has_text=prompt).wait_for()
            self.idle()

    def told(self, words: str) -> None:
        """Wait for a message with these words; without it, say what the page shows instead."""
        from playwright.sync_api import TimeoutError

        try:
            self.page.locator(".notice", has_text=words).first.wait_for()
        except TimeoutError:
            seen = "{notices: state.notices, tool: state.tool, pointing: state.pointing, draft: state.draft}"
            focus = self.page.evaluate("document.activeElement?.outerHTML.slice(0, 80)")
            raise AssertionError(f"no {words!r}, but {self.state(seen)}, focus on {focus}") from None

    def settle(self) -> None:
        """Wait for the next frame, and for what takes the focus in it or by a timer."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def idle(self) -> None:
        """Until nothing is being made and the picture is shown, that of a finished edit included."""
        self.page.locator(".send.stopping").wait_for(state="detached")
        give_up = time.monotonic() + LONGEST_WAIT / 1000
        while self.state("['sending', 'queued', 'running', 'done'].includes(state.jobs[state.here]?.state)"):
            assert time.monotonic() < give_up, "the selected edit did not end"
            self.page.wait_for_timeout(50)
        self.page.locator(".frame[aria-busy=true]").wait_for(state="detached")  # the new picture is decoded
        self.page.locator(".frame img.picture").first.wait_for()

    def key(self, *keys: str) -> None:
        """Keys outside of text fields."""
        self.page.evaluate("document.activeElement?.blur()")
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def turns(self) -> list[str]:
        return self.page.locator("[role=treeitem]").evaluate_all("all => all.map(one => one.ariaLabel)")

    def here(self) -> str:
        return self.page.locator("[role=treeitem][aria-selected=true]").get_attribute("aria-label")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """With the mouse over the picture, places as shares of its sides."""
        box = self.page.locator(".frame").first.bounding_box()
        (x0, y0), (x1, y1) = (
            (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)
        )
        self.page.mouse.move(x0, y0)
        self.page.mouse.down()
        self.page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2, steps=4)
        self.page.mouse.move(x1, y1, steps=4)
        self.page.mouse.up()

    def drop(self, data: bytes, name: str, kind: str = "image/png", on: str = "body", at=(0.1, 0.1)) -> None:
        """A file from outside onto the page; `at` are shares of the window."""
        handle = self.page.evaluate_handle(
            """([bytes, name, type]) => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
              return transfer;
            }""",
            [list(data), name, kind],
        )
        for event in ("dragenter", "dragover", "drop"):
            width, height = (self.page.evaluate(f"inner{side}") for side in ("Width", "Height"))
            place = {"clientX": at[0] * width, "clientY": at[1] * height}
            self.page.dispatch_event(on, event, {"dataTransfer": handle, **place})

    def pixels(self) -> bytes:
        """The shown picture as the server has it."""
        address = self.page.locator(".frame img.picture").first.get_attribute("src")
        return httpx.get(self.url + address).content

    def picture(self, name: str) -> None:
        """Keep a screenshot."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", animations="disabled")


@pytest.fixture(scope="module")
def shared_hand(browser, server, gate) -> Iterator[Hand]:
    """One window for most tests: each makes a page as new of it, which is quicker than a new window."""
    hand = new_hand(browser, server.url, gate)
    yield hand
    hand.page.context.close()


@pytest.fixture
def hand(shared_hand) -> Iterator[Hand]:
    hand = shared_hand
    hand.page.set_viewport_size(SHARED["viewport"])
    hand.gate.unlink(missing_ok=True)
    hand.problems.clear()
    hand.forgiving = False
    yield hand
    hand.release()
    assert hand.forgiving or not hand.problems, hand.problems


@pytest.fixture
def make_hand(browser, gate) -> Iterator[Callable[..., Hand]]:
    """Windows of their own: other servers, phones, a second window. Errors on the console fail the test."""
    hands: list[Hand] = []
    gate.unlink(missing_ok=True)

    def make(url: str, **context) -> Hand:
        hands.append(new_hand(browser, url, gate, **context))
        return hands[-1]

    yield make
    gate.touch()
    for hand in hands:
        hand.page.context.close()
    for hand in hands:
        assert hand.forgiving or not hand.problems, hand.problems


def new_hand(browser, url: str, gate: Path, **context) -> Hand:
    """A user in a new window; errors of its page are recorded."""
    window = browser.new_context(**SHARED | context)
    window.set_default_timeout(LONGEST_WAIT)
    hand = Hand(window.new_page(), url, gate, [])
    hand.page.on("pageerror", lambda error: hand.problems.append(str(error)))
    hand.page.on("console", lambda told: told.type == "error" and hand.problems.append(told.text))
    return hand


@pytest.fixture(scope="session")
def drawing() -> Callable[..., bytes]:
    return draw_house


@pytest.fixture(scope="session")
def start_server() -> Callable[..., Running]:
    return start


def draw_house(size: tuple[int, int] = (320, 240), kind: str = "PNG") -> bytes:
    """A picture of a house, as a file."""
    picture = Image.new("RGB", size, "#9bd3f5")
    draw = ImageDraw.Draw(picture)
    width, height = size
    draw.rectangle((0, height * 0.7, width, height), fill="#7cc05a")
    draw.rectangle(
        (width * 0.3, height * 0.4, width * 0.7, height * 0.8), fill="#f2e3c6", outline="#222", width=3
    )
    draw.polygon(
        [(width * 0.25, height * 0.4), (width * 0.5, height * 0.15), (width * 0.75, height * 0.4)],
        fill="#c8452f",
    )
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()
