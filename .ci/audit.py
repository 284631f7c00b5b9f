"""Report the vulnerabilities that pip-audit knows for the packages in requirements.lock. `make audit` runs this file.

The exit code is 1 if a vulnerability is known. If no service answers, a message says so and the exit code is 0.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

OPTIONS = "--requirement requirements.lock --no-deps --disable-pip --format json --progress-spinner off"
UNREACHABLE = re.compile(r"requests\.exceptions|ServiceError|vulnerability feed|redirecting")


def report() -> list[dict[str, Any]] | None:
    """A row per package; None if the service does not answer. Raises SystemExit if pip-audit fails otherwise."""
    command = [sys.executable, "-m", "pip_audit", *OPTIONS.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stdout:
        return json.loads(done.stdout)["dependencies"]
    if UNREACHABLE.search(done.stderr):
        return None
    raise SystemExit(f"pip-audit failed:\n{done.stderr}")


def main() -> int:
    packages = report() or []
    audited = [package for package in packages if "vulns" in package]  # the service does not know the others
    if not audited:
        print("Not audited: no vulnerability service answers")
        return 0
    found = [(package, fault) for package in audited for fault in package["vulns"]]
    for package, fault in found:
        fixed = ", ".join(fault["fix_versions"]) or "no release"
        print(f"{package['name']} {package['version']}: {fault['id']}, fixed in {fixed}")
    print(f"Known vulnerabilities: {len(found)}; {len(audited)} of {len(packages)} packages audited")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
