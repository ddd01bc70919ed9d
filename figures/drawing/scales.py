"""Log axes on which a zero is drawn at zero."""

import math
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

_MOST_TICKS = 7  # besides 0
_BELOW = 0.35  # of a decade: how far the axis reaches below 0, so that marks at 0 are whole


def log_with_zero(axis: Any, values: Any, side: str = "y", rounding: float = 1e-17) -> None:
    """A log scale for numbers >= 0, at whose end lies 0 itself where some of them are 0.

    Below the smallest positive number, rounded down to a power of ten, the scale is linear, one decade long and ends at 0.
    Where no number is smaller it is a log scale, where none is positive a linear one.

    Args:
        axis: where to draw.
        values: all numbers that are drawn on it, limits included.
        side: "x" or "y".
        rounding: numbers up to this size do not count as positive ones: they are drawn in the linear part.
    """
    numbers = np.asarray(values, dtype=float)
    positive = numbers[numbers > rounding]
    if not len(positive):
        axis.set(**{f"{side}lim": (-0.05, 1.0), f"{side}ticks": [0.0]})
        return
    low, high = math.floor(math.log10(positive.min())), math.ceil(math.log10(positive.max()))
    if len(positive) == len(numbers):
        axis.set(**{f"{side}scale": "log"})
        return
    axis.set(**{f"{side}lim": (-_BELOW * 10.0**low, 3 * float(positive.max()))})
    getattr(axis, f"set_{side}scale")("symlog", linthresh=10.0**low, linscale=1.0)
    one = getattr(axis, f"{side}axis")
    one.set_major_locator(FixedLocator([0.0, *(10.0**k for k in _decades(low, high))]))
    one.set_minor_locator(NullLocator())


def _decades(low: int, high: int) -> list[int]:
    """Exponents of the ticks, multiples of one step; the one beside 0 is left out where there are many."""
    step = max(1, math.ceil((high - low + 1) / _MOST_TICKS))
    return [k for k in range(low, high + 1) if k % step == 0 and (k > low or step == 1)]
