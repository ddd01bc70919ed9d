"""Laws over completions with given weights: the backward recursion that normalises them, prefix by prefix.

One recursion serves powers of a policy, products of experts, and the optimum of a KL-regularised return: they differ in the
weights of the tokens alone. A prefix's `log_Z` is the logarithm of the total weight of what can follow.

Theory page, section 6: "KL optimum".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import as_numbers
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.completions import prefixes_alive
from theory.tokens.prefix_tree import Tree, grow
from theory.tokens.softmax_bounds import log_softmax

Normaliser = Callable[
    [Tensor, Tensor], tuple[Tensor, Tensor]
]  # log weights (N, V), log_Z after each token -> log pi, log_Z


@short_repr
@dataclass(frozen=True)
class TiltedLaw:
    """A law over completions, as a policy at every prefix.

    Attributes:
        log_pi: log-probabilities of the next token, level by level.
        log_Z: logarithm of the total weight of the continuations of every prefix, level by level.
    """

    log_pi: list[Float[Tensor, "N V"]]
    log_Z: list[Float[Tensor, "N"]]


def globally(log_w: Float[Tensor, "N V"], after: Float[Tensor, "N V"]) -> tuple[Tensor, Tensor]:
    """`pi(a | s) prop w(s, a) Z(s a)` and `Z(s) = sum_a w(s, a) Z(s a)`: completions get their whole weight.

    Args:
        log_w: logarithms of the weights.
        after: log_Z after each token.

    Returns:
        log pi, and log_Z.
    """
    return log_softmax(log_w + after), torch.logsumexp(log_w + after, -1)


def locally(log_w: Float[Tensor, "N V"], after: Float[Tensor, "N V"]) -> tuple[Tensor, Tensor]:
    """`pi(a | s) prop w(s, a)`: each token is normalised by itself; log_Z is that of the token alone.

    Args:
        log_w: logarithms of the weights.
        after: not used.

    Returns:
        log pi, and log_Z.
    """
    return log_softmax(log_w), torch.logsumexp(log_w, -1)


def tilted_law(
    tree: Tree,
    log_weights: Sequence[Tensor],
    normaliser: Normaliser = globally,
    bonus: Sequence[Tensor] | None = None,
) -> TiltedLaw:
    """The law whose completions have the weights `exp(sum_k log_weights_k + bonus_k)`.

    Where the policy does not speak (after an end token, at the environment's turns) the law is the tree's own, and log_Z is
    the mean of the bonus and of what follows.

    Args:
        tree: with every token followed; its policy gives the law where it does not matter.
        log_weights: of every edge, level by level; minus infinity for a token that is forbidden.
        normaliser: how a prefix's tokens are normalised, `globally` or `locally`.
        bonus: of every edge, the environment's among them; None for 0.

    Returns:
        The law.

    Raises:
        InputError: a weight is NaN or +infinity, or the tree's world pays a hidden readout.
    """
    log_pi, log_Z = list[Tensor](), list[Tensor]()
    alive, after = prefixes_alive(tree), torch.zeros_like(tree.levels[-1].share)
    for k in reversed(range(len(tree.levels))):
        level, weights = tree.levels[k], log_weights[k].detach()
        if bool((weights.isnan() | (weights == torch.inf)).any()):
            raise InputError("log_weights hold NaN or infinity: every weight must be a finite number, or 0")
        after = after if bonus is None else after + bonus[k].detach()
        own, Z = normaliser(weights, after)
        speaks = (alive[k] > 0) & ~Z.isneginf()  # a prefix of weight 0 is never reached
        given = torch.where(level.share > 0, after, 0.0)
        log_Z.insert(0, torch.where(alive[k] > 0, Z, (level.share * given).sum(-1)))
        log_pi.insert(0, torch.where(speaks[:, None], own, log_softmax(level.logits).detach()))
        if k:
            after = log_Z[0].reshape(tree.levels[k - 1].share.shape)
    return TiltedLaw(log_pi, log_Z)


def power_law(tree: Tree, alpha: float) -> TiltedLaw:
    """`p^alpha / Z` over completions; `log_Z` holds the logarithm of `sum over continuations of p^alpha`.

    Args:
        tree: of the policy p.
        alpha: the power, > 0.

    Returns:
        The law.

    Raises:
        InputError: alpha is no finite number > 0.
    """
    check_power(alpha)
    return tilted_law(tree, [alpha * log_softmax(level.logits) for level in tree.levels])


def check_power(alpha: float) -> None:
    """Refuse a power that is no finite number > 0.

    Args:
        alpha: what the user gave.

    Raises:
        InputError: it is no finite number > 0.
    """
    if isinstance(alpha, str) or not 0 < alpha < float("inf"):
        raise InputError(f"alpha must be a finite number > 0, the power; got {alpha!r}")


def product_of_experts(
    world: TokenMDP, teachers: Sequence[TokenPolicy], weights: Sequence[float], normaliser: Normaliser = globally
) -> TiltedLaw:
    """The law `prop prod_i E_i^{w_i}`, of whole completions (`globally`) or token by token (`locally`).

    The first minimises `sum_i w_i KL(pi || E_i)` over laws of completions, with value `-log_Z` at the prompt; on-policy
    distillation with prefixes held fixed ends at the second.

    Args:
        world: a token world small enough for its prefix tree.
        teachers: the experts E_i.
        weights: w_i >= 0, with sum 1.
        normaliser: `globally` or `locally`.

    Returns:
        The law.

    Raises:
        InputError: the weights are not as many as the teachers, are negative or do not sum to 1, or a teacher has another
            vocabulary.
    """
    w = check_weights(weights, len(teachers))
    with torch.no_grad():
        trees = [grow(world, teacher) for teacher in teachers]
    levels = zip(*(tree.levels for tree in trees), strict=True)
    return tilted_law(trees[0], [_mean_logs([x.logits for x in level], w) for level in levels], normaliser)


def check_weights(weights: Sequence[float], count: int) -> list[float]:
    """The weights of teachers as numbers, refused where they are no law.

    Args:
        weights: one for each teacher.
        count: number of teachers.

    Returns:
        The weights.

    Raises:
        InputError: there are not `count` of them, one is negative, or they do not sum to 1.
    """
    w = as_numbers("weights", weights).double().reshape(-1)
    if len(w) != count or count == 0:
        raise InputError(f"weights must be one for each of {count} teachers (at least one); got {len(w)}")
    if not bool((w >= 0).all()) or abs(float(w.sum()) - 1) > 1e-9:
        raise InputError(
            f"weights of the teachers must be >= 0 and sum to 1; got {w.tolist()}, sum {float(w.sum()):.6g}"
        )
    return [float(x) for x in w]


def _mean_logs(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """`sum_i w_i log E_i`; a teacher of weight 0 forbids nothing."""
    parts = [w * log_softmax(x) for w, x in zip(weights, logits, strict=True) if w > 0]
    return torch.stack(parts).sum(0)
