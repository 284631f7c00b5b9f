"""Where numbers are computed: device, threads, deterministic kernels."""

from __future__ import annotations

import torch

from stages.core.params import Compute


class DeviceError(SystemExit):
    """The device asked for is not there."""


def set_up(compute: Compute) -> torch.device:
    """Fix the thread count and deterministic kernels, and choose the device."""
    if compute.threads:
        torch.set_num_threads(compute.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("compute.device is cuda, but torch finds no GPU; use auto or cpu")
    return torch.device("cuda" if compute.device != "cpu" and torch.cuda.is_available() else "cpu")
