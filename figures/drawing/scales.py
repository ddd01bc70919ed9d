"""Log axes on which a zero is drawn at zero."""

import math
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

_MOST_TICKS = 7  # besides 0
_ROUNDING = 1e-17  # a relative gap below this is rounding, whatever its digits: no ticks there
_BELOW = 0.35  # of a decade: how far the axis reaches below 0, so that marks at 0 are whole


def log_with_zero(axis: Any, values: Any, side: str = "y") -> None:
    """A log scale for numbers >= 0, at whose end lies 0 itself where some of them are 0.

    Below the smallest positive number, rounded down to a power of ten and at least 1e-17, the scale is linear, one decade long
    and ends at 0. Where no number is smaller it is a log scale, where none is positive a linear one.

    Args:
        axis: where to draw.
        values: all numbers that are drawn on it, limits included.
        side: "x" or "y".
    """
    numbers = np.asarray(values, dtype=float)
    positive = numbers[numbers > 0]
    if not len(positive):
        axis.set(**{f"{side}lim": (-0.05, 1.0), f"{side}ticks": [0.0]})
        return
    low = math.floor(math.log10(max(positive.min(), _ROUNDING)))
    high = math.ceil(math.log10(positive.max()))
    if numbers.min() >= 10.0**low:
        axis.set(**{f"{side}scale": "log"})
        return
    axis.set(**{f"{side}lim": (-_BELOW * 10.0**low, 3 * float(positive.max()))})
    getattr(axis, f"set_{side}scale")("symlog", linthresh=10.0**low, linscale=1.0)
    side_axis = getattr(axis, f"{side}axis")
    side_axis.set_major_locator(FixedLocator([0.0, *(10.0**k for k in _decades(low, high))]))
    side_axis.set_minor_locator(NullLocator())


def _decades(low: int, high: int) -> list[int]:
    """Exponents of the ticks, the largest first, at equal steps; the one beside 0 is left out where there are many."""
    step = max(1, math.ceil((high - low + 1) / _MOST_TICKS))
    return [k for k in range(high, low - 1, -step) if k > low or step == 1]
