"""Processes that share one computation: `torchrun` starts them, alone there is one.

Each rank takes its share of every batch; sums run over all ranks. Only rank 0 writes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of n consecutive things."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def sum(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over ranks."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def max(self, tensor: Tensor) -> None:
        """Replace a tensor by its element-wise maximum over ranks."""
        if self.size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def joined(self, rows: Tensor) -> Tensor:
        """Every rank's rows, in order of rank."""
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        self.sum(counts)
        whole = rows.new_empty(int(counts.sum()), *rows.shape[1:])
        for rank, part in enumerate(whole.split(counts.tolist())):
            if rank == self.rank:
                part.copy_(rows)
            if len(part):
                dist.broadcast(part, src=rank)
        return whole

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()


def stop() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def start(device: torch.device) -> Ranks:
    """Join the processes that `torchrun` started; a process started by itself is alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), size)
