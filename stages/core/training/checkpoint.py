"""Checkpoints of a long computation. They lie outside the outputs that DVC deletes, and are whole or not there.

A checkpoint lives in `.ckpt/<stage>/<fingerprint of everything the result depends on>`, so a run with other parameters
or inputs never finds it. It carries a checksum, and is renamed into place when it is whole. A lock keeps two processes
from sharing it. The second one waits until the first has ended, and says so. A killed DVC leaves its stage running, so
a stage can be its own second process.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from torch import Tensor

from stages.core.run import faults, outs, tensors
from stages.core.run.compute import Ranks

ROOT_DPATH = Path(".ckpt")
STATE_FNAME = "state.safetensors"


class Checkpoint:
    """The saved state of one computation: tensors by name, in one file, so that an interrupted run can continue.

    Use as a context manager. The context creates the folder and keeps other processes from using the checkpoint.
    directory: folder that only this computation uses.
    every_seconds: time between two saves. The method `due` tells whether this time has passed.
    """

    def __init__(self, directory: Path, every_seconds: float = 60.0):
        self.directory, self.every_seconds = directory, every_seconds
        self._fpath = directory / STATE_FNAME
        self._lock = FileLock(directory.with_suffix(".lock"))
        self._saved_at = time.monotonic()

    @classmethod
    def for_inputs(cls, stage: str, **inputs: Any) -> Checkpoint:
        """Return the checkpoint in `.ckpt/<stage>/<hash of the inputs>`. Nothing is created or read yet.

        stage: name of the pipeline stage.
        inputs: all that the result depends on (parameters, hashes, versions), as JSON values by name. If an input
            differs, the checkpoint is another one.
        """
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        return cls(ROOT_DPATH / stage / digest[:32])

    def __enter__(self) -> Checkpoint:
        self.directory.mkdir(parents=True, exist_ok=True)
        outs.acquire(self._lock, self.directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @contextmanager
    def held_by_first(self, ranks: Ranks) -> Iterator[None]:
        """Open the context of this checkpoint for processes that train one SAE together. Every process must call this.

        The first process creates the folder and keeps other runs from using the checkpoint. The others wait until the
        first process has done so.
        ranks: number of this process, and number of processes that share the training.
        """
        with self if ranks.first else nullcontext():
            ranks.wait()
            yield

    def for_seed(self, seed: int) -> Checkpoint:
        """Return a checkpoint of its own for one random seed. This creates the folder `seed<seed>` inside `directory`.

        seed: the seed of a training.
        Call this inside the context of the present checkpoint. Its lock then protects the new checkpoint too.
        The method `done` of the present checkpoint removes both.
        """
        own = Checkpoint(self.directory / f"seed{seed}", self.every_seconds)
        own.directory.mkdir(parents=True, exist_ok=True)
        return own

    def load(self) -> dict[str, Tensor] | None:
        """Return the state saved last: tensors on the CPU, by name.

        Returns None if no state was saved, if the file is damaged, or if the checksum of the file is wrong. Raises
        PermissionError if the file may not be read: the training that it holds is not lost.
        """
        try:
            state, metadata = tensors.read(self._fpath)
            return state if metadata.get("sha256") == _sha256(state) else None
        except (OSError, SafetensorError) as error:
            if faults.of_machine(error):
                raise
            return None

    def due(self) -> bool:
        """Tell whether at least `every_seconds` have passed since the last save, or since this object was made."""
        return time.monotonic() - self._saved_at >= self.every_seconds

    def save(self, state: dict[str, Tensor]) -> None:
        """Replace the saved state by `state`, tensors by name. Raises DiskFull if the disk has no space left.

        After a crash at any moment, either the old state or the new one is there.
        """
        with outs.atomic_output(self._fpath) as unfinished:
            tensors.write(unfinished, state, {"sha256": _sha256(state)})
        self._saved_at = time.monotonic()

    def done(self) -> None:
        """Remove the checkpoint's folder. Call this when the result of the computation is written."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _sha256(state: dict[str, Tensor]) -> str:
    """Hash of the names, types, shapes and values of a state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
