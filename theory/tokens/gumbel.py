"""Gumbel noise on logits at every temperature: the relaxed return, its gradient, and the spread of its estimators.

`u = log p + g`, g independent Gumbel noise, `y = softmax(u / tau)`, reward `f(y)`, `J_tau = E f(y)`. With `e = exp(-g)`, which is
exponential, y depends on the noise through the shares `w = e / sum e` alone, and these are uniform on the simplex whatever p
and tau are. All derivatives are in the logits.

Theory page, section 6: "Gumbel noise and soft thoughts".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor

from envs.arguments import check_bytes, short, whole
from envs.record import short_repr
from envs.tables import probabilities
from envs.world import InputError

RelaxedReward = Callable[[Tensor], Tensor]  # relaxed tokens (N, V) -> rewards (N,), differentiable
NODES = {2: 240, 3: 120}  # for each size of the vocabulary, of every axis of the rule
_REACH, _STRETCH = 37.0, 2.0  # of the logit of a share: beyond it nothing is left in float64; where its nodes are widest
_SMALLEST, _LARGEST = 1e-3, 1e3  # temperatures between which two spreads are looked for to cross
_ROUNDING = 1e-12  # of a second moment: a variance below it is 0


@short_repr
@dataclass(frozen=True)
class NoiseRule:
    """Quadrature over the Gumbel noise: N outcomes with their probabilities.

    Attributes:
        relaxed: y.
        shares: `w = e / sum e`, `e = exp(-g)`.
        tokens: the largest entry of y, the token that is sampled with the same noise.
        weights: probabilities of the outcomes.
    """

    relaxed: Float[Tensor, "N V"]
    shares: Float[Tensor, "N V"]
    tokens: Int[Tensor, "N"]
    weights: Float[Tensor, "N"]


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


def logistic_rule(tau: float, nodes: int = NODES[2]) -> tuple[Float[Tensor, "nodes"], Float[Tensor, "nodes"]]:
    """Nodes and weights for two tokens: `E h(u_1 - u_2) = sum_i weight_i h(s_i) density(s_i - log(p_1 / p_2))`, for every p.

    `s = tau sinh(x)` with equal steps in x, so that the scale tau of the softmax and the scale 1 of the noise both have nodes.
    The density is the logistic one, that of the difference of two Gumbel numbers.

    Args:
        tau: temperature, > 0.
        nodes: number of nodes.

    Returns:
        Nodes s and weights, without the density.

    Raises:
        InputError: tau is no finite number > 0, or there are fewer than 2 nodes.
    """
    tau, nodes = checked_tau(tau), whole("nodes", nodes, 2)
    end = math.asinh(2 * _REACH / tau)
    x = torch.linspace(-end, end, nodes, dtype=torch.float64)
    return tau * x.sinh(), (2 * end / (nodes - 1)) * tau * x.cosh()


def two_token_rule(p: Float[Tensor, "2"], tau: float, nodes: int = NODES[2]) -> NoiseRule:
    """The outcomes of two tokens by `logistic_rule`: a second road to `simplex_rule`.

    Args:
        p: probabilities of two tokens, each > 0.
        tau: temperature, > 0.
        nodes: number of nodes.

    Returns:
        The rule.

    Raises:
        InputError: p is no law of two tokens, or as in `logistic_rule`.
    """
    p = checked_law(p)
    if len(p) != 2:
        raise InputError(f"p must have two tokens here; got {len(p)}: use simplex_rule")
    s, weights = logistic_rule(tau, nodes)
    noise = s - (p[0] / p[1]).log()
    two = torch.stack([s, -s], 1)
    density = torch.sigmoid(noise) * torch.sigmoid(-noise)
    shares = torch.sigmoid(torch.stack([-noise, noise], 1))
    return NoiseRule(torch.sigmoid(two / tau), shares, two.argmax(1), weights * density)


def simplex_rule(p: Float[Tensor, "V"], tau: float, nodes: int | None = None) -> NoiseRule:
    """All outcomes of V tokens: w uniform on the simplex, cut where another token comes to the top, V nodes^(V-1) nodes.

    Token k is on top with probability `p_k`, and then `w = m p + (1 - m) v`: m has the law `(V-1) (1-m)^(V-2)`, v is uniform on
    the face `v_k = 0`, and `u_k - u_a = log(1 + (1-m) v_a / (m p_a))`. There y is smooth. m and the sticks of v are
    `sigmoid(2 sinh x)` with equal steps in x, which has nodes near every tie at every temperature.

    Args:
        p: probabilities of V tokens, each > 0.
        tau: temperature, > 0.
        nodes: number of nodes along every axis; None for `NODES`, or 40 for more than three tokens.

    Returns:
        The rule.

    Raises:
        InputError: p is no law, tau is no finite number > 0, there are fewer than 2 nodes, or the nodes need too much memory.
    """
    p, tau = checked_law(p), checked_tau(tau)
    V = len(p)
    nodes = whole("nodes", NODES.get(V, 40) if nodes is None else nodes, 2)
    check_bytes(32 * V * V * nodes ** (V - 1), f"nodes={nodes} with V={V} make outcomes", "take fewer nodes")
    m, rest, face, weights = _faces(V, nodes)
    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for k in range(V):
        others = [a for a in range(V) if a != k]
        below, shares = torch.zeros_like(face[:, :1]).repeat(1, V), m[:, None] * p
        shares[:, others] += rest[:, None] * face
        below[:, others] = torch.log1p(rest[:, None] * face / (m[:, None] * p[others]))
        kept.append((torch.softmax(-below / tau, -1), shares, torch.full_like(m, k).long(), p[k] * weights))
    relaxed, shares, tokens, weights = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return NoiseRule(relaxed, shares, tokens, weights)


def _faces(V: int, nodes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m, 1 - m, points on a face of the simplex with V - 1 corners, by breaking a stick, and their probabilities."""
    end = math.asinh(_REACH / _STRETCH)
    x = torch.linspace(-end, end, nodes, dtype=torch.float64)
    z = _STRETCH * x.sinh()
    low, high = torch.sigmoid(z), torch.sigmoid(-z)
    steps = (2 * end / (nodes - 1)) * _STRETCH * x.cosh() * low * high
    index = torch.cartesian_prod(*[torch.arange(nodes)] * (V - 1)).reshape(-1, V - 1)
    own, left = low[index], high[index]
    powers = torch.tensor([V - 1, *range(V - 2, 0, -1)], dtype=torch.float64)  # axis i has the density n (1 - t)^(n-1)
    weights = (steps[index] * powers * left ** (powers - 1)).prod(1)
    before = torch.cat([torch.ones_like(own[:, :1]), left[:, 1:].cumprod(1)], 1)
    face = before * torch.cat([own[:, 1:], torch.ones_like(own[:, :1])], 1)
    return own[:, 0], left[:, 0], face, weights


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
    return RelaxedMoments(J, weights @ pathwise, weights @ (centred[:, None] * score), *(float(weights @ x) for x in squares))


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
            raise InputError(f"f must give one finite number for each relaxed token, a tensor of shape {tuple(y.shape[:1])}")
        if not value.requires_grad:
            raise InputError("f must be differentiable: it computes its rewards without the tokens (no_grad, detach?)")
        (slope,) = torch.autograd.grad(value.sum(), at)
    return value.detach(), slope


