"""Selections of groups, side by side: which groups of a batch an update is made of."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agents.recipes.advantages import Group, Mask, Rewards, group_mean
from envs.world import InputError


def mixed_accuracy(
    rewards: Rewards, mask: Mask, group: Group, *, accuracy: Float[Tensor, "rows"]
) -> Bool[Tensor, "rows"]:
    """Groups that hold successes and failures: `0 < mean accuracy < 1` (dynamic sampling of DAPO, arXiv:2503.14476).

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.
        accuracy: 1 for a row that succeeds, 0 for one that fails.

    Returns:
        True for the rows of the groups that are kept.

    Raises:
        InputError: an accuracy lies outside [0, 1].
    """
    if not bool(((accuracy >= 0) & (accuracy <= 1)).all()):
        raise InputError("accuracy must lie in [0, 1], 1 for a success")
    solved, failed = group_mean(accuracy.eq(1).to(rewards), group), group_mean(accuracy.eq(0).to(rewards), group)
    return (solved < 1) & (failed < 1)


def mixed_returns(rewards: Rewards, mask: Mask, group: Group) -> Bool[Tensor, "rows"]:
    """Groups whose returns are not all equal, up to the rounding of their sums.

    Args:
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        group: number of each row's group.

    Returns:
        True for the rows of the groups that are kept.
    """
    R, size = rewards.sum(1), group_mean(rewards.abs().sum(1), group)
    largest, smallest = (_extreme(R, group, kind) for kind in ("amax", "amin"))
    return largest - smallest > 32 * torch.finfo(R.dtype).eps * size


def _extreme(R: Float[Tensor, "rows"], group: Group, kind: str) -> Float[Tensor, "rows"]:
    """The largest or smallest return of each row's group."""
    none = R.new_zeros(int(group.max()) + 1)
    found: Tensor = none.scatter_reduce(0, group, R, kind, include_self=False)[group]
    return found


SELECTIONS: dict[str, Callable[..., Tensor] | None] = {
    "none": None,
    "accuracy": mixed_accuracy,
    "reward": mixed_returns,
}
