"""The stages, one module for each node of dvc.yaml.

Two environment variables are set here, because they must be set before torch is imported.

GOMP_SPINCOUNT: how long OpenMP's threads spin before they sleep, by default some milliseconds. Beside another process,
spinning threads take the processor from the very thread that they wait for: a training step of 14 ms took 656 ms beside
one busy process on two cores. With the short spin set here the step took 20 ms there, and on a quiet machine it is as
fast as by default. If threads sleep at once, the step takes 14 ms beside the busy process, but a tenth longer on a
quiet machine.

CUBLAS_WORKSPACE_CONFIG: on a GPU, cuBLAS gives the same bits each time only with a workspace of fixed size.

A command (`python -m stages.<stage>`) that meets a limit of the machine while it imports says so in one sentence. Later
faults are the business of `run_command`.
"""

import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

if sys.argv[:1] == ["-m"]:  # as Python has it while it looks for the module to run
    from stages.core.run import faults

    sys.excepthook = faults.show
