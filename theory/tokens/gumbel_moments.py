"""Estimators of the gradient of a relaxed return at one step: their means and spreads at every temperature.

`y = softmax((log p + g) / tau)`, g Gumbel noise, reward `f(y)`, `J_tau = E f(y)`. All derivatives are in the logits.

Theory page, section 6: "Gumbel noise and soft thoughts".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from envs.arguments import takes_numbers
from envs.record import short_repr
from envs.world import InputError
from theory.tokens.gumbel import NoiseRule, checked_law, checked_tau, simplex_rule

RelaxedReward = Callable[[Tensor], Tensor]  # relaxed tokens (N, V) -> rewards (N,), differentiable
_SMALLEST, _LARGEST = 1e-3, 1e3  # temperatures between which two spreads are looked for to cross
_ROUNDING = 1e-12  # of a second moment: a variance below it is 0


@short_repr
@dataclass(frozen=True)
class RelaxedMoments:
    """Means and second moments of estimators of `grad J_tau`; squared lengths are summed over the logits.

    Attributes:
        J: `J_tau`.
        pathwise: mean of the pathwise derivative `(1 / tau) (diag(y) - y y') grad f(y)`.
        score: mean of `(f - b)(1 - V w)`, and of `(f - b)(1 - e)`.
        pathwise_square: mean squared length of the pathwise derivative.
        concrete_square: of `(f - b)(1 - V w)`, the score of the law of y (the Concrete density).
        noise_square: of `(f - b)(1 - e)`, the score of the noise.
    """

    J: float
    pathwise: Float[Tensor, "V"]
    score: Float[Tensor, "V"]
    pathwise_square: float
    concrete_square: float
    noise_square: float

    @property
    def pathwise_variance(self) -> float:
        """Variance of the pathwise derivative, summed over the logits."""
        return self.pathwise_square - float(self.pathwise.square().sum())

    @property
    def concrete_variance(self) -> float:
        """Variance of the score estimator with the Concrete density."""
        return self.concrete_square - float(self.score.square().sum())

    @property
    def noise_variance(self) -> float:
        """Variance of the score estimator with the density of the noise."""
        return self.noise_square - float(self.score.square().sum())


@takes_numbers("p")
def relaxed_moments(
    p: Float[Tensor, "V"], f: RelaxedReward, tau: float, baseline: float | None = None, rule: NoiseRule | None = None
) -> RelaxedMoments:
    """Exact means and second moments of the pathwise and the score estimators at a temperature.

    Given w the sum of the e is Gamma(V), whence `E[|1 - e|^2 | w] = V ((V + 1) |w|^2 - 1)` and `E[1 - e | w] = 1 - V w`.

    Args:
        p: probabilities of V tokens, each > 0.
        f: reward of relaxed tokens, differentiable by autograd.
        tau: temperature, > 0.
        baseline: b of the score estimators; None for `J_tau`.
        rule: a quadrature of the same p and tau; None for `simplex_rule`.

    Returns:
        The moments.

    Raises:
        InputError: as in `simplex_rule`, or f does not give one finite, differentiable number for each relaxed token.
    """
    rule, V = rule or simplex_rule(p, tau), len(p)
    y, w, weights = rule.relaxed, rule.shares, rule.weights
    value, slope = value_and_slope(f, y)
    J = float(weights @ value)
    centred = value - (J if baseline is None else baseline)
    pathwise = y * (slope - (y * slope).sum(1, keepdim=True)) / checked_tau(tau)
    score = 1 - V * w
    noise = V * ((V + 1) * w.square().sum(1) - 1)
    squares = [pathwise.square().sum(1), centred.square() * score.square().sum(1), centred.square() * noise]
    return RelaxedMoments(
        J, weights @ pathwise, weights @ (centred[:, None] * score), *(float(weights @ x) for x in squares)
    )


def value_and_slope(f: RelaxedReward, y: Float[Tensor, "N V"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N V"]]:
    """f and its derivative in the relaxed token.

    Args:
        f: reward of relaxed tokens.
        y: relaxed tokens.

    Returns:
        Values and derivatives, constants.

    Raises:
        InputError: f does not give one finite, differentiable number for each relaxed token.
    """
    with torch.enable_grad():
        at = y.detach().requires_grad_()
        value = f(at)
        if not isinstance(value, Tensor) or value.shape != y.shape[:1] or not bool(value.isfinite().all()):
            raise InputError(
                f"f must give one finite number for each relaxed token, a tensor of shape {tuple(y.shape[:1])}"
            )
        if not value.requires_grad:
            raise InputError("f must be differentiable: it computes its rewards without the tokens (no_grad, detach?)")
        (slope,) = torch.autograd.grad(value.sum(), at)
    return value.detach(), slope


@takes_numbers("p", "R")
def sampled_variance(p: Float[Tensor, "V"], R: Float[Tensor, "V"]) -> float:
    """Variance of REINFORCE with the value as baseline, `(R_k - J)(onehot_k - p)`, summed over the logits.

    It is 0 for two tokens of probability 1/2 each, whatever they are paid.

    Args:
        p: probabilities of the tokens.
        R: their rewards.

    Returns:
        `sum_k p_k (R_k - J)^2 (1 - 2 p_k + sum p^2) - |grad J|^2`.
    """
    p, R = p.double(), R.double()
    centred = R - p @ R
    gradient = p * centred
    square, known = p @ (centred.square() * (1 - 2 * p + p @ p)), gradient @ gradient
    return float(square - known) if square - known > _ROUNDING * square else 0.0


@takes_numbers("p")
def crossing(p: Float[Tensor, "V"], f: RelaxedReward, nodes: int | None = None) -> float:
    """The temperature at which the pathwise derivative and REINFORCE, with the value as baseline, have the same variance.

    Args:
        p: probabilities of V tokens, each > 0.
        f: reward of relaxed tokens; a sampled token gets that of its corner.
        nodes: as in `simplex_rule`.

    Returns:
        tau*; above it the pathwise derivative has the smaller variance. It is infinite where REINFORCE has less at every
        temperature up to 1000.

    Raises:
        InputError: as in `relaxed_moments`, or the pathwise derivative does not have more variance at temperature 0.001: all
            tokens are paid alike.
    """
    p = checked_law(p)
    target = sampled_variance(p, corners(f, len(p)))

    def gap(log_tau: float) -> float:
        tau = math.exp(log_tau)
        return relaxed_moments(p, f, tau, 0.0, simplex_rule(p, tau, nodes)).pathwise_variance / target - 1

    if target == 0 or gap(math.log(_LARGEST)) > 0:
        if not float(corners(f, len(p)).std()) > 0:
            raise InputError("f must pay tokens differently: where all are paid alike no two spreads cross")
        return math.inf
    if not gap(math.log(_SMALLEST)) > 0:
        raise InputError(
            "f must pay tokens differently: the pathwise derivative has less variance at every temperature"
        )
    return math.exp(brentq(gap, math.log(_SMALLEST), math.log(_LARGEST), xtol=1e-10))


def corners(f: RelaxedReward, V: int) -> Float[Tensor, "V"]:
    """Rewards of the sampled tokens.

    Args:
        f: reward of relaxed tokens.
        V: number of tokens.

    Returns:
        `f(onehot_k)`.

    Raises:
        InputError: as in `value_and_slope`.
    """
    return value_and_slope(f, torch.eye(V, dtype=torch.float64))[0]
