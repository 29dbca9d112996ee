"""Data-parallel training: each process draws its own examples, all hold the same weights.

`torchrun --nproc-per-node 2 -m kontext train flow ...` starts the processes and sets their ranks; without it
a run is a single process. One all-reduce per step averages the gradients and broadcasts the clock of rank 0,
so that all processes agree on the learning rate and on the end of the run. Only rank 0 writes files.
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
"""Distance between the first seeds of neighboring ranks."""


class Distributed:
    """The rank of this process and the collective operations of a run."""

    def __init__(self, device: torch.device):
        """Join the process group. device: of the gradients; "cuda" selects the GPU of the local rank."""
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
        """Seconds since a fixed moment; with several processes the clock of rank 0 at the last all-reduce."""
        return time.monotonic() if self.world_size == 1 else self._shared_clock

    def split(self, name: str, total: int) -> int:
        """The share of this process in `total`; at least 1, unless that is 0.

        Raises BadConfig when a larger total does not divide evenly.
        """
        if 0 < total < self.world_size:
            return 1
        if total % self.world_size:
            raise BadConfig(f"{name} = {total} cannot be divided among {self.world_size} processes")
        return total // self.world_size

    def barrier(self) -> None:
        """Wait until all processes have arrived."""
        if self.world_size > 1:
            dist.barrier()

    @torch.no_grad()
    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients over all processes, which must have them for the same parameters."""
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
    """Number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def require_single_process(what: str) -> None:
    """Raises BadConfig when a run that supports a single process was started in several."""
    if world_size() > 1:
        raise BadConfig(f"{what} is trained in one process; start it without torchrun")
