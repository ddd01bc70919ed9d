"""The parts of an actor's loss, side by side: surrogates, normalisers, estimators of the KL divergence.

A *surrogate* `(log_probs, old, advantages, mask) -> terms`, all (rows, T), is maximised. At `log_probs = old` its slope in a
log-probability is the step's advantage (for GSPO the row's advantage is divided evenly among its steps). A *normaliser*
`(mask, group) -> weights` (rows, T) weights the terms of a batch in their sum; every group has the same total weight, except
under `token_mean`. A row that is left out of the loss may have an empty mask: it counts as a row without tokens.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.recipes.advantages import group_mean, group_wise
from envs.world import InputError

Surrogate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Normaliser = Callable[[Tensor, Tensor], Tensor]
Terms = Float[Tensor, "rows T"]
Mask = Bool[Tensor, "rows T"]
Group = Int[Tensor, "rows"]


@group_wise
def score(log_probs: Terms, old: Terms, advantages: Terms, mask: Mask) -> Terms:
    """`A log pi(c)`: REINFORCE. There is no ratio: rows of an older policy are treated as the current policy's.

    Args:
        log_probs: log pi of the steps, which carry the gradient.
        old: the same for the policy that drew the rows, constants.
        advantages: of the steps, constants.
        mask: True for the policy's steps.

    Returns:
        What is maximised, step by step.
    """
    return advantages * log_probs


@group_wise
def importance(log_probs: Terms, old: Terms, advantages: Terms, mask: Mask) -> Terms:
    """`A pi(c) / pi_old(c)`, token by token: it corrects each token's own probability but not that of its prefix.

    Args:
        log_probs: log pi of the steps, which carry the gradient.
        old: the same for the policy that drew the rows, constants.
        advantages: of the steps, constants.
        mask: True for the policy's steps.

    Returns:
        What is maximised, step by step.
    """
    return advantages * (log_probs - old).exp()


def clipped(low: float = 0.2, high: float = 0.2) -> Surrogate:
    """PPO (arXiv:1707.06347): `min(rho A, clip(rho, 1 - low, 1 + high) A)` with `rho = pi / pi_old`.

    DAPO has high > low.

    Args:
        low: how far below 1 the ratio may go.
        high: how far above.

    Returns:
        The surrogate.

    Raises:
        InputError: low or high is negative.
    """
    _check_clip(low, high)

    @group_wise
    def surrogate(log_probs: Terms, old: Terms, advantages: Terms, mask: Mask) -> Terms:
        ratio = (log_probs - old).exp()
        return torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)

    return surrogate


def sequence_clipped(low: float = 3e-4, high: float = 4e-4) -> Surrogate:
    """GSPO (arXiv:2507.18071): PPO's clip with one ratio for the whole row, `s = exp(mean_t log(pi / pi_old))`.

    Each of the row's |o| terms is the clipped `s A`; advantages must be one number for each row. At s = 1 the slope of
    one term in one log-probability is `A / |o|`, and that of the row's sum is A: with `row_mean` the first step of GSPO
    is that of GRPO with the factor 1/|o|.

    Args:
        low: how far below 1 the row's ratio may go.
        high: how far above.

    Returns:
        The surrogate.

    Raises:
        InputError: low or high is negative.
    """
    _check_clip(low, high)

    @group_wise
    def surrogate(log_probs: Terms, old: Terms, advantages: Terms, mask: Mask) -> Terms:
        mean = ((log_probs - old) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        return clipped(low, high)(mean.expand_as(log_probs), torch.zeros_like(old), advantages, mask)

    return surrogate


def truncated_importance(high: float = 0.28) -> Surrogate:
    """CISPO (arXiv:2506.13585): `stop(min(rho, 1 + high)) A log pi(c)`: the weight is truncated, but no slope becomes 0.

    Args:
        high: how far above 1 the weight may go.

    Returns:
        The surrogate.

    Raises:
        InputError: high is negative.
    """
    _check_clip(0.0, high)

    @group_wise
    def surrogate(log_probs: Terms, old: Terms, advantages: Terms, mask: Mask) -> Terms:
        return (log_probs - old).exp().clamp(max=1 + high).detach() * advantages * log_probs

    return surrogate


def off_policy_mask(delta: float) -> Callable[[Terms, Terms, Terms, Mask], Mask]:
    """DeepSeek-V3.2's off-policy mask: a step with `A < 0` is left out if its row has `mean_t log(pi_old / pi) > delta`.

    Rows that the policy hardly says any more are not pushed down further. At pi = pi_old every step is kept.

    Args:
        delta: the limit, in nats per token; infinity keeps everything.

    Returns:
        A function of what a surrogate takes; it gives True for the steps that are kept.

    Raises:
        InputError: delta is not > 0.
    """
    if not delta > 0:
        raise InputError(f"off_policy_delta must be > 0, in nats per token (0.1 for instance); got {delta!r}")

    def kept(log_probs: Terms, old: Terms, advantages: Terms, mask: Mask) -> Mask:
        steps = mask.sum(1, keepdim=True).clamp(min=1)
        away = torch.where(mask, old - log_probs.detach(), 0.0).sum(1, keepdim=True) / steps
        return (advantages >= 0) | (away <= delta)

    return kept


def _check_clip(low: float, high: float) -> None:
    for name, bound in (("low", low), ("high", high)):
        if not bound >= 0:
            raise InputError(f"{name} must be >= 0, how far the ratio may go from 1; got {bound!r}")


@group_wise
def row_sum(mask: Mask, group: Group) -> Terms:
    """Sum over a row's steps, mean over rows, mean over groups: without a length factor (REINFORCE, RLOO, Dr. GRPO).

    Args:
        mask: True for the steps that count.
        group: number of each row's group.

    Returns:
        The weight of every step.
    """
    rows, groups = _group_sizes(group)
    return mask / (rows[group] * groups)[:, None]


@group_wise
def row_mean(mask: Mask, group: Group) -> Terms:
    """Mean over a row's steps, then over rows: the factor `1/|o|` of GRPO, which gives tokens of short rows more weight.

    Args:
        mask: True for the steps that count.
        group: number of each row's group.

    Returns:
        The weight of every step.
    """
    return row_sum(mask, group) / mask.sum(1, keepdim=True).clamp(min=1)


@group_wise
def group_token_mean(mask: Mask, group: Group) -> Terms:
    """Mean over all tokens of a group, then over groups: `1 / sum_i |o_i|`, DAPO's formula for one prompt.

    Args:
        mask: True for the steps that count.
        group: number of each row's group.

    Returns:
        The weight of every step.
    """
    mean_length = group_mean(mask.sum(1).double(), group)
    return row_sum(mask, group).double() / torch.where(mean_length > 0, mean_length, 1.0)[:, None]


def token_mean(mask: Mask, group: Group) -> Terms:
    """Mean over all tokens of the batch, as in common libraries: it couples the groups, so the cut of a batch matters.

    Args:
        mask: True for the steps that count.
        group: number of each row's group.

    Returns:
        The weight of every step.
    """
    return mask / mask.sum().clamp(min=1).double().expand(len(mask), 1)


def _group_sizes(group: Group) -> tuple[Float[Tensor, "groups"], int]:
    sizes = torch.bincount(group).double()
    return sizes, len(sizes)


NORMALISERS: dict[str, Normaliser] = {
    "row sum": row_sum,
    "row mean": row_mean,
    "group token mean": group_token_mean,
    "token mean": token_mean,
}


def k1(log_ratio: Terms) -> Terms:
    """`log(pi / pi_ref)`: unbiased for KL(pi || pi_ref), of either sign; as a loss its mean gradient is 0.

    Args:
        log_ratio: log(pi / pi_ref) of every token.

    Returns:
        The estimate of every token, in nats.
    """
    return log_ratio


def k2(log_ratio: Terms) -> Terms:
    """`log(pi / pi_ref)^2 / 2`: biased as a value; as a loss, prefixes fixed, its mean gradient is grad KL(pi || pi_ref).

    Args:
        log_ratio: log(pi / pi_ref) of every token.

    Returns:
        The estimate of every token, in nats.
    """
    return log_ratio**2 / 2


def k3(log_ratio: Terms) -> Terms:
    """`pi_ref / pi - 1 - log(pi_ref / pi)`: unbiased and >= 0; as a loss its mean gradient is grad KL(pi_ref || pi).

    Args:
        log_ratio: log(pi / pi_ref) of every token.

    Returns:
        The estimate of every token, in nats.
    """
    return (-log_ratio).expm1() + log_ratio


KL_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
