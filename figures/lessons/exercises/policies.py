"""The policies of the lessons, as `costate.random_policies` draws them."""

from agents.policies.transformer import Transformer
from envs.token_mdp import TokenMDP


def first_policy(world: TokenMDP, seed: int = 0) -> Transformer:
    """A small random transformer for a token world.

    Args:
        world: whose tokens it writes.
        seed: of its parameters.

    Returns:
        The policy.
    """
    return Transformer(world.V, length=world.longest, seed=seed)
