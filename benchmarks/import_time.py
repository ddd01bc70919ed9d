"""Seconds of `import figures` in a fresh interpreter against `import torch`, which it cannot do without."""

import subprocess
import sys
from collections.abc import Callable

from benchmarks.timing import interleave, median_ratio, report

ROUNDS, TARGET = 11, 1.3


def importing(package: str) -> Callable[[], object]:
    """A fresh interpreter that imports one package and ends."""
    return lambda: subprocess.run([sys.executable, "-c", f"import {package}"], check=True)


def main() -> None:
    """Measure and print."""
    seconds = interleave({package: importing(package) for package in ("figures", "torch")}, ROUNDS)
    report("import figures against import torch", median_ratio(seconds, "figures", "torch"), TARGET, at_most=True)


if __name__ == "__main__":
    main()
