"""How a critic's error biases the mean of an update with GAE(lam), over all completions.

With `d = V^ - V` the error of the values before each of the policy's own steps (0 after the last of them), the mean of
`sum_t A_t grad log pi(c_t)` is `grad J + (1 - lam) sum_{j>=1} lam^{j-1} b_j`, where

    b_j = sum_t E[grad log pi(c_t) gamma^k d(s_k)],  s_k the prefix before the policy's j-th step after t, k its length.

An error of time alone, `d(s_k) = d_k`, has b_j = 0 where all completions have one length. Where an end token may be said, it
pays for longer or for shorter completions.

Source: J. Schulman et al., arXiv:1506.02438 (GAE).

Theory page, section 6: "GAE and value-gradient learning".
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import short
from envs.world import InputError
from theory.tokens.completions import prefixes_alive
from theory.tokens.prefix_tree import Tree, possible_log_probs


def bias_terms(tree: Tree, errors: Sequence[Tensor]) -> list[Float[Tensor, ""]]:
    """Surrogates whose gradients are the b_j, j = 1 ... H - 1: nothing is left of the errors after H steps.

    Args:
        tree: with every token followed.
        errors: of the critic's V_k at every prefix, level by level as in `Tree.V`; those after an end token and at the
            environment's turns have no effect.

    Returns:
        A scalar for each j, attached to autograd's graph; only their derivatives are meant.

    Raises:
        InputError: the errors do not fit the tree, or the world pays a hidden readout.
    """
    _check_errors(tree, errors)
    own = prefixes_alive(tree)
    seen = [tree.world.gamma**k * alive * e.to(alive) for k, (alive, e) in enumerate(zip(own, errors, strict=True))]
    ahead = _next_step(
        tree, own, seen
    )  # E[gamma^k d] at the policy's first step from each prefix on, itself among them
    terms = []
    for _ in range(len(tree.levels) - 1):
        terms.append(_score_sum(tree, own, ahead))
        after = [_mean_of_children(tree, k, ahead) for k in range(len(ahead))]
        ahead = _next_step(tree, own, [alive * x for alive, x in zip(own, after, strict=True)])
    return terms


def gae_bias(tree: Tree, errors: Sequence[Tensor], lam: float) -> Float[Tensor, ""]:
    """Surrogate whose gradient is the bias of GAE(lam), `(1 - lam) sum_{j>=1} lam^{j-1} b_j`.

    Args:
        tree: with every token followed.
        errors: of the critic at every prefix, level by level.
        lam: lambda, in [0, 1].

    Returns:
        A scalar; only its derivatives are meant.

    Raises:
        InputError: lam lies outside [0, 1], or as in `bias_terms`.
    """
    if isinstance(lam, bool) or not isinstance(lam, int | float) or not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {short(lam)}")
    total = torch.zeros_like(tree.levels[0].reach[0])
    for i, term in enumerate(bias_terms(tree, errors)):
        total = total + (1 - lam) * lam**i * term
    return total


def _check_errors(tree: Tree, errors: Sequence[Tensor]) -> None:
    shapes = [tuple(level.reach.shape) for level in tree.levels]
    if [tuple(e.shape) for e in errors] != shapes:
        raise InputError(f"errors must have one number for each prefix, level by level: shapes {short(shapes)}")
    if not all(bool(e.isfinite().all()) for e in errors):
        raise InputError("errors hold NaN or infinity; every entry must be a finite number")
    if tree.levels[0].share.shape != tree.levels[0].pi.shape:
        raise InputError("tree must follow every token: the bias is a mean over all of them")


def _mean_of_children(tree: Tree, k: int, values: list[Tensor]) -> Float[Tensor, "N"]:
    """The mean over the next token of a number of every child; 0 below the last level."""
    level = tree.levels[k]
    if k + 1 == len(tree.levels):
        return torch.zeros_like(level.reach)
    return (level.share * values[k + 1].reshape(level.share.shape)).sum(-1)


def _next_step(tree: Tree, own: list[Tensor], at_own: list[Tensor]) -> list[Tensor]:
    """At every prefix the number of the policy's own steps where it speaks, else its mean at the next own step."""
    numbers = list(at_own)
    for k in reversed(range(len(tree.levels))):
        numbers[k] = torch.where(own[k] > 0, at_own[k], _mean_of_children(tree, k, numbers))
    return numbers


def _score_sum(tree: Tree, own: list[Tensor], ahead: list[Tensor]) -> Float[Tensor, ""]:
    """`sum_t E[log pi(c_t) ahead(s_{t+1})]` over the policy's own steps, the last factor a constant."""
    total = torch.zeros_like(tree.levels[0].reach[0])
    for level, alive, after in zip(tree.levels[:-1], own, ahead[1:], strict=False):
        log_pi = possible_log_probs(level.policy_logits).gather(1, level.tokens)
        total = total + (level.reach * alive) @ (level.share * after.reshape(level.share.shape) * log_pi).sum(-1)
    return total
