"""Advantages, side by side: plain functions `(rewards, mask, group) -> advantages`.

Rewards, mask and advantages are (rows, T). Rewards are as in `agents.recipes.batch.Batch`: what each step adds to the return,
so `R_i = sum_t rewards_it`. An advantage multiplies `grad log pi(c_t)` at its step. "Mean" in the docstrings is the exact mean
of `sum_t A_t grad log pi(c_t)`, rows drawn from the policy itself, as a multiple of `grad J` (theory page section 4); P is
the success probability of a binary reward. Any other function of this form can be used in place of these.
"""

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.recipes.batch import check_rows
from envs.world import InputError

Advantage = Callable[[Tensor, Tensor, Tensor], Tensor]
Rewards = Float[Tensor, "rows T"]
Mask = Bool[Tensor, "rows T"]
Group = Int[Tensor, "rows"]
Part = TypeVar("Part", bound=Callable[..., Tensor])
_GROUP_WISE: WeakSet[Callable[..., Tensor]] = WeakSet()


def group_wise(part: Part) -> Part:
    """Mark an advantage, surrogate or normaliser whose rows depend on their own group alone (and on the number of groups).

    A learner made of such parts may take the rows of many batches in one call.

    Args:
        part: an advantage, surrogate or normaliser.

    Returns:
        The part itself.
    """
    _GROUP_WISE.add(part)
    return part


def is_group_wise(part: Callable[..., Tensor]) -> bool:
    """Whether a part is marked by `group_wise`; a user's own function counts as one that may mix groups until it is marked.

    Args:
        part: an advantage, surrogate or normaliser.

    Returns:
        True or False.
    """
    return part in _GROUP_WISE


