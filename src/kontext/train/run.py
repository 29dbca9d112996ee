"""Shared parts of training runs: folder, log, clock, learning-rate schedule, moving average and state.

A run can be resumed from any save and stops at its step count or its time budget, whichever comes first,
always with a complete state on disk.
"""

from __future__ import annotations

import json
import logging
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kontext.errors import BadCheckpoint
from kontext.train.distributed import world_size

log = logging.getLogger(__name__)

EARLY_STEPS = (10, 50)  # always logged, so that a new run shows its speed within a minute


WEIGHTS = ("networks", "words")
"""Parts of a state that are weights a run cannot do without."""


class Paused(Exception):
    """The time of a call is over, or a signal came; the run is saved and can be resumed."""


_stop = threading.Event()


@contextmanager
def pausing_on_signals() -> Iterator[None]:
    """Have SIGINT and SIGTERM pause the run at its next step; a second signal acts as usual.

    Not with several processes, which would pause at different steps.
    """
    if world_size() > 1:
        yield
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    def pause(number: int, frame: object) -> None:
        restore()
        _stop.set()

    before = {number: signal.signal(number, pause) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()
        _stop.clear()


class Ema:
    """Moving average of weights in float32, decay min(limit, (1 + step) / (10 + step))."""

    def __init__(self, modules: Iterable[nn.Module], limit: float):
        self.limit = limit
        self.live = [p for module in modules for p in module.parameters()]
        self.average = [p.detach().float().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.limit, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [p.detach().float() for p in self.live], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averaged and live weights; call again to exchange back."""
        for average, live in zip(self.average, self.live):
            copy = live.detach().float().clone()
            live.copy_(average)
            average.copy_(copy)

    def __enter__(self) -> Ema:
        self.swap()
        return self

    def __exit__(self, *_: object) -> None:
        self.swap()


class TrainingRun:
    """A folder with `log.jsonl`, `state.pt` (resumable, private format) and the trainer's own files.

    `undecayed.pt` is the state at the start of the final decay, from which a longer run can go on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        seconds: float | None,
        warmup: int,
        decay_share: float,
        call_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        writes: bool = True,
    ):
        """clock: seconds; writes: whether this process writes logs and states."""
        self.folder, self.call_seconds = folder, call_seconds
        self.clock, self.writes = clock, writes
        self.steps, self.seconds, self.warmup, self.decay_share = steps, seconds, warmup, decay_share
        self.step = 0
        self.spent = 0.0
        self._called = self._started = clock()
        self._recorded = (0, time.monotonic())
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def elapsed(self) -> float:
        """Seconds of training, including earlier parts of a resumed run."""
        return self.spent + self.clock() - self._started

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end: by steps or by time, whichever is further."""
        by_time = self.elapsed / self.seconds if self.seconds else 0.0
        return max(self.step / self.steps, by_time)

    @property
    def finished(self) -> bool:
        return self.progress >= 1.0

    def pause_if_due(self, save: Callable[[], object]) -> None:
        """Save and raise Paused when the time of this call is over, or after a signal."""
        if _stop.is_set() or (
            self.call_seconds is not None and self.clock() - self._called > self.call_seconds
        ):
            save()
            raise Paused

    def logs(self, every: int) -> bool:
        return self.step % every == 0 or self.step in EARLY_STEPS

    def pace(self, device: torch.device) -> dict[str, object]:
        """Steps per second since the last call; on a GPU also its utilization (%) and peak memory (GiB)."""
        step, then = self._recorded
        self._recorded = (self.step, time.monotonic())
        figures: dict[str, object] = {"pace": round((self.step - step) / (self._recorded[1] - then), 3)}
        if device.type == "cuda":
            figures["gpu_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 1)
            query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            try:
                output = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
                figures["gpu_percent"] = int(output.split()[0])
            except (OSError, subprocess.SubprocessError, ValueError, IndexError):
                pass  # a missing metric must not stop the run
        return figures

    def lr_factor(self) -> float:
        """Learning-rate factor: linear warm-up, constant, then linear decay to 0 over the last share."""
        warm = min(1.0, (self.step + 1) / max(1, self.warmup))
        remaining = max(0.0, 1.0 - self.progress)
        return warm * min(1.0, remaining / self.decay_share if self.decay_share else 1.0)

    @property
    def decays(self) -> bool:
        """Whether the rate's final decay has begun."""
        return self.decay_share > 0 and self.progress > 1 - self.decay_share

    def record(self, **figures: object) -> None:
        if not self.writes:
            return
        line = {"step": self.step, "seconds": round(self.elapsed, 1), **figures}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%s", " ".join(f"{k} {_short(v)}" for k, v in line.items()))

    def save(self, state: dict, name: str = "state.pt") -> None:
        """Write a state that the run can be resumed from, or a copy of it under another name."""
        if not self.writes:
            return
        path = self.folder / name
        part = path.with_suffix(".part")
        torch.save({**state, "step": self.step, "seconds": self.elapsed}, part)
        part.replace(path)

    def load(self) -> dict:
        path = self.folder / "state.pt"
        if not path.exists():
            raise BadCheckpoint(
                f"nothing to resume in {self.folder}: state.pt is missing; start without --resume"
            )
        state = read_state(path)
        self.step, self.spent = state["step"], state["seconds"]
        self._started = self.clock()
        self._recorded = (self.step, time.monotonic())
        return state


def read_state(path: Path) -> dict[str, Any]:
    """The state of a run, from its `state.pt`. Raises BadCheckpoint."""
    if not path.is_file():
        raise BadCheckpoint(f"{path}: no such file; give the state.pt of a run")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError) as error:
        raise BadCheckpoint(f"{path}: not the state of a run: {error or 'the file is empty'}") from None
    if not isinstance(state, dict):
        raise BadCheckpoint(f"{path}: not the state of a run")
    return state


def averaged_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The averaged weights of a flow run's state; those of a compact state are the only ones it has."""
    weights: dict[str, Tensor] = state.get("averaged") or state["networks"]
    return weights


def compact(state: Path, output: Path) -> int:
    """Write a small copy of a flow run's state.pt for a repository; returns its size in bytes.

    A run resumes or starts from it with its averaged weights (in float16), its tokenizer and its step. The
    optimizer's momenta and the pool of examples are omitted; the run rebuilds them within some hundred steps.
    Raises BadCheckpoint.
    """
    saved = read_state(state)
    compacted: dict[str, object] = {
        name: value for name, value in saved.items() if isinstance(value, int | float | str)
    }
    for name in WEIGHTS:
        if name in saved:
            weights = averaged_weights(saved) if name == "networks" else saved[name]
            compacted[name] = {key: weight.half() for key, weight in weights.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_suffix(".part")
    torch.save(compacted, part)
    part.replace(output)
    return output.stat().st_size


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
