"""How the threads of one computation wait for each other, for the whole process. Imports nothing heavy.

PyTorch's threads on Linux are those of GNU OpenMP. A waiting thread first spins for 3 ms and then sleeps.
While another program uses the CPU, the threads it waits for are often not running, and the spinning thread
holds the core that they need.
"""

from __future__ import annotations

import logging
import os
import sys

log = logging.getLogger(__name__)

SPINS = 1000
"""Iterations that a waiting thread spins before it sleeps, about 10 microseconds.

Warm edits of nano on two cores, p50/p95 in seconds, on an idle machine and next to one busy process: 300000
(the library's default) 0.070/0.073 and 0.22/0.42; 1000 0.081/0.086 and 0.135/0.155; 0
(OMP_WAIT_POLICY=PASSIVE) 0.106/0.118 and 0.110/0.123. Measured by `scripts/measure_busy.py`.
"""
CHOSEN_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def spin_briefly() -> None:
    """Let waiting threads sleep early. Must run before PyTorch is imported, which reads the setting then.

    Does nothing if the user has set it. Child processes inherit it.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in CHOSEN_BY_USER):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


def leave_one_processor() -> None:
    """Use one CPU less if PyTorch was imported before kontext, because its threads then spin long.

    Does nothing if the user has set the number of threads.
    """
    import torch

    if any(name in os.environ for name in (*CHOSEN_BY_USER, "OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        return
    processors = usable_processors()
    if 1 < processors == torch.get_num_threads():
        torch.set_num_threads(processors - 1)
        log.info(
            "PyTorch was imported before kontext: it uses %d of %d processors", processors - 1, processors
        )


def usable_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
