"""Gumbel noise on logits as the temperature falls: bias and spread in leading order, and the three scores of the limit.

Here `y = softmax((log p + g) / tau)` is a relaxed token with reward `f(y)`; as tau falls it becomes a token drawn from p. Two
tokens i and j tie at the top with density `p_i p_j`: there alone f away from the corners of the simplex counts.

Theory page, section 6: "Gumbel noise and soft thoughts".
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import as_numbers, takes_numbers
from envs.record import short_repr
from envs.world import InputError
from theory.tokens.gumbel import checked_law
from theory.tokens.gumbel_moments import RelaxedReward, corners, value_and_slope

_ZETA_2 = math.pi**2 / 6
_NODES = 64  # on half an edge; f is smooth there


@short_repr
@dataclass(frozen=True)
class SmallTau:
    """`J_tau = J + slope tau + O(tau^2)`, the same of its gradient, and `E|PD|^2 = pathwise / tau + O(1)`.

    Attributes:
        J: expected reward of the sampled token.
        slope: derivative of `J_tau` in tau at 0.
        gradient: of J in the logits.
        gradient_slope: derivative of `grad J_tau` in tau at 0: the bias of relaxed gradients over tau.
        pathwise: `lim tau E|PD|^2`; `Var_p(f) / 3` for affine f.
    """

    J: float
    slope: float
    gradient: Float[Tensor, "V"]
    gradient_slope: Float[Tensor, "V"]
    pathwise: float


@short_repr
@dataclass(frozen=True)
class ScoreMoments:
    """`E[(R - b)^2 |score|^2]` with the rewards of sampled tokens, for the three scores; with R - b = 1 the Fisher traces.

    Attributes:
        noise: of `1 - e`.
        concrete: of `1 - V e / sum e`.
        token: of `onehot - p`.
    """

    noise: float
    concrete: float
    token: float


@takes_numbers("p")
def small_tau(p: Float[Tensor, "V"], f: RelaxedReward, hess: Float[Tensor, "V V"] | None = None) -> SmallTau:
    """Leading orders in tau: `slope = sum_{i<j} p_i p_j C_ij`, and `-tr(hess (diag p - p p')) / 2` for quadratic f.

    `C_ij = int [f(edge ij at sigma(v)) - f(nearer end)] dv`, and `pathwise = sum_{i<j} 2 p_i p_j int x (1-x) f_ij'(x)^2 dx`,
    f_ij the reward along the edge.

    Args:
        p: probabilities of V tokens, each > 0.
        f: reward of relaxed tokens, differentiable by autograd.
        hess: second derivatives of a quadratic f, which are constant; None for the integrals of any smooth f.

    Returns:
        The leading orders.

    Raises:
        InputError: p is no law, f is refused by `theory.tokens.gumbel_moments.value_and_slope`, or hess is no matrix (V, V).
    """
    p = checked_law(p)
    R, V = corners(f, len(p)), len(p)
    i, j = torch.triu_indices(V, V, 1)
    ties, ends = p[i] * p[j], torch.eye(V, dtype=torch.float64)
    excess, squares = _edges(f, ends[i], ends[j])
    if hess is not None:
        H = as_numbers("hess", hess).double()
        if H.shape != (V, V):
            raise InputError(f"hess must be a matrix of shape {(V, V)}; got {tuple(H.shape)}")
        H = (H + H.mT) / 2
        excess = -(H[i, i] + H[j, j] - 2 * H[i, j]) / 2
    J, slope = p @ R, ties * excess
    gradient_slope = slope @ (ends[i] + ends[j] - 2 * p)
    return SmallTau(float(J), float(slope.sum()), p * (R - J), gradient_slope, float(2 * ties @ squares))


def _edges(f: RelaxedReward, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """For every edge C_ij, with `dv = dx / (x (1-x))`, and the integral of `x (1-x) f'(x)^2`, half by half."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(_NODES))
    x, weights = (1 + nodes) / 4, weights / 4  # on (0, 1/2), and mirrored on (1/2, 1)
    excess, squares = torch.zeros(len(one), dtype=torch.float64), torch.zeros(len(one), dtype=torch.float64)
    for near, far in ((one, other), (other, one)):
        at = near[:, None] + x[:, None] * (far - near)[:, None]
        value, slope = (t.unflatten(0, at.shape[:2]) for t in value_and_slope(f, at.flatten(0, 1)))
        along = (slope * (far - near)[:, None]).sum(-1)
        excess = excess + ((value - value_and_slope(f, near)[0][:, None]) / (x * (1 - x))) @ weights
        squares = squares + (x * (1 - x) * along.square()) @ weights
    return excess, squares


