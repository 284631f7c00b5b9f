"""Where numbers are computed: device, threads, deterministic kernels, and the processes that share the work.

`torchrun` starts several processes, called ranks. Each rank takes its share of a batch, of the batches or of the
shards. Only the first rank prints and writes small files. Without `torchrun` there is one rank (`ALONE`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from stages.core.run.errors import StudyError
from stages.core.schema import Compute, Precision

MEETING = timedelta(minutes=10)  # within which all ranks must have started
PATIENCE = timedelta(hours=24)  # of one rank for another, later: the first one may wait for a lock
LARGEST_PORT = 65536  # the first number that is no port; nor are there as many processes
START = "start several processes with torchrun, and one without WORLD_SIZE (`unset WORLD_SIZE`)"


class DeviceError(StudyError):
    """The device that params.yaml asks for does not exist."""


class RanksError(StudyError):
    """The environment variables that tell a process of its ranks make no sense. The message names the variable."""


def set_up_device(compute: Compute) -> torch.device:
    """Set the number of threads, switch deterministic kernels on, and return the device to compute on.

    compute: section `compute` of params.yaml. The device `auto` is a GPU if there is one. With 0 threads, torch keeps
        its own number of threads.
    With several processes, each process takes the GPU whose number is in the environment variable LOCAL_RANK.
    Raises DeviceError if params.yaml asks for `cuda` and there is no GPU, RanksError if LOCAL_RANK names no GPU.
    """
    if compute.threads:
        torch.set_num_threads(compute.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Otherwise torch fills each new tensor with NaN, which takes time and changes nothing: all are written before they
    # are read. torch makes this setting when it is imported, where mypy cannot see it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("compute.device is cuda, but torch finds no GPU; use auto or cpu")
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    _choose_deterministic_kernels()
    local = _whole_number("LOCAL_RANK", torch.cuda.device_count()) if "LOCAL_RANK" in os.environ else 0
    device = torch.device("cuda", local)  # as torchrun numbers its processes
    torch.cuda.set_device(device)
    return device


def _choose_deterministic_kernels() -> None:
    """Leave out kernels of CUDA that would only warn that they are not deterministic.

    They are the backward passes of two kinds of attention, and cuBLAS with a workspace that several streams share.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


def matmul_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the torch type for the operands of matrix products: float32 or bfloat16.

    precision: `float32`, `bfloat16` or `auto`. `auto` is bfloat16 if the hardware of `device` multiplies bfloat16
        natively, else float32.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    return torch.float32 if precision == "float32" else torch.bfloat16


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)  # emulated products are slow
    return torch.cpu._is_avx512_bf16_supported()


@dataclass(frozen=True)
class Ranks:
    """Place of this process among the processes that share the work.

    rank: number of this process, from 0. size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the first process, which prints and writes small files."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return the slice of n consecutive items that this process works on.

        The slices of all processes, in order of rank, cover the n items without overlap.
        """
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def sum(self, *tensors: Tensor) -> None:
        """Replace each tensor, in place, by its sum over processes.

        Every process must call this with the same shapes.
        """
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def max(self, tensor: Tensor) -> None:
        """Replace a tensor, in place, by its element-wise maximum over processes.

        Every process must call this with the same shape.
        """
        if self.size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def joined(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, joined along the first axis in order of rank. Every process must call this.

        rows: the rows of this process. The number of rows may differ between processes. The other axes must be equal.
        """
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
        """Block until every process has called this."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()


def join_ranks(device: torch.device) -> Ranks:
    """Connect this process to the others that `torchrun` started.

    Returns the number of this process (from 0) and the number of processes.
    device: decides how the processes communicate (NCCL between GPUs, else Gloo).
    A process that was started without `torchrun` gets number 0 of 1.
    Raises RanksError if an environment variable of `torchrun` is missing or wrong, or if the processes cannot reach
    each other.
    """
    size = _whole_number("WORLD_SIZE", LARGEST_PORT, 1) if "WORLD_SIZE" in os.environ else 1
    if size == 1:
        return ALONE
    _whole_number("RANK", size)
    _whole_number("MASTER_PORT", LARGEST_PORT)
    try:
        if not dist.is_initialized():
            _meet(device)
    except (dist.DistError, ValueError) as error:
        raise RanksError(f"The {size} processes cannot meet ({error}); {START}") from None
    return Ranks(dist.get_rank(), size)


def _meet(device: torch.device) -> None:
    """Connect the processes. One that the others do not find soon was started by mistake."""
    store, rank, size = next(dist.rendezvous("env://", timeout=MEETING))
    store.set_timeout(PATIENCE)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


def _whole_number(name: str, end: int, first: int = 0) -> int:
    """Value of an environment variable, which must be from `first` to `end` - 1."""
    given = os.environ.get(name, "")
    if not given.isdecimal() or not first <= int(given) < end:
        found = f"is {given!r}" if name in os.environ else "is not set"
        raise RanksError(f"The environment variable {name} {found}, not a number from {first} to {end - 1}; {START}")
    return int(given)


def leave_ranks() -> None:
    """Close the connection to the other processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
