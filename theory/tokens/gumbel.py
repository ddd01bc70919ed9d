"""Gumbel noise on logits, `u = log p + g`, and the relaxed token `y = softmax(u / tau)`: quadrature over the noise.

With `e = exp(-g)`, which is exponential, y depends on the noise through the shares `w = e / sum e` alone, and these are uniform
on the simplex whatever p and tau are. `theory.tokens.gumbel_moments` has what estimators of a gradient make of them.

Theory page, section 6: "Gumbel noise and soft thoughts".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.arguments import check_bytes, short, takes_numbers, whole
from envs.record import short_repr
from envs.tables import probabilities
from envs.world import InputError

NODES = {2: 240, 3: 120}  # for each size of the vocabulary, of every axis of the rule
_REACH, _STRETCH = (
    37.0,
    2.0,
)  # of the logit of a share: beyond it nothing is left in float64; where its nodes are widest


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


@takes_numbers("p")
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


@takes_numbers("p")
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
    check_bytes(
        32 * V * V * nodes ** (V - 1),
        f"nodes of the rule, {nodes} on each of {V - 1} axes,",
        "take fewer nodes or tokens",
    )
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
