"""Rows of the claim about value-gradient flow: its Gaussian laws against budgets, the best transport and KL tilts."""

import math

import numpy as np
import torch

from figures.harness.rows import Row, at_most, equals, report, vanishes
from figures.measures.value_flow import QuadraticProblem, nearest_tilt
from theory.continuous.gaussian_flow import (
    beta_of_kl,
    flow,
    flow_kl,
    multiplier_of_distance,
    path_length,
    proximal,
    tilted,
)
from theory.continuous.gaussians import Gaussian, gaussian_kl, mean_value, second_moment, w2

BOUND, CLOSED = "budget bounds W2", "closed W2"
SOME_BETA, KL_BUDGET = "KL-regularised for some beta", "KL bounded by the budget"
HEADROOM, BEST_MAP = "gain <= KL headroom", "no law at its W2 earns more than the proximal one"
SQUARE = "one direction: Cov_flow Cov_ref = Cov_KL^2"
DISTANCE, DIVERGENCE, LOSS = "W2 over its bound", "KL from the reference", "share lost to the proximal map"  # reported
EXACT_DISTANCE, EXACT_DIVERGENCE = "exact " + DISTANCE, "exact " + DIVERGENCE
ROUNDING, NEAR = 1e-9, 1e-6  # of exact answers; of a law that would be the nearest tilt
TIMES, _LATE = (0.1, 0.3, 1.0, 3.0), 1e3
_CURVE = np.geomspace(0.03, 30, 31)


def law_rows(problem: QuadraticProblem, labels: Row) -> list[Row]:
    """The flow's laws against budgets, against the best transport and against KL tilts."""
    given = (problem.R, problem.a_star, problem.m, problem.S)
    most = math.sqrt(float(second_moment(Gaussian(problem.m, problem.S), problem.a_star).trace()))
    start, rows = mean_value(*given), list[Row]()
    tightest = float(torch.linalg.eigvalsh(problem.S)[0])
    for t in (*TIMES, _LATE):
        law, own, kl = flow(*given, t), labels | {"t": t}, flow_kl(*given, t)
        moved, length = w2(problem.m, problem.S, law.mean, law.covariance), path_length(*given, t)
        rows += equals(CLOSED, moved, law.distance, tolerance=ROUNDING * most, labels=own)
        rows += at_most(BOUND, moved, min(length, most), tolerance=ROUNDING * most, labels=own)
        # a translation by W2, in the worst direction, has this divergence
        rows += at_most(KL_BUDGET, kl, min(length, most) ** 2 / (2 * tightest), labels=own)
        if t == _LATE:  # all laws are at a* here
            continue
        rows += vanishes(SOME_BETA, nearest_tilt(problem, law), NEAR, labels=own)
        gain = mean_value(problem.R, problem.a_star, law.mean, law.covariance) - start
        tilt, best = tilted(*given, beta_of_kl(*given, kl)), proximal(*given, multiplier_of_distance(*given, moved))
        gains = [mean_value(problem.R, problem.a_star, x.mean, x.covariance) - start for x in (tilt, best)]
        rows += at_most(HEADROOM, gain / gains[0], 1.0, tolerance=ROUNDING, labels=own)
        rows += at_most(BEST_MAP, gain / gains[1], 1.0, tolerance=ROUNDING, labels=own)
        rows += report(LOSS, 1 - gain / gains[1], labels=own)
        if t <= 1:  # later, rounding decides what is left of the covariance
            rows += report(DIVERGENCE, gaussian_kl(law.mean, law.covariance, problem.m, problem.S), kl, labels=own)
        rows += report(DISTANCE, moved / most, law.distance / most, labels=own)
    return rows + _curve_rows(problem, most, labels)


def _curve_rows(problem: QuadraticProblem, most: float, labels: Row) -> list[Row]:
    """Both distances on a fine grid of times, for the picture."""
    given, rows = (problem.R, problem.a_star, problem.m, problem.S), list[Row]()
    for t in _CURVE.tolist():
        own = labels | {"t": t}
        rows += report(EXACT_DISTANCE, flow(*given, t).distance / most, labels=own)
        rows += report(EXACT_DIVERGENCE, flow_kl(*given, t), labels=own)
    return rows


def direction_rows(problem: QuadraticProblem, labels: Row) -> list[Row]:
    """One direction: the beta that matches the mean of the flow, and both covariances."""
    given, rows = (problem.R, problem.a_star, problem.m, problem.S), list[Row]()
    for t in TIMES:
        law = flow(*given, t)
        beta = 2 * float(problem.R * problem.S) / math.expm1(2 * float(problem.R) * t)
        tilt = tilted(*given, beta)
        rows += equals(SQUARE, tilt.mean, law.mean, tolerance=ROUNDING, labels=labels | {"t": t}, axes=("entry",))
        ratio = float(law.covariance * problem.S / tilt.covariance**2)
        rows += equals(SQUARE, ratio, 1.0, tolerance=ROUNDING, labels=labels | {"t": t})
    return rows
