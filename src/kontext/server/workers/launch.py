"""Starts worker processes. Imports nothing heavy, so that the model loads while the service starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kontext.loras import LoraAccess
from kontext.threads import usable_processors


class Launched(NamedTuple):
    """A worker process and our end of the socket to it."""

    process: subprocess.Popen
    socket: socket.socket


def launch(
    editor: str,
    model: str,
    device: str | None,
    workers: int,
    index: int = 0,
    options: Mapping[str, Any] | None = None,
    more_models: Sequence[str] = (),
    loras: LoraAccess | None = None,
) -> Launched:
    """Start process `index` (from 0) of `workers`, which share the CPUs and GPUs.

    options: keyword arguments of the editor's factory.
    """
    ours, theirs = socket.socketpair()
    environment = dict(os.environ)
    if workers > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_processors() // workers)))
    command = [
        sys.executable,
        "-c",
        "from kontext.server.workers.worker import main; main()",
        str(theirs.fileno()),
        editor,
        model,
        device or "",
        str(index),
        str(workers),
        json.dumps(dict(options or {})),
        (loras or LoraAccess(paths=False)).to_text(),
        *more_models,
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
