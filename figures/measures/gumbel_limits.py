"""Relaxed tokens at one step, exactly: the identity of both gradients, limits in tau, the three scores, the crossing."""

import torch

from figures.harness.rows import Labels, Row, at_least, at_most, equals, report, vanishes
from figures.measures.gumbel_bridge import (
    OneStep,
    both_rules,
    exact_spreads,
    extrapolated,
    hard_scores,
    hard_squares,
    moments,
)
from theory.tokens.gumbel_limits import leading_crossing, score_fisher, score_moments, small_tau, table_curvature
from theory.tokens.gumbel_moments import crossing, relaxed_moments

SAME, SLOPE, CURVATURE = "score = pathwise at every tau", "bias: slope -tr(M J(p))", "table: bias of order 2"
GROWTH, SCORES, LENGTHS = "pathwise spread grows as 1/tau", "three scores, one mean", "lengths of the three scores"
LATE, CROSSING = "crossing above tau = 1/6", "spreads cross"
LINEAR, FISHER, BEATS = "table: bias linear in tau", "Concrete Fisher is the token's", "pathwise beats REINFORCE at .1"
_ROUNDING, _LIMIT = 1e-8, 1e-4  # relative, of the quadrature; of the extrapolation to tau = 0
_GRID = (0.03, 0.1, 0.3, 1.0, 3.0)  # temperatures at which both gradients are compared


def every_reward(step: OneStep, labels: Labels) -> list[Row]:
    """Score = pathwise by every quadrature, the growth of the pathwise spread, and the three scores with a hard reward."""
    rows, size, limits = list[Row](), step.gradient_size, small_tau(step.p, step.reward, 2 * step.M)
    for tau in _GRID:
        for rule, noise in both_rules(step, tau):
            found = relaxed_moments(step.p, step.reward, tau, rule=noise)
            gap = (found.pathwise - found.score).norm() / size
            rows += vanishes(SAME, gap, _ROUNDING, labels={**labels, "rule": rule, "tau": tau})
    grown = extrapolated(lambda tau: torch.tensor(tau * moments(step, tau).pathwise_square))
    rows += equals(GROWTH, grown / limits.pathwise, 1.0, tolerance=_LIMIT, labels=labels)
    wanted, lengths = score_fisher(step.p), score_moments(step.p, step.paid, step.J)
    squares = hard_squares(step)
    for (score, (mean, fisher)), own in zip(hard_scores(step).items(), wanted, strict=True):
        here = {**labels, "score": score}
        rows += equals(SCORES, mean, step.gradient, size, tolerance=_ROUNDING * size, labels=here, axes=("a",))
        rows += equals(LENGTHS, fisher, own, tolerance=_ROUNDING, labels=here, axes=("a", "b"))
        rows += equals(LENGTHS, squares[score] / getattr(lengths, score), 1.0, tolerance=_ROUNDING, labels=here)
        if score == "concrete":
            rows += equals(FISHER, fisher, wanted[2], tolerance=_LIMIT, labels=here, axes=("a", "b"))
    return rows


def table_rows(step: OneStep, labels: Labels) -> list[Row]:
    """No linear bias; the two spreads cross above 1/6, so that REINFORCE is better at tau = .1."""
    _, value, slope = table_curvature(step.p, step.R)
    wanted = torch.cat([torch.tensor([value]), slope])

    def over(tau: float, order: int) -> torch.Tensor:
        found = moments(step, tau)
        return torch.cat([torch.tensor([found.J - step.J]), found.pathwise - step.gradient]) / tau**order

    scale = wanted.abs().max()
    rows = equals(
        CURVATURE, extrapolated(lambda tau: over(tau, 2)) / scale, wanted / scale, tolerance=_LIMIT, labels=labels
    )
    halved = over(0.01, 1).norm() / over(0.02, 1).norm()
    rows += equals(LINEAR, halved, 1.0, tolerance=0.01, labels=labels)
    tau, spreads = crossing(step.p, step.reward), exact_spreads(step, moments(step, 0.1))
    bias = (moments(step, tau).pathwise - step.gradient).norm() / step.gradient_size
    rows += at_least(LATE, tau, 1 / 6, labels=labels)
    rows += report(CROSSING, tau, leading_crossing(step.p, step.R), bias, labels=labels)
    return rows + at_most(BEATS, spreads["pathwise"] / spreads["REINFORCE"], 1.0, labels=labels)


def quadratic_rows(step: OneStep, labels: Labels) -> list[Row]:
    """The linear bias of J and of its gradient."""
    limits = small_tau(step.p, step.reward, 2 * step.M)
    wanted = torch.cat([torch.tensor([limits.slope]), limits.gradient_slope])

    def over(tau: float) -> torch.Tensor:
        found = moments(step, tau)
        return torch.cat([torch.tensor([found.J - step.J]), found.pathwise - step.gradient]) / tau

    scale = wanted.abs().max()
    return equals(SLOPE, extrapolated(over) / scale, wanted / scale, tolerance=_LIMIT, labels=labels, axes=("a",))
