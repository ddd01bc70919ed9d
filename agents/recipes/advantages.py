"""Rewards to advantages, side by side: plain functions `(rewards, mask, group) -> advantages`, all (rows, T).

Rewards are as in `agents.recipes.batch.Batch`: what each step adds to the return, so `R_i = sum_t rewards_it`. An advantage
multiplies `grad log pi(c_t)` at its step. In each docstring stands the exact mean of `sum_t A_t grad log pi(c_t)`, rows drawn
from the policy itself, as a multiple of `grad J` (theory page section 4); P is the success probability of a binary reward.
Any other function of this form can be put in their place.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.recipes.batch import check_rows
from envs.world import InputError

Advantage = Callable[[Tensor, Tensor, Tensor], Tensor]
Rewards = Float[Tensor, "rows T"]
Mask = Bool[Tensor, "rows T"]
Group = Int[Tensor, "rows"]


def full_return(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = R_i`. Mean: grad J, exactly, at the highest variance."""
    check_rows(rewards, mask, group)
    return _spread(rewards.sum(1), mask)


def reward_to_go(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = sum_{k>=t} r_ik`: what came before the token has mean 0 and is left out. Mean: grad J."""
    check_rows(rewards, mask, group)
    return _to_go(rewards) * mask


def batch_baseline(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = R_i - mean of all other rows' R`, whatever their prompt: REINFORCE with a baseline. Mean: grad J."""
    check_rows(rewards, mask, group)
    return leave_one_out(rewards, mask, torch.zeros_like(group))


def leave_one_out(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = R_i - mean_{j != i} R_j` within the group (RLOO, arXiv:2402.14740). Mean: grad J. Groups of two or more."""
    sizes = check_rows(rewards, mask, group, least=2)[group].to(rewards)[:, None]
    return mean_baseline(rewards, mask, group) * sizes / (sizes - 1)


def leave_one_out_to_go(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it` = reward-to-go minus the others' mean reward-to-go at the same step. Mean: grad J. Groups of two or more.

    A row that has ended has reward-to-go 0 and counts; leaving it out would make the baseline depend on its length.
    """
    sizes = check_rows(rewards, mask, group, least=2)[group].to(rewards)[:, None]
    to_go = _to_go(rewards)
    return (to_go - group_mean(to_go, group)) * sizes / (sizes - 1) * mask


def mean_baseline(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
    """`A_it = R_i - mean_j R_j`, its own row in the mean (Dr. GRPO, arXiv:2503.20783). Mean: (G-1)/G grad J."""
    check_rows(rewards, mask, group)
    return _spread(_centred(rewards.sum(1), group), mask)


def standardised(population: bool = True, eps: float = 0.0) -> Advantage:
    """`A_it = (R_i - mean_j R_j) / (std_j R_j + eps)` (GRPO, arXiv:2402.03300), 0 where all rewards of a group are equal.

    Mean for binary rewards: `c_G(P) grad P`, with the population std and eps 0
    `c_G(P) = E sqrt(k(1-k)) / (P(1-P))`, k ~ Bin(G, P) / G; the sample std multiplies it by sqrt((G-1)/G). For other rewards
    it is no multiple of grad J. Groups of two or more.
    """
    if not eps >= 0:
        raise InputError(f"eps must be >= 0; got {eps!r}")

    def advantage(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
        """Centred in the group, over its std."""
        sizes = check_rows(rewards, mask, group, least=2)[group].to(rewards)
        centred = _centred(rewards.sum(1), group)
        std = (group_mean(centred**2, group) * (1.0 if population else sizes / (sizes - 1))).sqrt()
        # returns that differ by the rounding of their sums are equal
        equal = std <= 16 * torch.finfo(std.dtype).eps * group_mean(rewards.abs().sum(1), group)
        return _spread(torch.where(equal, 0.0, centred / torch.where(equal, 1.0, std + eps)), mask)

    return advantage


def gae(values: Float[Tensor, "rows T"], lam: float) -> Advantage:
    """GAE on a critic's values (arXiv:1506.02438): `A_t = sum_j lam^j delta_{t+j}`, `delta_t = r_t + V_{t+1} - V_t`.

    Rewards and values carry their discount already (`gamma^k V_k`), so only lam is left. The value after the last step of a
    row is 0: the horizon belongs to the problem. Mean: grad J for lam = 1 with any values that do not look at the step's
    token, and for every lam with the exact V; else a biased critic biases the update by its error, the more the smaller lam.
    """
    if not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {lam!r}")

    def advantage(rewards: Rewards, mask: Mask, group: Group) -> Float[Tensor, "rows T"]:
        """The recursion, from the last step back."""
        check_rows(rewards, mask, group)
        V = torch.where(mask, values, 0.0)
        after = torch.cat([V[:, 1:], torch.zeros_like(V[:, :1])], 1)
        delta, total, out = rewards + after - V, torch.zeros_like(V[:, 0]), []
        for t in reversed(range(delta.shape[1])):
            total = delta[:, t] + lam * total
            out.append(total)
        return torch.stack(out[::-1], 1) * mask

    return advantage


def group_mean(x: Float[Tensor, "rows *rest"], group: Group) -> Float[Tensor, "rows *rest"]:
    """Every row's group mean."""
    sizes = torch.bincount(group).to(x)
    sums = x.new_zeros(len(sizes), *x.shape[1:]).index_add_(0, group, x)
    return (sums / sizes.reshape(-1, *[1] * (x.ndim - 1)))[group]


def _centred(R: Float[Tensor, "rows"], group: Group) -> Float[Tensor, "rows"]:
    """`R - mean`, exactly 0 where all of a group are equal, however many: differences from its first row are taken first."""
    first = torch.full_like(torch.bincount(group), len(group))
    first.scatter_reduce_(0, group, torch.arange(len(group), device=group.device), "amin")
    from_first = R - R[first][group]
    return from_first - group_mean(from_first, group)


def _to_go(rewards: Tensor) -> Tensor:
    return rewards.flip(1).cumsum(1).flip(1)


def _spread(row: Float[Tensor, "rows"], mask: Mask) -> Float[Tensor, "rows T"]:
    """One number a row on all steps of its completion."""
    return row[:, None] * mask
