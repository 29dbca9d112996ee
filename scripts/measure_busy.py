"""Latency of warm edits on an idle machine and next to busy processes, for several thread settings.

    python scripts/measure_busy.py [--edits 40] [--rounds 3] [--busy 1 2]

Every figure is the median over the rounds, which alternate between the settings; a busy process is an
endless loop. A ratio is the p95 next to the busy processes over the idle p95 of the same setting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

EDITS = """
import json, sys, time
from PIL import Image
from kontext import Editor
editor, seconds = Editor.load("nano", device="cpu"), []
picture = Image.radial_gradient("L").convert("RGB")
for i in range(int(sys.argv[1]) + 3):
    start = time.perf_counter()
    editor.edit(picture, "make it night", seed=i)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds[3:]))
"""
SETTINGS: dict[str, dict[str, str]] = {
    "as kontext sets it": {},
    "spin 300000, the library's own": {"GOMP_SPINCOUNT": "300000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin 300": {"GOMP_SPINCOUNT": "300"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run `count` endless loops, which are killed on exit."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def edits(count: int, settings: dict[str, str]) -> tuple[float, float]:
    """p50 and p95 in seconds of warm edits in a process of their own."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | settings
    command = [sys.executable, "-c", EDITS, str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = sorted(json.loads(done.stdout))
    return statistics.median(seconds), seconds[round(0.95 * (len(seconds) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--edits", type=int, default=40, help="warm edits of a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each figure")
    parser.add_argument("--busy", type=int, nargs="*", default=[1, 2], help="numbers of busy processes")
    arguments = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, settings in SETTINGS.items():
            for count in (0, *arguments.busy):
                with busy_processes(count):
                    found[name, count].append(edits(arguments.edits, settings))
    print(f"{'setting':32} {'busy':>4} {'p50':>7} {'p95':>7} {'ratio':>6}")
    for name in SETTINGS:
        quiet = statistics.median(p95 for _, p95 in found[name, 0])
        for count in (0, *arguments.busy):
            p50, p95 = (statistics.median(column) for column in zip(*found[name, count]))
            print(f"{name:32} {count:4} {p50:7.3f} {p95:7.3f} {p95 / quiet:6.2f}")


if __name__ == "__main__":
    main()
