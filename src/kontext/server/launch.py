"""Start a worker process. Imports nothing heavy: the model loads while the service itself still starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import NamedTuple


class Launched(NamedTuple):
    """A worker process and our end of the socket to it."""

    process: subprocess.Popen
    socket: socket.socket


def launch(editor: str, model: str, device: str | None, workers: int, index: int = 0) -> Launched:
    """Process `index` (from 0) of `workers`, which share the processors and the GPUs between them."""
    ours, theirs = socket.socketpair()
    # Threads that wait for one another sleep: spinning, they take from the service what they wait for.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if workers > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    command = [
        sys.executable,
        "-c",
        "from kontext.server.worker import main; main()",
        str(theirs.fileno()),
        editor,
        model,
        device or "",
        str(index),
        str(workers),
    ]
    process = subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()
    return Launched(process, ours)