@takes_numbers("p", "R")
def table_curvature(p: Float[Tensor, "V"], R: Float[Tensor, "V"]) -> tuple[Tensor, float, Float[Tensor, "V"]]:
    """For an affine reward `f(y) = R'y` there is no linear term: the coefficients of tau^2 in `E y`, `J_tau`, `grad J_tau`.

    `E y = p - tau^2 zeta(2) (diag p - p p') p + O(tau^3)`, which is p plus `tau^2 zeta(2) / 2` times the gradient of the Gini
    index in the logits.

    Args:
        p: probabilities of V tokens, each > 0.
        R: rewards of the tokens.

    Returns:
        The three coefficients; the first and the last have V entries.

    Raises:
        InputError: p is no law, or R has another shape.
    """
    p, R = _with_rewards(p, R)
    squares = p @ p
    token = -_ZETA_2 * p * (p - squares)
    J = p @ R
    # R'(diag p - p p')p = sum R p^2 - J sum p^2, differentiated in the logits
    gradient = 2 * p * (p * R - (p * p) @ R) - squares * p * (R - J) - 2 * J * p * (p - squares)
    return token, float(token @ R), -_ZETA_2 * gradient


@takes_numbers("p", "R")
def score_moments(p: Float[Tensor, "V"], R: Float[Tensor, "V"], b: float) -> ScoreMoments:
    """Second moments of the three score estimators where the sampled token k is paid `R_k`.

    `sum p_k (R_k - b)^2 A_k` with `A_k = V - 2 p_k + 2 sum p^2` for the noise; for the Concrete density `V (A_k - 1) / (V + 1)`
    stands in the place of A_k, for the token `1 - 2 p_k + sum p^2`.

    Args:
        p: probabilities of V tokens, each > 0.
        R: rewards of the tokens.
        b: baseline.

    Returns:
        The second moments.

    Raises:
        InputError: p is no law, or R has another shape.
    """
    p, R = _with_rewards(p, R)
    V, mass = len(p), p * (R - b).square()
    noise = V - 2 * p + 2 * (p @ p)
    return ScoreMoments(
        float(mass @ noise), float(mass @ (V * (noise - 1) / (V + 1))), float(mass @ (1 - 2 * p + p @ p))
    )


@takes_numbers("p")
def score_fisher(p: Float[Tensor, "V"]) -> tuple[Float[Tensor, "V V"], Float[Tensor, "V V"], Float[Tensor, "V V"]]:
    """Fisher matrices of the three scores: `I`, `(V I - 1 1') / (V + 1)`, `diag p - p p'`; the first two at every p and tau.

    Args:
        p: probabilities of V tokens, each > 0.

    Returns:
        Those of the noise, the Concrete density and the token.

    Raises:
        InputError: p is no law.
    """
    p = checked_law(p)
    V, one = len(p), torch.eye(len(p), dtype=torch.float64)
    return one, (V * one - 1) / (V + 1), torch.diag(p) - torch.outer(p, p)


@takes_numbers("p", "R")
def leading_crossing(p: Float[Tensor, "V"], R: Float[Tensor, "V"]) -> float:
    """Crossing of the spreads of the pathwise derivative and REINFORCE with the value as baseline, in leading order.

    `tau* = Var_p(R) / (3 sum p_k (R_k - J)^2 (1 - 2 p_k + sum p^2))` for affine rewards; `1 / (6 (1 - 3 p_1 p_2))` for V = 2.

    Args:
        p: probabilities of V tokens, each > 0.
        R: rewards of the tokens.

    Returns:
        tau*.

    Raises:
        InputError: p is no law, R has another shape, or all tokens are paid alike.
    """
    p, R = _with_rewards(p, R)
    J = float(p @ R)
    variance, token = float(p @ (R - J).square()), score_moments(p, R, J).token
    if not variance > 0:
        raise InputError("R must hold different rewards: where all tokens are paid alike nothing spreads")
    return variance / (3 * token)


def _with_rewards(p: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    law, rewards = checked_law(p), as_numbers("R", R).double()
    if rewards.shape != law.shape or not bool(rewards.isfinite().all()):
        raise InputError(
            f"R must hold one finite reward for each of the {len(law)} tokens; got shape {tuple(rewards.shape)}"
        )
    return law, rewards
