"""The stages, one module for each node of dvc.yaml.

OpenMP's threads spin for a while before they sleep. Its own choice, some milliseconds, lets them take the processor
from the very thread they wait for as soon as anything else runs: a training step of 14 ms took 656 ms beside one busy
process on two cores. A short spin took 20 ms there, and is as fast on a quiet machine; sleeping at once took 14 ms,
but costs a tenth there.

On a GPU, cuBLAS gives the same bits each time only with a workspace of fixed size.

Both have to be set before torch is imported.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
