"""Change one parameter, and record what DVC prints -> a page to follow in one's own terminal.

    python -m stages.studies.transcript train_sae.target_l0=12

writes   stages/studies/transcript.md, and dvc_plots/index.html with the plots of both runs together

Start from a committed run. The experiment is kept under its name; parameters and results are restored afterwards.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE_FPATH = Path(__file__).with_name("transcript.md")
NAME = "changed"
SHOWN = ("metrics/train_sae", "metrics/analyse_sae", "metrics/select_sae.json", "metrics/describe_latents.json")
HEAD = """\
# Change one parameter, read the difference

Made by `python -m stages.studies.transcript {change}` on a clean clone after `make repro`.
The output of the stages is left out; only DVC's lines are kept.
"""


def steps(change: str) -> dict[str, list[str]]:
    """List the commands that run the pipeline with one parameter changed, and compare the results before and after.

    change: the parameter and its new value, such as `train_sae.target_l0=12`.
    Returns a dictionary in the order of the steps. A key is the text that explains a step; its value lists the commands
    of the step.
    """
    return {
        "Run the study with one parameter changed. Stages that do not read it are not run again.": [
            f"dvc exp run --name {NAME} -S {change}"
        ],
        "What was changed?": ["dvc params diff"],
        "How did the finding change?": ["dvc metrics diff --targets metrics/ablate.json"],
        "How did the SAEs and their latents change? `dvc metrics diff` alone compares all numbers.": [
            f"dvc metrics diff --recursive --targets {' '.join(SHOWN)}"
        ],
        "The same as plots: curves of both runs on the same axes, images side by side.": ["dvc plots diff HEAD"],
        "Restore the state before the experiment. `dvc exp apply` would bring the experiment back.": [
            "git checkout --quiet .",
            "dvc checkout --quiet",
            "dvc status",
        ],
    }


def said(command: str) -> str:
    """Run a command, and return what it prints. If the command fails, end this process with its output.

    command: program and arguments, separated by spaces.
    In the text returned, "..." stands for the path of the working directory. For `dvc exp run`, the text has only DVC's
    own lines.
    """
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    text = done.stdout.replace(str(Path.cwd()), "...")
    if " exp run " in command:
        kept = r"(Running stage|Stage '.*' (is cached|didn't change)|Ran experiment|Experiment results)"
        text = "\n".join(line for line in text.splitlines() if re.match(kept, line))
    return text.rstrip()


def main() -> None:
    if len(sys.argv) != 2 or "=" not in sys.argv[1]:
        raise SystemExit("usage: python -m stages.studies.transcript SECTION.KEY=VALUE")
    if subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout:
        raise SystemExit("git status is not clean: commit the run that the change is to be compared with")
    parts = [HEAD.format(change=sys.argv[1])]
    for why, commands in steps(sys.argv[1]).items():
        shown = "\n".join(f"$ {command}\n{said(command)}".rstrip() for command in commands)
        parts.append(f"{why}\n\n```console\n{shown}\n```\n")
    PAGE_FPATH.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
