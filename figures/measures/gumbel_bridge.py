"""Relaxed tokens at one step: exact limits by extrapolation in tau, and sampled means and spreads against the exact ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.sampling.relaxed_tokens import gumbel_noise, relaxed_estimates
from figures.harness.statistics import Estimate, estimate, pooled
from theory.tokens.gumbel import NoiseRule, simplex_rule, two_token_rule
from theory.tokens.gumbel_moments import RelaxedMoments, corners, relaxed_moments, sampled_variance
from theory.tokens.softmax_bounds import jacobian

REWARDS = ("table", "quadratic")
SHARE, SPREAD, CURVE = "mean along the gradient", "spread", "exact curve"  # parts of the rows
ESTIMATORS = ("pathwise", "score", "REINFORCE")
_STEPS = (0.04, 0.02, 0.01)  # temperatures of the extrapolation to 0; what is left is of order tau^3
_BATCH = 100_000


@dataclass(frozen=True)
class OneStep:
    """One token with a reward `R'y + y'My` of its relaxed form.

    Attributes:
        p: probabilities of the tokens.
        R: rewards of a table.
        M: symmetric; zeros for a table.
    """

    p: Tensor
    R: Tensor
    M: Tensor

    def reward(self, y: Tensor) -> Tensor:
        """The reward of relaxed tokens, (samples, V) -> (samples,)."""
        return y @ self.R + ((y @ self.M) * y).sum(-1)

    @property
    def paid(self) -> Tensor:
        """Rewards of sampled tokens, (V,)."""
        return corners(self.reward, len(self.p))

    @property
    def J(self) -> float:
        """Expected reward of a sampled token."""
        return float(self.p @ self.paid)

    @property
    def gradient(self) -> Tensor:
        """Of J, in the logits."""
        return jacobian(self.p) @ self.paid

    @property
    def gradient_size(self) -> float:
        """Length of the gradient of J."""
        return float(self.gradient.norm())


def one_step(probabilities: tuple[float, ...], reward: str) -> OneStep:
    """Token a is paid 1, 0, -1 ... by the table; the quadratic reward adds `y'My`, M fixed numbers of size one."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    V = len(p)
    i = torch.arange(V, dtype=torch.float64)
    M = torch.cos(1.0 + i[:, None] + i + 2 * i[:, None] * i) if reward == "quadratic" else torch.zeros(V, V).double()
    return OneStep(p / p.sum(), 1 - i, M)


def both_rules(step: OneStep, tau: float) -> list[tuple[str, NoiseRule]]:
    """The quadratures of a case by name; two tokens have two."""
    found = [("simplex", simplex_rule(step.p, tau))]
    return found + ([("logistic", two_token_rule(step.p, tau))] if len(step.p) == 2 else [])


def extrapolated(value: Callable[[float], Tensor]) -> Tensor:
    """Limit at tau = 0 of a smooth function of tau, from its values at three temperatures."""
    far, middle, near = (value(tau) for tau in _STEPS)
    return (far - 6 * middle + 8 * near) / 3


def moments(step: OneStep, tau: float) -> RelaxedMoments:
    """Exact moments of the estimators of one case at one temperature."""
    return relaxed_moments(step.p, step.reward, tau)


def exact_spreads(step: OneStep, found: RelaxedMoments) -> dict[str, float]:
    """Variance of every estimator, summed over the logits."""
    values = found.pathwise_variance, found.noise_variance, sampled_variance(step.p, step.paid)
    return dict(zip(ESTIMATORS, values, strict=True))


def hard_scores(step: OneStep) -> dict[str, tuple[Tensor, Tensor]]:
    """Of the three scores, by quadrature: mean with the reward of the sampled token less J, and Fisher matrix."""
    rule, V = simplex_rule(step.p, 1.0), len(step.p)
    w, one = rule.shares, torch.eye(V, dtype=torch.float64)
    hard, paid = one[rule.tokens], step.paid[rule.tokens] - step.J
    concrete, token = 1 - V * w, hard - step.p
    # the sum of the e is Gamma(V) and independent of w: E[e | w] = V w, E[e e' | w] = V (V + 1) w w'
    noise_square = 1 - V * (w[:, :, None] + w[:, None]) + V * (V + 1) * w[:, :, None] * w[:, None]
    squares = noise_square, concrete[:, :, None] * concrete[:, None], token[:, :, None] * token[:, None]
    means = concrete, concrete, token
    found = [
        (rule.weights @ (paid[:, None] * mean), torch.einsum("n,nab->ab", rule.weights, square))
        for mean, square in zip(means, squares, strict=True)
    ]
    return dict(zip(("noise", "concrete", "token"), found, strict=True))


def hard_squares(step: OneStep) -> dict[str, float]:
    """Mean squared length of the three score estimators with the reward of the sampled token less J, by quadrature."""
    rule, V = simplex_rule(step.p, 1.0), len(step.p)
    w, mass = rule.shares, rule.weights * (step.paid[rule.tokens] - step.J).square()
    token = torch.eye(V, dtype=torch.float64)[rule.tokens] - step.p
    lengths = {
        "noise": V * ((V + 1) * w.square().sum(1) - 1),
        "concrete": (1 - V * w).square().sum(1),
        "token": token.square().sum(1),
    }
    return {name: float(mass @ length) for name, length in lengths.items()}


@dataclass(frozen=True)
class SampledEstimator:
    """One estimator at one temperature.

    Attributes:
        mean: of its samples, (V,).
        variance: squared distance from its exact mean, summed over the logits.
        share: component of the mean along the gradient of J, over that gradient.
        exact: the exact mean, (V,).
    """

    mean: Estimate
    variance: Estimate
    share: Estimate
    exact: Tensor

    def spread(self, unit: float) -> Estimate:
        """Standard deviation in a unit, its error by the delta rule."""
        sd = math.sqrt(float(self.variance.mean))
        return Estimate(
            self.variance.mean / sd / unit, self.variance.standard_error / (2 * sd * unit), self.variance.samples
        )


def sampled_estimators(
    step: OneStep, exact: RelaxedMoments, tau: float, samples: int, rng: torch.Generator, device: str
) -> dict[str, SampledEstimator]:
    """All three estimators on the same noise; `exact` are their moments at tau."""
    truths = dict(zip(ESTIMATORS, (exact.pathwise, exact.score, step.gradient), strict=True))
    along = step.gradient / step.gradient.square().sum()
    parts: dict[str, list[Estimate]] = {name: [] for name in ESTIMATORS}
    here, count = step.p.log().to(device), -(-samples // _BATCH)
    on_device = OneStep(step.p.to(device), step.R.to(device), step.M.to(device))
    for i in range(count):
        noise = gumbel_noise((samples * (i + 1) // count - samples * i // count, len(step.p)), rng).to(device)
        drawn = relaxed_estimates(here, on_device.reward, noise, tau, (exact.J, step.J))
        for name, values in zip(ESTIMATORS, drawn, strict=True):
            values = values.cpu()
            square = (values - truths[name]).square().sum(1, keepdim=True)
            parts[name].append(estimate(torch.cat([values, square, (values @ along)[:, None]], 1)))
    V = len(step.p)
    whole = {name: pooled(found) for name, found in parts.items()}
    return {name: SampledEstimator(x[:V], x[V], x[V + 1], truths[name]) for name, x in whole.items()}
