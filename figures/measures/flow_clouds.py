"""Rows of the claim about value-gradient flow: clouds of particles, by plain steps and by Adam as in the official code."""

import math

import torch

from agents.sampling.particle_flow import OPTIMISERS, Gradient, adam_reach, particle_flow
from figures.harness.rows import Row, at_least, at_most, equals, report, vanishes
from figures.measures.flow_laws import CLOSED, ROUNDING, TIMES
from figures.measures.value_flow import QuadraticProblem, alpha_gap, cloud_distance, moments
from theory.continuous.gaussian_flow import flow
from theory.continuous.gaussians import mean_value

TRANSLATED, CENTRED = "infinite bandwidth: covariance kept", "repulsion leaves the mean"
ADAM, PLAIN = "alpha matters with Adam, one particle", "alpha matters with plain steps"
REACH, OFF_CENTRE = "Adam stays within its reach", "repulsion leaves the mean with Adam"
OFFICIAL = "gain of ten particles"  # reported
RATE, STEPS, ALPHAS = 0.05, 3, (0.1, 1.0, 10.0)  # within the range of the official code
_EULER, _TEN = 32, 10
_CLEAR = 0.1  # a difference of ends that matters, as a share of the move


def cloud_rows(problem: QuadraticProblem, count: int, rng: torch.Generator, labels: Row) -> list[Row]:
    """Clouds that move by their own gradients, all alike, or by repulsion alone; ten particles as in the official code."""
    cloud, rows = problem.cloud(count, rng), list[Row]()
    mean, covariance = moments(cloud)
    size = float(covariance.trace().sqrt())
    for t in TIMES[:3]:
        end = particle_flow(problem.gradient, cloud, t * count / _EULER, _EULER, bandwidth=0.0)[-1]
        exact = flow(problem.R, problem.a_star, mean, covariance, t, steps=_EULER).distance
        own = labels | {"t": t, "law": "cloud"}
        rows += equals(CLOSED, cloud_distance(cloud, end), exact, tolerance=ROUNDING * size, labels=own)
    together = particle_flow(problem.gradient, cloud, RATE, STEPS, bandwidth=math.inf)[-1]
    gap = (moments(together)[1] - covariance).norm() / covariance.norm()
    rows += vanishes(TRANSLATED, gap, ROUNDING, labels=labels)
    for part, optimiser in zip((CENTRED, OFF_CENTRE), OPTIMISERS, strict=True):
        move = particle_flow(torch.zeros_like, cloud[:_TEN], RATE, STEPS, optimiser=optimiser)[-1] - cloud[:_TEN]
        rows += vanishes(part, move.mean(0).norm() / move.norm(), ROUNDING, labels=labels)
    return rows + alpha_rows(problem.gradient, cloud[0], labels) + _official_rows(problem, cloud[:_TEN], labels)


def alpha_rows(gradient: Gradient, start: torch.Tensor, labels: Row) -> list[Row]:
    """Whether the end of one particle depends on alpha, by Adam and by plain steps."""
    rows = at_least(ADAM, alpha_gap(gradient, start, RATE, STEPS, "adam"), _CLEAR, labels=labels)
    return rows + at_least(PLAIN, alpha_gap(gradient, start, RATE, STEPS, "plain"), _CLEAR, labels=labels)


def _official_rows(problem: QuadraticProblem, cloud: torch.Tensor, labels: Row) -> list[Row]:
    """Ten particles with the median bandwidth by both optimisers: the gain in mean value, and how far a coordinate moves."""
    rows, before = list[Row](), mean_value(problem.R, problem.a_star, *moments(cloud))
    for optimiser in OPTIMISERS:
        for alpha in ALPHAS:
            end = particle_flow(problem.gradient, cloud, RATE, STEPS, alpha, optimiser=optimiser)[-1]
            own = labels | {"optimiser": optimiser, "alpha": alpha}
            gain = mean_value(problem.R, problem.a_star, *moments(end)) - before
            rows += report(OFFICIAL, gain, labels=own)
            if optimiser == "adam":
                reach = adam_reach(RATE, STEPS)
                rows += at_most(REACH, (end - cloud).abs().max(), reach, tolerance=ROUNDING, labels=own)
    return rows
