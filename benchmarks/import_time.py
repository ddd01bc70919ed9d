"""Seconds of `import figures`, and of the command `figures.cli`, in a fresh interpreter against those of `import torch`."""

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.timing import interleave, median_ratio, report

ROUNDS, TARGET = 11, 1.3


def importing(package: str) -> Callable[[], object]:
    """A fresh interpreter that imports one package and ends."""
    return lambda: subprocess.run([sys.executable, "-c", f"import {package}"], check=True)


def main() -> None:
    """Measure and print."""
    rivals = {package: importing(package) for package in ("figures", "figures.cli", "torch")}
    seconds = interleave(rivals, ROUNDS, clock=time.perf_counter)  # the work is done in other processes
    for package in ("figures", "figures.cli"):
        report(f"import {package} against import torch", median_ratio(seconds, package, "torch"), TARGET, at_most=True)


if __name__ == "__main__":
    main()
