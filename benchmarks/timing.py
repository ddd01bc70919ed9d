"""Interleaved timing: the rivals take turns in one process, so that a slow spell of the machine hits them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

torch.set_num_threads(1)
Seconds = dict[str, list[float]]


def interleave(
    rivals: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> Seconds:
    """Seconds of every rival in every round, after one untimed round to warm up.

    By default of this process's processor: what other programs take does not count.
    """
    seconds: Seconds = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name, run in rivals.items():
            start = clock()
            run()
            if turn:
                seconds[name].append(clock() - start)
    return seconds


def median_ratio(seconds: Seconds, slow: str, fast: str) -> float:
    """Median over the rounds of seconds(slow) / seconds(fast): how many times faster `fast` is."""
    return statistics.median(s / f for s, f in zip(seconds[slow], seconds[fast], strict=True))


def check(what: str, error: float, tolerance: float) -> None:
    """The rivals must compute the same thing, or their speeds say nothing."""
    if not error <= tolerance:
        raise SystemExit(f"{what}: differs by {error:.3g}, more than {tolerance:g}")


def report(what: str, ratio: float, target: float | None = None, at_most: bool = False) -> None:
    """One line: the measured ratio, and the target, if there is one, and whether it is met."""
    line = f"{what:<64} {ratio:8.2f}x"
    if target is not None:
        met = ratio <= target if at_most else ratio >= target
        line += f"   target {'<=' if at_most else '>='} {target:g}x   {'met' if met else 'MISSED'}"
    print(line)
