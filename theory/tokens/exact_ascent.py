"""Training without noise: gradient ascent on the exact expected return of a token world, the limit of every learner."""

import copy
from collections.abc import Sequence

import torch

from envs.policy import AnyTokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import total_surrogate


def exact_ascent(
    world: TokenMDP, policy: AnyTokenPolicy, checkpoints: Sequence[int], rate: float = 0.01, alpha: float = 1.0
) -> list[AnyTokenPolicy]:
    """Copies of the policy after some numbers of Adam steps on the exact `grad_theta J_alpha`; the policy is not changed.

    Args:
        world: whose return is climbed.
        policy: where the ascent begins.
        checkpoints: numbers of steps, whole, >= 0 and rising; 0 gives a copy of the policy itself.
        rate: step size of Adam.
        alpha: of the relaxed tokens.

    Returns:
        One policy for each checkpoint.

    Raises:
        InputError: the checkpoints do not rise.
    """
    if not checkpoints or list(checkpoints) != sorted(set(checkpoints)) or checkpoints[0] < 0:
        raise InputError(f"checkpoints must be rising whole numbers >= 0; got {tuple(checkpoints)}")
    policy = copy.deepcopy(policy)
    optimiser = torch.optim.Adam(policy.parameters(), lr=rate, maximize=True)
    trained = []
    for step in range(checkpoints[-1] + 1):
        if step in checkpoints:
            trained.append(copy.deepcopy(policy))
        optimiser.zero_grad()
        total_surrogate(grow(world, policy, alpha)).backward()
        optimiser.step()
    return trained