def sampled_variance(p: Float[Tensor, "V"], R: Float[Tensor, "V"]) -> float:
    """Variance of REINFORCE with the value as baseline, `(R_k - J)(onehot_k - p)`, summed over the logits.

    It is 0 for two tokens of probability 1/2 each, whatever they are paid.

    Args:
        p: probabilities of the tokens.
        R: their rewards.

    Returns:
        `sum_k p_k (R_k - J)^2 (1 - 2 p_k + sum p^2) - |grad J|^2`.
    """
    centred = R - p @ R
    gradient = p * centred
    square, known = p @ (centred.square() * (1 - 2 * p + p @ p)), gradient @ gradient
    return float(square - known) if square - known > _ROUNDING * square else 0.0


def crossing(p: Float[Tensor, "V"], f: RelaxedReward, nodes: int | None = None) -> float:
    """The temperature at which the pathwise derivative spreads as much as REINFORCE on sampled tokens with the value as baseline.

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
        raise InputError("f must pay tokens differently: the pathwise derivative has less variance at every temperature")
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


def checked_law(p: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
    """Probabilities of at least two tokens, each > 0, in float64.

    Args:
        p: what the user gave.

    Returns:
        The probabilities.

    Raises:
        InputError: p is no such law.
    """
    law = probabilities("p", p)
    if law.ndim != 1 or len(law) < 2 or not bool((law > 0).all()):
        raise InputError(f"p must be the probabilities of at least two tokens, each > 0; got {short(p)}")
    return law


def checked_tau(tau: float) -> float:
    """A temperature, finite and > 0.

    Args:
        tau: what the user gave.

    Returns:
        The temperature.

    Raises:
        InputError: tau is none.
    """
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 < tau < math.inf:
        raise InputError(f"tau must be a finite number > 0, a temperature; got {short(tau)}")
    return float(tau)
