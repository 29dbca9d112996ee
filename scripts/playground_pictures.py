"""Take screenshots of the playground for the README and the docs from the running application.

`python scripts/playground_pictures.py [--model nano] [--out docs/pictures]` starts a server on a free port
with a store of its own, drives Chromium through a short story and writes WebP files. `--model` is anything
that `kontext serve --model` takes; `--editor tests/support/painter.py:load` uses a rule-based editor.
"""

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WAIT_MILLISECONDS = 180_000
START_SECONDS = 240
SEED = 1
SERVER = """
import sys
from pathlib import Path
import uvicorn
from kontext.server import Settings, create_app
port, data, model, editor = sys.argv[1:]
extra = {"editor": editor} if editor else {}
settings = Settings(port=int(port), data=Path(data), model=model, **extra)
uvicorn.run(create_app(settings), host="127.0.0.1", port=settings.port, log_level="error")
"""


def wait_for(url: str) -> None:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"the server did not become ready in {START_SECONDS} s")


def send_prompt(page: Page, prompt: str) -> None:
    page.locator("#prompt").fill(prompt)
    page.locator("#prompt").press("Enter")
    page.locator(".now b", has_text=prompt).wait_for()
    page.locator(".send.stopping").wait_for(state="detached")
    page.wait_for_timeout(400)


def key(page: Page, name: str) -> None:
    page.evaluate("document.activeElement?.blur()")
    page.keyboard.press(name)


def story(page: Page, out: Path, suffix: str, wanted: tuple[str, ...]) -> None:
    """One session with branches and variants, pictured on the way."""

    def keep(name: str) -> None:
        if name in wanted:
            page.mouse.move(2, 2)
            page.locator(".notice").first.wait_for(state="detached")
            taken = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
            taken.save(out / f"playground-{name}{suffix}.webp", quality=88, method=6)

    page.locator(".opening h1").wait_for()
    page.wait_for_timeout(500)
    keep("start")
    page.get_by_role("button", name="Start with: A monster under the sea").click()
    page.locator(".doings").wait_for()
    page.locator("summary.setting").nth(1).click()
    page.get_by_label("Number", exact=True).fill(str(SEED))
    page.get_by_label("Number", exact=True).press("Enter")
    page.keyboard.press("Escape")
    send_prompt(page, "Make the monster orange")
    send_prompt(page, "Make it night")
    page.get_by_role("treeitem", name="Original picture").click()
    send_prompt(page, "Change the background to a beach")
    key(page, "v")
    page.get_by_role("treeitem", name="Variant 4 of 4").wait_for()
    page.locator(".send.stopping").wait_for(state="detached")
    page.wait_for_timeout(600)
    keep("turns")
    page.get_by_role("treeitem", name="Make the monster orange").click()
    page.wait_for_timeout(600)
    key(page, "g")
    page.wait_for_timeout(600)
    keep("region")
    key(page, "Escape")
    key(page, "c")
    page.wait_for_timeout(600)
    keep("compare")
    key(page, "Escape")
    key(page, "b")
    frame = page.locator(".frame").bounding_box()
    x, y, width, height = (frame[side] for side in ("x", "y", "width", "height"))
    page.mouse.move(x + 0.66 * width, y + 0.56 * height)
    page.mouse.down()
    page.mouse.move(x + 0.98 * width, y + 0.96 * height, steps=8)
    page.mouse.up()
    page.locator("#prompt").fill("Turn the thing in the red box into a teddy bear")
    keep("box")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--editor", default="", help="file.py:function that makes the editor")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/pictures")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("no Chromium found: apt-get install --no-install-recommends chromium, or set CHROMIUM")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-c", SERVER, str(port), data, chosen.model, chosen.editor]
        server = subprocess.Popen(command, cwd=ROOT)
        try:
            wait_for(f"http://127.0.0.1:{port}")
            picture(program, f"http://127.0.0.1:{port}", chosen.out)
        finally:
            server.terminate()
            server.wait(30)
    return 0


def picture(program: str, url: str, out: Path) -> None:
    desk = {"viewport": {"width": 1440, "height": 900}}
    looks = {
        "": ({**desk, "color_scheme": "light"}, ("start", "turns", "compare")),
        "-dark": ({**desk, "color_scheme": "dark"}, ("region",)),
        "-phone": ({"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}, ("box",)),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        for suffix, (context, wanted) in looks.items():
            page = browser.new_context(locale="en-US", **context).new_page()
            page.set_default_timeout(WAIT_MILLISECONDS)
            page.goto(url)
            story(page, out, suffix, wanted)
            page.context.close()
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
