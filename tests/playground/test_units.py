"""What can be said about the playground without a browser: its store, words, parts and weight."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from kontext.engine.sizes import plan_edit, plan_generate
from kontext.server.http.pages import Playground

ROOT = Path(__file__).parents[2]
PLAYGROUND = ROOT / "src/kontext/playground"
OURS = [path for path in PLAYGROUND.rglob("*.js") if "vendor" not in path.parts]
BUDGET_BYTES = 150_000
LONGEST_ELEMENT = 250  # lines

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@needs_node
def test_store_keeps_its_promises():
    done = subprocess.run(
        ["node", "--test", Path(__file__).with_name("store_test.mjs")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(re.search(r"^# pass (\d+)", done.stdout, re.M)[1]) >= 19


@needs_node
def test_sizes_shown_before_a_run_are_those_of_the_engine():
    native = [(1024, 1024), (1184, 880), (880, 1184), (1392, 752), (752, 1392), (1568, 672)]
    size_specs = ["match", "1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16", "21:9", "5:7", "640x480"]
    originals = [(640, 480), (333, 777), (1001, 1001), (1920, 821), (97, 201)]
    cases = [(size_spec, original) for size_spec in size_specs for original in [*originals, None]]
    cases = [case for case in cases if case != ("match", None)]
    module = (PLAYGROUND / "core/sizes.js").as_uri()
    code = (
        f"const {{ outputSize }} = await import('{module}');"
        f"const [cases, native] = {json.dumps([cases, native])};"
        "const sizes = cases.map(([sizeSpec, original]) => outputSize(sizeSpec, original, native));"
        "console.log(JSON.stringify(sizes));"
    )
    shown = json.loads(subprocess.check_output(["node", "--input-type=module", "-e", code], text=True))
    for (size_spec, original), size in zip(cases, shown, strict=True):
        plan = plan_edit(original, size_spec, native) if original else plan_generate(size_spec, native)
        assert tuple(size) == plan.output, (size_spec, original)


def locale(name: str) -> dict[str, str]:
    return json.loads((PLAYGROUND / f"locales/{name}.json").read_text(encoding="utf-8"))


def test_every_language_has_every_word_with_the_same_gaps():
    english = locale("en")
    for path in PLAYGROUND.glob("locales/*.json"):
        other = locale(path.stem)
        assert other.keys() == english.keys(), path.name
        for key, text in other.items():
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", english[key])), (
                path.name,
                key,
            )
            assert text.count("[") == english[key].count("["), (path.name, key)


def test_every_word_is_used_and_every_used_word_exists():
    code = "\n".join(path.read_text(encoding="utf-8") for path in OURS)
    words = locale("en")
    for key in re.findall(r"\bt\('([\w.]+)'", code):
        assert key in words, key
    used = set(re.findall(r"['`]([a-z][\w.]*)['`]", code))
    made = [
        re.escape(start).replace(r"\$\{X\}", ".+")
        for start in (
            re.sub(r"\$\{[^}]*\}", "${X}", template)
            for template in re.findall(r"`([\w.]*\$\{[^`]*?\}[\w.]*)`", code)
        )
    ]
    for key in words:
        base = key.removesuffix("_one")
        assert base in used or any(re.fullmatch(pattern, base) for pattern in made), f"{key} is not used"


def test_page_weighs_less_than_its_budget():
    files = [
        path for path in PLAYGROUND.rglob("*") if path.suffix in {".js", ".css", ".html", ".woff2", ".svg"}
    ]
    files.append(PLAYGROUND / "locales/en.json")
    weight = sum(
        len(data) if path.suffix == ".woff2" else len(gzip.compress(data, 6))
        for path in files
        for data in [path.read_bytes()]
    )
    assert weight < BUDGET_BYTES, f"{weight} bytes compressed"


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_files_are_short_and_say_what_they_are(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_ELEMENT
    assert lines[0].startswith("// "), f"{path.name} does not open with what it is"


def test_files_are_sent_packed_and_only_when_they_changed(tmp_path):
    (tmp_path / "index.html").write_text("<p>page</p>")
    (tmp_path / "app.js").write_text(
        "import { one } from './one.js';\nimport('./later.js');\n" + "// words\n" * 100
    )
    (tmp_path / "one.js").write_text('import"./app.js"')
    (tmp_path.parent / "secret.txt").write_text("secret")
    client = TestClient(Starlette(routes=[Mount("/", Playground(tmp_path))]))
    page = client.get("/")
    assert page.text == "<p>page</p>" and page.headers["link"].count("rel=modulepreload") == 2
    assert "</one.js>" in page.headers["link"] and "later" not in page.headers["link"]
    assert "</locales/en.json>; rel=preload" in page.headers["link"]
    (tmp_path / "locales").mkdir()
    (tmp_path / "locales/zh.json").write_text("{}")
    chinese = client.get("/", headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"})
    assert "</locales/zh.json>; rel=preload" in chinese.headers["link"]
    script = client.get("/app.js")
    assert script.headers["content-encoding"] == "gzip" and int(script.headers["content-length"]) < 200
    assert script.headers["content-type"].startswith("text/javascript")
    tag = script.headers["etag"]
    assert client.get("/app.js", headers={"if-none-match": tag}).status_code == 304
    (tmp_path / "app.js").write_text("// other words")
    os.utime(tmp_path / "app.js", ns=(1, 1))  # whatever the clock of the file system
    changed = client.get("/app.js", headers={"if-none-match": tag})
    assert changed.status_code == 200 and changed.text == "// other words"
    assert client.get("/../secret.txt").status_code == client.get("/%2e%2e/secret.txt").status_code == 404
    assert client.get("/nothing.js").status_code == client.get("/%00").status_code == 404
    assert client.post("/app.js").status_code == 405


def test_nothing_in_the_page_needs_a_lax_policy():
    page = (PLAYGROUND / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for path in [*OURS, *PLAYGROUND.glob("css/*.css"), PLAYGROUND / "index.html"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org)[\w.]+", text), f"{path.name} names another host"
        assert not re.search(r"\beval\(|new Function\(|innerHTML|unsafeHTML", text), path.name


def test_vendored_files_are_those_of_the_manifest():
    spec = importlib.util.spec_from_file_location("vendoring", ROOT / "scripts/vendor_playground.py")
    vendoring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(vendoring)
    assert vendoring.differences() == []
    manifest = json.loads((PLAYGROUND / "vendor/manifest.json").read_text())
    for package in manifest["packages"]:
        assert package["licence"] in {"BSD-3-Clause", "MIT", "OFL-1.1"}
        assert any(path.endswith("LICENSE") for path in package["sha256"])