@group_wise
def full_return(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = R_i`. Mean: grad J, at the highest variance of all.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.

    Returns:
        The advantage of every step, 0 where the mask is False.

    Raises:
        InputError: as in `agents.recipes.batch.check_rows`.
    """
    check_rows(rewards, mask, group)
    return _on_all_steps(rewards.sum(1), mask)


@group_wise
def reward_to_go(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = sum_{k>=t} r_ik`, without the rewards before the token, which add only variance. Mean: grad J.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.

    Returns:
        The advantage of every step, 0 where the mask is False.

    Raises:
        InputError: as in `agents.recipes.batch.check_rows`.
    """
    check_rows(rewards, mask, group)
    return _to_go(rewards) * mask


def batch_baseline(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = R_i - mean_{j != i} R_j` over the whole batch (REINFORCE with a baseline). Mean: grad J.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.

    Returns:
        The advantage of every step, 0 where the mask is False.

    Raises:
        InputError: as in `agents.recipes.batch.check_rows`, with a batch of 2 or more.
    """
    check_rows(rewards, mask, group)
    return leave_one_out(rewards, mask, torch.zeros_like(group))


@group_wise
def leave_one_out(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = R_i - mean_{j != i} R_j` within the group (RLOO, arXiv:2402.14740). Mean: grad J. Needs groups of two or more.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.

    Returns:
        The advantage of every step, 0 where the mask is False.

    Raises:
        InputError: as in `agents.recipes.batch.check_rows`, with groups of 2 or more.
    """
    sizes = check_rows(rewards, mask, group, least=2)[group].to(rewards)[:, None]
    return mean_baseline(rewards, mask, group) * sizes / (sizes - 1)


@group_wise
def leave_one_out_to_go(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """Reward-to-go minus the mean reward-to-go of the group's other rows at the same step. Mean: grad J.

    A row that has ended counts with reward-to-go 0: without it the baseline would depend on its length. Needs groups of
    two or more.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.

    Returns:
        The advantage of every step, 0 where the mask is False.

    Raises:
        InputError: as in `agents.recipes.batch.check_rows`, with groups of 2 or more.
    """
    sizes = check_rows(rewards, mask, group, least=2)[group].to(rewards)[:, None]
    to_go = _to_go(rewards)
    return (to_go - group_mean(to_go, group)) * sizes / (sizes - 1) * mask


@group_wise
def mean_baseline(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = R_i - mean_j R_j`, row i included in the mean (Dr. GRPO, arXiv:2503.20783). Mean: (G-1)/G grad J.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.

    Returns:
        The advantage of every step, 0 where the mask is False.

    Raises:
        InputError: as in `agents.recipes.batch.check_rows`.
    """
    check_rows(rewards, mask, group)
    return _on_all_steps(_centred(rewards.sum(1), group), mask)


def standardised(population: bool = True, eps: float = 0.0) -> Advantage:
    """`A_it = (R_i - mean_j R_j) / (std_j R_j + eps)` (GRPO, arXiv:2402.03300), 0 where all returns of a group are equal.

    Mean for binary rewards: `c_G(P) grad P`. With the population std and eps = 0, `c_G(P) = E sqrt(k(1-k)) / (P(1-P))` with
    k ~ Bin(G, P) / G; the sample std multiplies it by sqrt((G-1)/G). For other rewards the mean is not a multiple of grad J.

    Args:
        population: whether the variance is divided by G; else by G - 1 (the sample's).
        eps: added to the std.

    Returns:
        The advantage function; it needs groups of two or more.

    Raises:
        InputError: eps < 0.
    """
    if not eps >= 0:
        raise InputError(f"eps must be >= 0; got {eps!r}")

    @group_wise
    def advantage(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
        """Returns, centred within the group and divided by its standard deviation."""
        sizes = check_rows(rewards, mask, group, least=2)[group].to(rewards)
        centred = _centred(rewards.sum(1), group)
        std = (group_mean(centred**2, group) * (1.0 if population else sizes / (sizes - 1))).sqrt()
        # returns that differ only by the rounding of their sums count as equal
        equal = std <= 16 * torch.finfo(std.dtype).eps * group_mean(rewards.abs().sum(1), group)
        return _on_all_steps(torch.where(equal, 0.0, centred / torch.where(equal, 1.0, std + eps)), mask)

    return advantage


@group_wise
def mean_normalised(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = (R_i - m) / m`, m the group's mean return (MaxRL, arXiv:2602.02710), 0 where m <= 0.

    Mean for binary rewards: `(1 - (1-P)^{G-1}) / P grad P`, the slope of `-sum_{k<G} (1-P)^k / k`, which is log P cut after
    G - 1 terms. For other rewards the mean is not a multiple of grad J. It is meant for returns >= 0: a trainer refuses it
    where they may be negative.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.

    Returns:
        The advantage of every step, 0 where the mask is False.

    Raises:
        InputError: as in `agents.recipes.batch.check_rows`, with groups of 2 or more.
    """
    check_rows(rewards, mask, group, least=2)
    R = rewards.sum(1)
    mean = group_mean(R, group)
    return _on_all_steps(torch.where(mean > 0, _centred(R, group) / torch.where(mean > 0, mean, 1.0), 0.0), mask)


def whitened(baseline: bool = False) -> Advantage:
    """`A_it = (x_it - mean x) / std x`, mean and std over all tokens of the batch (REINFORCE++, arXiv:2501.03262).

    x is the reward-to-go, or with `baseline` the return less the mean of the row's group, at all of its tokens. The
    groups of a batch are mixed. 0 where all x are equal. Mean: see `agents.recipes.learners.reinforce_pp`.

    Args:
        baseline: whether the mean of the row's group is subtracted.

    Returns:
        The advantage function.
    """
    base = mean_baseline if baseline else reward_to_go

    def advantage(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
        check_rows(rewards, mask, group, least=2 if baseline else 1)
        x, size = base(rewards, mask, group), rewards.abs().sum(1).mean()
        tokens = x[mask]
        std = tokens.std(correction=0)
        if bool(std <= 16 * torch.finfo(x.dtype).eps * size):
            return torch.zeros_like(x)
        return torch.where(mask, (x - tokens.mean()) / std, 0.0)

    return advantage


def gae(values: Float[Tensor, "rows T"], lam: float) -> Advantage:
    """GAE on a critic's values (arXiv:1506.02438): `A_t = sum_j lam^j delta_{t+j}`, `delta_t = r_t + V_{t+1} - V_t`.

    t counts the policy's own steps: where the environment speaks in between, r_t holds what is paid until the policy speaks
    again, and lam enters once. The value after the last step of a row is 0: the horizon belongs to the problem. Mean: grad J
    for lam = 1 with any values that do not depend on the step's token, and for every lam with the exact V. Else the critic's
    error biases the update by a polynomial in lam (theory page section 6). A constant error biases it too where an end token
    may be said: it pays for longer or shorter rows.

    Args:
        values: `gamma^k V_k` before each step; rewards and values carry their discount, so gamma does not enter.
        lam: lambda.

    Returns:
        The advantage function.

    Raises:
        InputError: lam lies outside [0, 1].
    """
    if not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {lam!r}")

    @group_wise
    def advantage(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
        """`A_t = delta_t + lam A_{t+1}`, from the last step back."""
        check_rows(rewards, mask, group)
        total = V_after = between = torch.zeros_like(rewards[:, 0])
        columns = []
        for r, own, V in zip(*(x.unbind(1)[::-1] for x in (rewards, mask, values)), strict=True):
            paid = r + between
            total = torch.where(own, paid + V_after - V + lam * total, total)
            V_after, between = torch.where(own, V, V_after), torch.where(own, 0.0, paid)
            columns.append(total)
        return torch.stack(columns[::-1], 1) * mask

    return advantage


def group_mean(x: Float[Tensor, "rows *rest"], group: Group) -> Float[Tensor, "rows *rest"]:
    """The mean of each row's group, row by row.

    Args:
        x: one entry for each row; further axes are kept.
        group: number of each row's group.

    Returns:
        The mean, in the shape of x.
    """
    sizes = torch.bincount(group).to(x)
    sums = x.new_zeros(len(sizes), *x.shape[1:]).index_add_(0, group, x)
    return (sums / sizes.reshape(-1, *[1] * (x.ndim - 1)))[group]


def _centred(R: Float[Tensor, "rows"], group: Group) -> Float[Tensor, "rows"]:
    """`R - mean` within the group. Differences from its first row are taken first, so equal returns give exactly 0."""
    first = torch.full_like(torch.bincount(group), len(group))
    first.scatter_reduce_(0, group, torch.arange(len(group), device=group.device), "amin")
    from_first = R - R[first][group]
    return from_first - group_mean(from_first, group)


def _to_go(rewards: Tensor) -> Tensor:
    return rewards.flip(1).cumsum(1).flip(1)


def _on_all_steps(row: Float[Tensor, "rows"], mask: Mask) -> Float[Tensor, "rows T"]:
    """One number for each row, at all steps of its completion."""
    return row[:, None] * mask
