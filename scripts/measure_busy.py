"""Latency of warm edits on an idle machine and next to busy processes.

    python scripts/measure_busy.py surfaces     command line, Python and service; fails above 2.5
    python scripts/measure_busy.py settings     Python, for several thread settings

Every figure is the median over the rounds, which alternate between quiet and busy; a busy process is an
endless loop. A ratio is the p95 next to the busy processes over the quiet p95. The machine must do nothing
else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from PIL import Image

BOUND = 2.5
"""Largest ratio next to one busy process."""
WARM_UP = 3  # edits that are not counted
CHOSEN_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
SETTINGS: dict[str, dict[str, str]] = {
    "as kontext sets it": {},
    "spin 300000, the library's own": {"GOMP_SPINCOUNT": "300000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin 300": {"GOMP_SPINCOUNT": "300"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
EDITS = """
import json, sys, time
from kontext import Editor
editor, seconds = Editor.load("nano", device="cpu"), []
for seed in range(int(sys.argv[2])):
    start = time.perf_counter()
    editor.edit(sys.argv[1], "make it night", seed=seed)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""

Measure = Callable[[int], list[float]]
"""Seconds of each of a number of warm edits."""


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


def environment(settings: dict[str, str]) -> dict[str, str]:
    """The environment with these thread settings only."""
    return {name: value for name, value in os.environ.items() if name not in CHOSEN_BY_USER} | settings


def output(command: Sequence[str], settings: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment(settings), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


@contextlib.contextmanager
def python(picture: Path, settings: dict[str, str] | None = None) -> Iterator[Measure]:
    """Edits of one process of Python."""

    def measure(count: int) -> list[float]:
        command = [sys.executable, "-c", EDITS, str(picture), str(count + WARM_UP)]
        return json.loads(output(command, settings or {}))[WARM_UP:]

    yield measure


@contextlib.contextmanager
def command_line(picture: Path) -> Iterator[Measure]:
    """A `kontext edit` for each edit, without the time that a new process takes to load."""

    def measure(count: int) -> list[float]:
        seconds = []
        for seed in range(max(2, count // 4)):
            given = [
                "edit",
                str(picture),
                "make it night",
                "-o",
                str(picture.with_name("made.png")),
                "--force",
            ]
            more = ["--seed", str(seed), "--device", "cpu", "--json"]
            spent = json.loads(output([sys.executable, "-m", "kontext", *given, *more], {}))["seconds"]
            seconds.append(spent["total"] - spent["load"])
        return seconds

    yield measure


@contextlib.contextmanager
def service(picture: Path) -> Iterator[Measure]:
    """Edits of one worker of the service."""
    from multiprocessing.connection import Connection

    from kontext.server.jobs.requests import JobRequest
    from kontext.server.workers.launch import launch
    from kontext.server.workers.worker import JobPayload

    launched = launch("kontext.server.workers.worker:load_editor", "nano", "cpu", 1)
    connection = Connection(launched.socket.detach())
    pictures = {"picture": [picture.read_bytes()]}

    def measure(count: int) -> list[float]:
        seconds = []
        for seed in range(count + WARM_UP):
            start = time.perf_counter()
            request = JobRequest(prompt="make it night", seed=seed)
            connection.send(("run", [JobPayload("one", request, pictures)]))
            while connection.recv()[0] != "results":
                pass
            seconds.append(time.perf_counter() - start)
        return seconds[WARM_UP:]

    try:
        if connection.recv()[0] != "ready":
            raise RuntimeError("the worker did not load nano")
        yield measure
    finally:
        launched.process.kill()
        launched.process.wait()
        connection.close()


SURFACES: dict[str, Callable[[Path], AbstractContextManager[Measure]]] = {
    "command line": command_line,
    "Python": python,
    "service": service,
}


def percentile_95(seconds: Sequence[float]) -> float:
    return sorted(seconds)[round(0.95 * (len(seconds) - 1))]


def measured(
    measure: Measure, edits: int, rounds: int, busy: Sequence[int]
) -> dict[int, tuple[float, float]]:
    """(p50, p95) in seconds by the number of busy processes, 0 included."""
    found: dict[int, list[list[float]]] = defaultdict(list)
    for _ in range(rounds):
        for count in (0, *busy):
            with busy_processes(count):
                found[count].append(measure(edits))
    return {
        count: (
            statistics.median(map(statistics.median, rounds_found)),
            statistics.median(map(percentile_95, rounds_found)),
        )
        for count, rounds_found in found.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("surfaces", "settings"))
    parser.add_argument("--edits", type=int, default=40, help="warm edits of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds for each figure")
    parser.add_argument("--busy", type=int, nargs="*", default=[1], help="numbers of busy processes")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("a busy process needs a second processor")
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print(
            f"the machine is busy already (load {os.getloadavg()[0]:.1f}): ratios are too low",
            file=sys.stderr,
        )
    failed = False
    print(f"{'':32} {'busy':>4} {'p50':>7} {'p95':>7} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "given.png")
        Image.radial_gradient("L").convert("RGB").save(picture)
        if arguments.what == "settings":
            cases = {name: python(picture, settings) for name, settings in SETTINGS.items()}
        else:
            cases = {name: surface(picture) for name, surface in SURFACES.items()}
        for name, case in cases.items():
            with case as measure:
                figures = measured(measure, arguments.edits, arguments.rounds, arguments.busy)
            for count, (p50, p95) in figures.items():
                ratio = p95 / figures[0][1]
                wrong = arguments.what == "surfaces" and count == 1 and ratio > BOUND
                failed = failed or wrong
                verdict = f"  above {BOUND}" if wrong else ""
                print(f"{name:32} {count:4} {p50:7.3f} {p95:7.3f} {ratio:6.2f}{verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
