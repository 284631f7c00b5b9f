"""Where numbers are computed: device, threads, deterministic kernels."""

from __future__ import annotations

import os

import torch

from stages.core.params import Compute, Precision


class DeviceError(SystemExit):
    """The device asked for is not there."""


def set_up(compute: Compute) -> torch.device:
    """Fix the thread count and deterministic kernels, and choose the device."""
    if compute.threads:
        torch.set_num_threads(compute.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("compute.device is cuda, but torch finds no GPU; use auto or cpu")
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # as torchrun numbers its processes
    torch.cuda.set_device(device)
    return device


def matmul_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Operands of matrix products; `auto` is bfloat16 where the processor multiplies it natively."""
    if precision == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.float32 if precision == "float32" else torch.bfloat16
