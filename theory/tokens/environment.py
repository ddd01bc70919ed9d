"""The part of the environment in a prefix tree: its own tokens, where it speaks, and what it pays.

Theory page, section 3: "Where the environment speaks".
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from envs.token_mdp import TokenMDP
from envs.world import InputError


def spoken_logits(
    world: TokenMDP, belief: Float[Tensor, "N S"], logits: Float[Tensor, "N V"]
) -> tuple[Bool[Tensor, "N"], Float[Tensor, "N V"]]:
    """Whether the policy speaks after each prefix, and the logits of the next token: the policy's, or the environment's.

    Args:
        world: the token world.
        belief: probabilities of the abstract states after each prefix.
        logits: the policy's.

    Returns:
        True where the policy speaks, and the logits of the law of the next token.

    Raises:
        InputError: a relaxed token leaves open who speaks next.
    """
    if world.speech is None:
        return torch.ones_like(belief[:, 0], dtype=torch.bool), logits
    own = ~world.environments_turn(belief)
    _check_turn(world, belief, own)
    law = belief @ world.speech
    spoken = torch.where(law > 0, torch.where(law > 0, law, 1.0).log(), -torch.inf)
    return own, torch.where(own[:, None], logits, spoken)


def _check_turn(world: TokenMDP, belief: Tensor, own: Tensor) -> None:
    try:
        mixed = bool((~own & (belief @ (~world.speaking).to(belief) > 0)).any())
    except RuntimeError:  # under vmap no number can be looked at
        return
    if mixed:
        raise InputError("alpha must be 1 in this world: a relaxed token leaves open whether the policy speaks next")


def paid(world: TokenMDP, k: int, belief: Tensor, heard: Tensor | None, u: Tensor) -> Float[Tensor, "N C"]:
    """`rbar_k(b, u)` of every edge.

    Args:
        world: the token world.
        k: the step.
        belief: probabilities of the abstract states at every node.
        heard: the same once the edge's token is known, where the environment may speak; else None.
        u: the (relaxed) token of every edge.

    Returns:
        The expected reward of every edge, not discounted.
    """
    if heard is None:
        rewards = torch.einsum("nv,ncv->nc", belief @ world.r[k], u)
    else:
        rewards = torch.einsum("ncz,zv,ncv->nc", heard, world.r[k], u)
    if not rewards.requires_grad:
        return rewards
    # what is usually paid has slope 0, as probabilities add up to 1; without it the slope of what is seldom paid has its digits
    usual = world.r[k][belief.detach().argmax(-1), u.detach().sum(1).argmax(-1)][:, None]
    mass = belief.sum(-1, keepdim=True) if heard is None else heard.sum(-1)
    centred: Tensor = rewards - usual * mass * u.sum(-1) + usual
    return centred
