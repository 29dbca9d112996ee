"""Fetch the third-party parts of the playground from npm into `src/kontext/playground/vendor`.

`python scripts/vendor_playground.py` rewrites the files, `--check` only compares them with
`manifest.json`. Of Lit, what the page uses is bundled into one module: on loopback a browser spends more time
on asking for a file than on reading it.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src/kontext/playground/vendor"

FIGTREE = "@fontsource-variable/figtree@5.3.0"
JOINER = "esbuild@0.25.12"
LIT = "lit@3.3.3"
LIT_USED = """
export { LitElement, html, noChange, nothing, svg } from 'lit';
export { Directive, directive } from 'lit/directive.js';
export { live } from 'lit/directives/live.js';
export { repeat } from 'lit/directives/repeat.js';
"""


def install(folder: Path, *specs: str) -> None:
    command = ["npm", "install", "--silent", "--no-audit", "--ignore-scripts", *specs]
    subprocess.run(command, cwd=folder, check=True)


def joined(folder: Path) -> bytes:
    """The parts of Lit that the page uses, as one module."""
    entry = folder / "entry.js"
    entry.write_text(LIT_USED)
    command = [folder / "node_modules/.bin/esbuild", entry, "--bundle", "--format=esm", "--minify"]
    packed = subprocess.run([*command, "--legal-comments=none"], check=True, capture_output=True)
    return b"/* Lit; its licence is beside this file. */\n" + packed.stdout


def keep(spec: str, package: Path, files: dict[str, bytes], **more: object) -> dict:
    """Write the files of one package; returns its entry of the manifest."""
    name, version = spec.rsplit("@", 1)
    place = VENDOR / name.rsplit("/", 1)[-1]
    place.mkdir(parents=True, exist_ok=True)
    files = files | {"LICENSE": (package / "LICENSE").read_bytes()}
    for file, data in files.items():
        (place / file).write_bytes(data)
    sums = {f"{place.name}/{file}": hashlib.sha256(data).hexdigest() for file, data in files.items()}
    licence = json.loads((package / "package.json").read_text())["license"]
    return {"name": name, "version": version, "licence": licence, **more, "sha256": sums}


def fetch() -> list[dict]:
    """Write everything; returns the entries of the manifest."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        install(folder, LIT, JOINER, FIGTREE)
        lit, figtree = (folder / "node_modules" / spec.rsplit("@", 1)[0] for spec in (LIT, FIGTREE))
        font = "figtree-latin-wght-normal.woff2"
        return [
            keep(LIT, lit, {"lit.js": joined(folder)}, joined_by=JOINER),
            keep(FIGTREE, figtree, {font: (figtree / "files" / font).read_bytes()}),
        ]


def differences() -> list[str]:
    """Files that the manifest and the folder do not agree on; types (`.d.ts`) are written here."""
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    known = {path: sum_ for package in manifest["packages"] for path, sum_ in package["sha256"].items()}
    files = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()}
    found = {path for path in files if path != "manifest.json" and not path.endswith(".d.ts")}
    return sorted(
        path
        for path in found | set(known)
        if path not in found or hashlib.sha256((VENDOR / path).read_bytes()).hexdigest() != known.get(path)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare the files with the manifest")
    if not parser.parse_args().check:
        (VENDOR / "manifest.json").write_text(json.dumps({"packages": fetch()}, indent=2) + "\n")
    wrong = differences()
    for path in wrong:
        sys.stderr.write(f"{path}: not as the manifest says\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
