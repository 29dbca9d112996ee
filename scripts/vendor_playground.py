"""Fetch the third-party parts of the playground from npm into `src/kontext/playground/vendor`.

`python scripts/vendor_playground.py` writes the files anew, `--check` only compares them with
`manifest.json`. A browser without an import map wants relative addresses, so bare imports are rewritten;
nothing else is changed.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src/kontext/playground/vendor"

PACKAGES = {
    "@lit/reactive-element@2.1.2": ["reactive-element.js", "css-tag.js", "LICENSE"],
    "lit-html@3.3.3": [
        "lit-html.js",
        "directive.js",
        "directive-helpers.js",
        "directives/live.js",
        "directives/repeat.js",
        "LICENSE",
    ],
    "lit-element@4.2.2": ["lit-element.js", "LICENSE"],
    "@fontsource-variable/figtree@5.3.0": ["files/figtree-latin-wght-normal.woff2", "LICENSE"],
}
ADDRESSES = {
    '"@lit/reactive-element"': '"../reactive-element/reactive-element.js"',
    '"lit-html"': '"../lit-html/lit-html.js"',
}


def folder_of(name: str) -> str:
    """The last part of a package's name, such as `figtree`."""
    return name.rsplit("/", 1)[-1]


def served(path: str, data: bytes) -> bytes:
    """A file as the browser gets it: relative imports, no pointer to a source map that is not there."""
    if not path.endswith(".js"):
        return data
    text = data.decode()
    for bare, relative in ADDRESSES.items():
        text = text.replace(bare, relative)
    return re.sub(r"//# sourceMappingURL=.*\n?", "", text).encode()


def fetch(spec: str, paths: list[str]) -> dict:
    """Write the files of one package; returns its entry of the manifest."""
    name, version = spec.rsplit("@", 1)
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", spec], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(Path(folder) / packed.stdout.split()[-1]) as archive:
            read = {path: archive.extractfile(f"package/{path}").read() for path in ["package.json", *paths]}
    licence = json.loads(read.pop("package.json"))["license"]
    files = {}
    for path, data in read.items():
        data = served(path, data)
        place = VENDOR / folder_of(name) / path.removeprefix("files/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        files[str(place.relative_to(VENDOR))] = hashlib.sha256(data).hexdigest()
    return {"name": name, "version": version, "licence": licence, "sha256": files}


def differences() -> list[str]:
    """Files that the manifest and the folder do not agree on."""
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    known = {path: sum_ for package in manifest["packages"] for path, sum_ in package["sha256"].items()}
    found = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()} - {
        "manifest.json"
    }
    return sorted(
        path
        for path in found | set(known)
        if path not in found or hashlib.sha256((VENDOR / path).read_bytes()).hexdigest() != known.get(path)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare the files with the manifest")
    if not parser.parse_args().check:
        manifest = {"packages": [fetch(spec, paths) for spec, paths in PACKAGES.items()]}
        (VENDOR / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    wrong = differences()
    for path in wrong:
        sys.stderr.write(f"{path}: not as the manifest says\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
