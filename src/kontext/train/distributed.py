"""One run in several processes: each learns from examples of its own, all have the same weights.

`torchrun --nproc-per-node 2 -m kontext train flow ...` starts them and tells each its rank; without it a run
is one process. One exchange a step averages the gradients and carries the clock of the first process, so that
all agree on the learning rate and on the end. Only the first one writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kontext.errors import BadConfig

RANK_SEED_STRIDE = 100_000_000
"""Between the first examples of neighboring ranks."""


class Distributed:
    """This process among those of a run."""

    def __init__(self, device: torch.device):
        """Waits for the other processes. device: where the gradients are; "cuda" takes the rank's own."""
        self.rank, self.world_size = int(os.environ.get("RANK", "0")), world_size()
        self._start, self._shared_clock = time.monotonic(), 0.0
        if self.world_size > 1:
            if device.type == "cuda":
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def clock(self) -> float:
        """Seconds from a fixed moment; with several processes those of the first at the last exchange."""
        return time.monotonic() if self.world_size == 1 else self._shared_clock

    def split(self, name: str, total: int) -> int:
        """This process' part of a number. Raises BadConfig where it does not divide evenly."""
        if total % self.world_size:
            raise BadConfig(f"{name} = {total} cannot be divided among {self.world_size} processes")
        return total // self.world_size

    def barrier(self) -> None:
        """Wait until all are here."""
        if self.world_size > 1:
            dist.barrier()

    @torch.no_grad()
    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the mean of all gradients; all must have them for the same parameters."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        now = time.monotonic() - self._start if self.is_main else 0.0
        clock = gradients[0].new_tensor([now], dtype=torch.float32)
        buffer: Tensor = torch.cat([*(g.float().flatten() for g in gradients), clock])
        dist.all_reduce(buffer)
        *means, clock = buffer.split([*(g.numel() for g in gradients), 1])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient) / self.world_size)
        self._shared_clock = clock.item()

    def close(self) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()


def world_size() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def require_single_process(what: str) -> None:
    """Raises BadConfig where a run that knows one process only was started in several."""
    if world_size() > 1:
        raise BadConfig(f"{what} is trained in one process; start it without torchrun")
