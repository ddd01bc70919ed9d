"""Ratios measured side by side in one process, run by hand: `python -m benchmarks.NAME`."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # one thread for every rival; must stand before the first import of numpy or torch
