"""Edits next to a busy process: the thread settings and their effect."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kontext.server.workers.launch import launch
from kontext.threads import SPINS, usable_processors

CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
TRIES, EDITS = 3, 20


def environment(**settings):
    return {name: value for name, value in os.environ.items() if name not in CHOSEN} | settings


def python(code, *arguments, **settings):
    """What a process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment(**settings), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_waiting_threads_sleep_early_unless_the_user_decided():
    show = "import kontext, os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    assert python(show) == f"{SPINS} None"
    assert python(show, GOMP_SPINCOUNT="7") == "7 None"
    assert python(show, OMP_WAIT_POLICY="active") == "None active"


TORCH_FIRST = """
import sys, torch
if len(sys.argv) > 1:
    torch.set_num_threads(int(sys.argv[1]))
import os
from kontext import Editor
Editor.load("tiny-random", device="cpu")
print(os.environ.get("GOMP_SPINCOUNT"), torch.get_num_threads())
"""


@pytest.mark.skipif(usable_processors() < 2, reason="threads need a second processor")
def test_torch_imported_first_leaves_a_processor_to_others_unless_the_user_decided():
    processors = usable_processors()
    assert python(TORCH_FIRST) == f"None {processors - 1}"
    assert python(TORCH_FIRST, OMP_NUM_THREADS=str(processors)) == f"None {processors}"
    assert python(TORCH_FIRST, "1") == "None 1"


def test_workers_share_the_processors_and_take_the_settings_of_the_user(monkeypatch):
    taken = []

    class Process:
        def __init__(self, command, env, **_):
            taken.append(env)

    monkeypatch.setattr("kontext.server.workers.launch.subprocess.Popen", Process)
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    launch("editor", "nano", None, 1).socket.close()
    launch("editor", "nano", None, usable_processors()).socket.close()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    launch("editor", "nano", None, 2, index=1).socket.close()
    assert "OMP_NUM_THREADS" not in taken[0]
    assert usable_processors() == 1 or taken[1]["OMP_NUM_THREADS"] == "1"
    assert taken[2]["OMP_NUM_THREADS"] == "5" and taken[2]["OMP_WAIT_POLICY"] == "active"


@pytest.fixture(scope="module")
def measurement():
    """The script that measures, as a module."""
    script = Path(__file__).parents[1] / "scripts" / "measure_busy.py"
    spec = importlib.util.spec_from_file_location("measure_busy", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def picture(tmp_path):
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "given.png")
    return tmp_path / "given.png"


@pytest.mark.slow  # and for a machine that does nothing else: tests that run at the same time are busy too
@pytest.mark.skipif(usable_processors() < 2, reason="a busy process needs a second processor")
@pytest.mark.parametrize("surface", ["command line", "Python", "service"])
def test_edits_beside_a_busy_process_take_little_longer(measurement, picture, surface, monkeypatch):
    """Quiet and busy take turns and are compared by medians, so that other load falls on both."""
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    with measurement.SURFACES[surface](picture) as measure:
        figures = measurement.measured(measure, EDITS, TRIES, [1])
    assert figures[1][1] <= measurement.BOUND * figures[0][1]


@pytest.mark.parametrize("surface", ["command line", "Python", "service"])
def test_each_surface_can_be_measured(measurement, picture, surface):
    with measurement.SURFACES[surface](picture) as measure:
        seconds = measure(2)
    assert len(seconds) >= 2 and all(0 < each < 60 for each in seconds)


def test_figures_are_medians_over_rounds_that_take_turns(measurement, monkeypatch):
    busy = []
    monkeypatch.setattr(
        measurement, "busy_processes", lambda count: contextlib.nullcontext(busy.append(count))
    )
    rounds = iter([[1.0, 9.0], [2.0, 20.0], [1.0, 5.0], [4.0, 40.0], [3.0, 7.0], [6.0, 60.0]])
    figures = measurement.measured(lambda count: next(rounds), 2, 3, [1])
    assert busy == [0, 1] * 3 and figures == {0: (5.0, 7.0), 1: (22.0, 40.0)}
