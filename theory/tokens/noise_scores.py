"""What a loss on Gumbel noise gives: ratios of noise densities, clamped noise, and a mean over likely tokens alone.

The noise of a thought is `g = u - log p`, one number for each token, and its log density `sum_a (-g_a - e^-g_a)`. With
`E_a = e^-g_a`, exponential with mean 1, its slope in the parameters is `sum_a (1 - E_a) grad log p_a`.

Theory page, section 6: "Gumbel noise and soft thoughts".
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from envs.arguments import short, takes_numbers
from envs.world import InputError
from theory.tokens.prefix_tree import Tree, possible_log_probs


class NoiseRatio(NamedTuple):
    """How far two noise densities are apart, for each law.

    Attributes:
        kl: KL divergence of the new density from the old one, in nats.
        second_moment: `E rho^2` under the old density, rho = new / old; infinite where some log-probability falls by ln 2 or
            more.
    """

    kl: Float[Tensor, "*batch"]
    second_moment: Float[Tensor, "*batch"]


class ClampedScore(NamedTuple):
    """Gumbel noise that is clamped to an interval.

    Attributes:
        below: probability of the lower edge.
        above: probability of the upper edge.
        mean: mean of the score `1 - e^-g`, edges included; 0 for noise that is not clamped.
        inside: the part of that mean that lies between the edges.
    """

    below: float
    above: float
    mean: float
    inside: float


@takes_numbers("log_p_old", "log_p_new")
def noise_ratio(log_p_old: Float[Tensor, "*batch V"], log_p_new: Float[Tensor, "*batch V"]) -> NoiseRatio:
    """With `d = log p_new - log p_old`: KL `sum_a (e^d - 1 - d)`, `E rho^2 = prod_a e^{2d} / (2 e^d - 1)`.

    Every token counts alike, however rare it is: the noise of all tokens is part of the density.

    Args:
        log_p_old: of the policy that drew the noise.
        log_p_new: of the policy in training.

    Returns:
        Both numbers for each law. A token that neither law knows counts nothing; one that a single law knows makes both
        infinite.

    Raises:
        InputError: the shapes differ, or a number is NaN or +infinity.
    """
    if log_p_old.shape != log_p_new.shape or not log_p_old.ndim:
        raise InputError(
            f"log_p_new must have the shape of log_p_old, {tuple(log_p_old.shape)}; got {tuple(log_p_new.shape)}"
        )
    for name, log_p in (("log_p_old", log_p_old), ("log_p_new", log_p_new)):
        if bool((log_p.isnan() | (log_p == torch.inf)).any()):
            raise InputError(f"{name} holds NaN or infinity: log-probabilities are finite, or -infinity for no chance")
    unknown = log_p_old.isneginf() & log_p_new.isneginf()
    d = torch.where(unknown, 0.0, log_p_new - torch.where(unknown, 0.0, log_p_old)).double()
    kl = torch.where(d.isinf(), torch.inf, torch.expm1(d) - d).sum(-1)
    finite = (d > -math.log(2)) & d.isfinite()
    safe = torch.where(finite, d, 0.0)
    terms = safe - torch.log1p(-torch.expm1(-safe))  # 2d - log(2 e^d - 1) = d - log(2 - e^-d)
    second = torch.where(finite.all(-1), terms.sum(-1).exp(), torch.inf)
    return NoiseRatio(kl.to(log_p_new), second.to(log_p_new))


def clamped_score(low: float, high: float) -> ClampedScore:
    """Chances and mean score of `g = clamp(Gumbel, low, high)`.

    `P(g = low) = exp(-e^-low)`, `P(g = high) = 1 - exp(-e^-high)`; between them the mean of `1 - E` over E from `e^-high` to
    `e^-low` is `[E e^-E]` at these ends.

    Args:
        low: the lower edge; it may be -infinity.
        high: the upper edge; it may be infinity.

    Returns:
        The numbers.

    Raises:
        InputError: low is not below high.
    """
    if not low < high:
        raise InputError(f"low must be below high; got {short(low)} and {short(high)}")
    most, least = math.exp(-low), math.exp(-high)
    below, above = math.exp(-most), -math.expm1(-least)
    inside = (most * below if below else 0.0) - least * math.exp(-least)
    edges = (below * (1 - most) if below else 0.0) + above * (1 - least)
    return ClampedScore(below, above, inside + edges, inside)


def likely(log_p: Float[Tensor, "N V"], floor: float) -> Bool[Tensor, "N V"]:
    """The tokens M whose log-probability is above a floor.

    Args:
        log_p: of the laws.
        floor: the floor, -infinity for all tokens.

    Returns:
        True for the tokens in M.
    """
    return log_p > floor


def hard_limit_surrogate(
    tree: Tree, weights: Sequence[Float[Tensor, "N V"]], floor: float = -math.inf, mean: bool = True
) -> Float[Tensor, ""]:
    """The mean update of a loss on noise whose sum over tokens is cut to likely ones, in the limit of hard thoughts.

    Given that token k wins, `E[1 - E_a | k] = 1[a = k] - p_a`. So a thought after a prefix adds, in the mean,
    `sum_k p_k W_k (1/|M|) (1[k in M] grad log p_k - sum_{a in M} p_a grad log p_a)`, W_k the mean weight of a row through
    this edge. Without a floor and a mean the second term is 0, and the update is that of sampled tokens. With a floor, tokens
    outside M have no pull of their own, and `E[W | prefix] grad P(not in M)` is added; the factor 1/|M| differs from prefix
    to prefix.

    Args:
        tree: with every token followed; each of its tokens is a thought.
        weights: W of every edge, level by level, as `theory.groups.expected_update.ExpectedUpdate.weights`.
        floor: log-probability above which a token is in M.
        mean: whether the sum is divided by |M|.

    Returns:
        A scalar; only its derivatives are meant.
    """
    total = torch.zeros_like(tree.J)
    for level, W in zip(tree.levels, weights, strict=True):
        log_p, p = possible_log_probs(level.logits), level.pi.detach()
        M = likely(log_p.detach(), floor) & level.own[:, None]
        pull = level.share * W.to(p)
        own = torch.where(M, (pull - pull.sum(-1, keepdim=True) * p) * log_p, 0.0).sum(-1)
        total = total + level.reach @ (own / M.sum(-1).clamp(min=1) if mean else own)
    return total
