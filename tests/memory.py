"""The most memory that a stage takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.studies import ENV

HONEST = {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # glibc gives back at once what is freed of more bytes than these


def peak(folder: Path, *stage: str) -> int:
    """Bytes at the peak of `python -m stages.<stage>`, run in a study: of what it holds, not of what glibc keeps by
    chance, which was up to a third of a GiB between runs of one stage on the same data."""
    process = subprocess.Popen(
        [sys.executable, "-m", *stage],
        cwd=folder,
        env=ENV | HONEST,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = process.stderr.read()  # to its end, which is the end of the process
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    assert process.returncode == 0, said.decode()[-2000:]
    return usage.ru_maxrss * 1024
