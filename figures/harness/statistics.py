"""Means with standard errors, and the tests behind every verdict.

A *part* of a claim is a family of comparisons judged together. Each row compares a measured number with a target:
`==` (equal), `>=` or `<=`. The family's error rate is ERROR_RATE, split evenly over its rows (Bonferroni), with
Student's t quantiles: a true part is called false about once in 1 / ERROR_RATE runs at most, however many rows it has and
however they depend on each other. (About: sample means are taken to be normal, which needs many samples where tails are
heavy.) A part that is documented to fail must fail in every group of its rows, so that no control rests on one easy case.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from envs.world import InputError

Outcome = Literal["holds", "fails", "undecided", "not judged"]  # the last on part of a claim's settings alone
ERROR_RATE = 1e-3
_LARGEST_SHARE = 1e9  # stands for "infinitely far": a wrong number known without any error


@dataclass(frozen=True)
class Estimate:
    """Mean over samples, its standard error, and their number; arrays of one shape."""

    mean: np.ndarray
    standard_error: np.ndarray
    samples: int

    def __getitem__(self, index: Any) -> "Estimate":
        """Some of its entries."""
        return Estimate(np.asarray(self.mean[index]), np.asarray(self.standard_error[index]), self.samples)


def estimate(values: Any) -> Estimate:
    """Mean and standard error of per-sample values, samples along the first axis; a torch tensor or an array."""
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    if len(array) < 2:
        raise InputError(f"samples must be >= 2 for a standard error; got {len(array)}")
    return Estimate(array.mean(0), array.std(0, ddof=1) / math.sqrt(len(array)), len(array))


def pooled(parts: Iterable[Estimate]) -> Estimate:
    """The estimate of all samples together from the estimates of batches (exact, not an average of errors)."""
    parts = list(parts)
    counts = np.array([part.samples for part in parts], dtype=np.float64)
    shape = (-1,) + (1,) * np.ndim(parts[0].mean)
    means, total = np.stack([part.mean for part in parts]), counts.sum()
    variances = np.stack([part.standard_error**2 * part.samples for part in parts])
    mean = (counts.reshape(shape) * means).sum(0) / total
    within = ((counts - 1).reshape(shape) * variances).sum(0)
    between = (counts.reshape(shape) * (means - mean) ** 2).sum(0)
    return Estimate(mean, np.sqrt((within + between) / (total - 1) / total), int(total))


def batches(samples: int, size: int) -> Iterator[int]:
    """`samples` cut into batches of at most `size`, as even as possible: memory stays bounded at any sample size."""
    count = -(-samples // size)
    for i in range(count):
        yield samples * (i + 1) // count - samples * i // count


def critical_value(comparisons: int, samples: Any, error_rate: float = ERROR_RATE) -> np.ndarray:
    """Two-sided Student quantile such that `comparisons` tests together err with probability <= error_rate."""
    degrees = np.maximum(np.asarray(samples, dtype=np.float64) - 1, 1)
    quantile: np.ndarray = stdtrit(degrees, error_rate / (2 * comparisons))
    return -quantile


@dataclass(frozen=True)
class PartResult:
    """Outcome of one family of comparisons, its most telling row, and how fine it could see.

    `of_limit` is the worst row's deviation over the largest one allowed by chance and rounding (above 1: fails).
    `resolution` is the widest simultaneous interval, half width over the row's scale: a deviation beyond twice that
    would have been seen.
    """

    outcome: Outcome
    comparisons: int
    critical: float
    of_limit: float
    resolution: float
    worst: dict[str, Any]


def judge_part(rows: pd.DataFrame, error_rate: float = ERROR_RATE) -> PartResult:
    """Judge a family of rows with columns measured, target, standard_error, samples, scale, tolerance, margin, relation.

    `==`: *fails* when some simultaneous interval (widened by `tolerance`, for rounding) misses its target; else
    *undecided* when some interval is wider than `margin * scale`, too wide to have seen what matters; else *holds*.
    `>=`, `<=`: *holds* when all intervals lie on the right side (up to `tolerance`), *fails* when one lies wholly beyond.
    A family without rows is *undecided*.
    """
    if rows.empty:
        return PartResult("undecided", 0, 0.0, 0.0, 0.0, {})
    critical = critical_value(len(rows), rows["samples"], error_rate)
    chance, tolerance = np.asarray(critical * rows["standard_error"]), np.asarray(rows["tolerance"])
    gap = np.asarray(rows["measured"] - rows["target"])
    equal = np.asarray(rows["relation"] == "==")
    wrong_side = np.where(rows["relation"] == ">=", -gap, gap)
    excess, reach = np.where(equal, np.abs(gap), wrong_side), chance + tolerance
    blurred = np.where(equal, chance > rows["margin"] * rows["scale"], excess > tolerance - chance)
    if (excess > reach).any():
        outcome: Outcome = "fails"
    else:
        outcome = "undecided" if blurred.any() else "holds"
    share = excess / np.maximum(reach, 1e-300)
    worst = int(np.argmax(share))
    resolution = float((reach / np.maximum(rows["scale"], 1e-300)).max())
    return PartResult(
        outcome,
        len(rows),
        float(np.max(critical)),
        float(min(share[worst], _LARGEST_SHARE)),
        resolution,
        rows.iloc[worst].to_dict(),
    )
