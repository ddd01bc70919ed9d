"""A token world with two policies: one that is updated, and another that it is compared with."""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import nn

from agents.policies.transformer import Transformer
from envs.token_mdp import TokenMDP
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.exact_ascent import exact_ascent

_RATE = 0.02  # of the exact ascent
_SPREAD = 2.0  # of the random policies' heads
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class PolicyPair:
    """A world, the policy to be updated, and the other: the one that drew the rows, or the reference of a KL term."""

    world: TokenMDP
    policy: Transformer
    other: Transformer


@lru_cache(maxsize=64)
def ascended_pair(name: str, seed: int, steps: int, ahead: int = 0, device: str = "cpu") -> PolicyPair:
    """A pair in the named world with one of its prompts; it is shared by its callers, who must not change it.

    Args:
        name: of the world.
        seed: of the random policy at the start; it also picks the prompt.
        steps: of exact ascent from there, by which success probabilities spread over (0, 1).
        ahead: further steps, after which comes the policy to be updated, the other being the one before them. With 0 the
            other is a second random policy.
        device: of the world and both policies.
    """
    world = build_world(name).to(device)
    pick = torch.tensor([seed % len(world.prompts)], device=device)
    world = replace(world, prompts=world.prompts[pick], starts=world.starts[pick], weights=None)
    start = build_policy(world, seed, spread=_SPREAD)
    if ahead:
        behind, policy = exact_ascent(world, start, (steps, steps + ahead), _RATE)
        return PolicyPair(world, policy, behind)
    (policy,) = exact_ascent(world, start, (steps,), _RATE)
    return PolicyPair(world, policy, build_policy(world, 100 + seed, spread=_SPREAD))


def between(reference: Network, other: Network, share: float) -> Network:
    """A copy of the reference whose parameters lie `share` of the way from the reference's to the other's."""
    policy = copy.deepcopy(reference)
    with torch.no_grad():
        for p, q in zip(policy.parameters(), other.parameters(), strict=True):
            p.add_(share * (q - p))
    return policy
