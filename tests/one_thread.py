"""One thread for the tests, and for each process that they start: two pytest processes share the cores of a machine.

Threads that wait for one another keep their core busy. With two threads in each process, 200 steps of SAE training took
26.8 s of processor time beside other work on two cores, and 5.1 s with one thread.
"""

import os

N_THREADS = 1
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(N_THREADS)))
