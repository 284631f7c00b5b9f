"""A process that is held to the rights of files, as every user's is; those of root are not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

DROP = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--"]


def can_be_held() -> bool:
    """Whether `without_privileges` can keep its promise here."""
    if os.geteuid() != 0:
        return True
    return shutil.which(DROP[0]) is not None and subprocess.run([*DROP, "true"], check=False).returncode == 0


def without_privileges(command: list[str], folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with what it prints captured."""
    drop = DROP if os.geteuid() == 0 else []
    return subprocess.run([*drop, *command], cwd=folder, capture_output=True, text=True, check=False, **options)
