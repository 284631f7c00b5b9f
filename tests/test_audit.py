"""What `make audit` makes of the answers of pip-audit, which a stand-in gives here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.imports import ROOT

CLEAN = '{"name": "a", "version": "1", "vulns": []}'
FAULTY = '{"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}'
UNKNOWN = '{"name": "c", "skip_reason": "not found"}'
OFFLINE = "requests.exceptions.ConnectionError: Failed to resolve"


@pytest.mark.parametrize(
    ("dependencies", "complaint", "code", "says"),
    [
        ([CLEAN, UNKNOWN], "", 0, "Known vulnerabilities: 0; 1 of 2 packages audited"),
        ([CLEAN, FAULTY], "", 1, "b 2: CVE-1, fixed in 2.1"),
        ([UNKNOWN, UNKNOWN], "", 0, "Not audited"),
        (None, OFFLINE, 0, "Not audited"),
        (None, "invalid requirements input", 1, "invalid requirements input"),
    ],
    ids=["clean", "vulnerable", "nothing known", "offline", "failed"],
)
def test_only_a_known_vulnerability_fails(tmp_path, dependencies, complaint, code, says):
    answer = "" if dependencies is None else f'{{"dependencies": [{", ".join(dependencies)}]}}'
    (tmp_path / "pip_audit.py").write_text(
        f"import sys\nprint({answer!r}, end='')\nsys.exit({complaint!r} or {int(FAULTY in answer)})\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, ".ci/audit.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code and says in done.stdout + done.stderr
