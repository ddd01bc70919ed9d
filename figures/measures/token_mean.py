"""The exact mean of an update whose terms are divided by the number of tokens in a batch of several groups."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.polynomial import polypow
from torch import Tensor

from agents.recipes.learners import Learner
from agents.recipes.surrogates import row_sum
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.groups.expected_update import ExpectedUpdate, expected_update
from theory.tokens.completions import words
from theory.tokens.prefix_tree import grow


def expected_token_mean(
    world: TokenMDP, policy: TokenPolicy, learner: Learner, group: int, groups: int
) -> ExpectedUpdate:
    """The exact mean of a learner's first update under the normaliser `token_mean`, in a batch of `groups` groups.

    The other groups enter only through their lengths. Written as a polynomial with coefficients P(length = k), the length
    distribution of a group is a power of that of one row. For a group of L tokens, `1 / (L + S)` is then averaged over the
    number S of tokens in the other groups.

    Args:
        world: the world; the other groups' prompts are drawn by its weights.
        policy: the policy that draws the rows and is updated.
        learner: the recipe, whose normaliser is replaced.
        group: rows of each group.
        groups: groups in the batch.

    Raises:
        InputError: fewer than one group.
    """
    if groups < 1:
        raise InputError(f"groups must be a whole number >= 1; got {groups!r}")
    inverse = group * groups * _mean_inverse_length(world, policy, group, groups)

    def normalise(mask: Tensor, index: Tensor) -> Tensor:
        lengths = torch.zeros_like(torch.bincount(index)).index_add_(0, index, mask.sum(1))
        return row_sum(mask, index) * inverse[lengths - 1][index][:, None]

    return expected_update(world, policy, replace(learner, normalise=normalise), group)


def _mean_inverse_length(
    world: TokenMDP, policy: TokenPolicy, group: int, groups: int
) -> Float[Tensor, "group_lengths"]:
    """`E[1 / (L + S)]` for L = 1, 2, ..., S the number of tokens of the other `groups - 1` groups."""
    with torch.no_grad():
        rows = words(grow(world, policy))
    law = rows.p.new_zeros(len(rows.p), world.horizon + 1).scatter_add_(1, rows.mask.sum(-1), rows.p)
    of_group = world.weights.cpu().numpy() @ np.stack([polypow(of_row, group) for of_row in law.cpu().numpy()])
    others = torch.as_tensor(polypow(of_group, groups - 1) if groups > 1 else [1.0]).to(law)
    lengths = torch.arange(1, group * world.horizon + 1, device=law.device)[:, None]
    return (others / (lengths + torch.arange(len(others), device=law.device))).sum(1)
