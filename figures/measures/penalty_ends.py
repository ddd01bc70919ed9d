"""Where penalised updates of a table end: ascent along the exact mean update of a learner, and what is known of its end."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import Penalty, build_learner
from envs.token_mdp import TokenMDP
from figures.measures.tables import Field, ascent, mean_field, prefix_chances, table_of
from theory.tokens.prefix_tree import grow


def penalised_field(world: TokenMDP, reference: PrefixTable, place: str, estimator: str, beta: float) -> Field:
    """The exact mean update of REINFORCE with a KL penalty, `place` "kl_reward" or "kl_loss"."""
    penalty: dict[str, Any] = {place: Penalty(estimator, beta)}
    return mean_field(world, build_learner("reinforce", **penalty), reference=reference)


def reward_path(
    world: TokenMDP, start: PrefixTable, reference: PrefixTable, beta: float, rate: float = 1.0
) -> list[PrefixTable]:
    """The way of k1 in the reward, in natural coordinates: each prefix by its chance, each token by its probability.

    At rate 1 a step is one of soft policy iteration.
    """
    return ascent(
        world,
        penalised_field(world, reference, "kl_reward", "k1", beta),
        start,
        lambda policy: beta * prefix_chances(world, policy) * _law(policy),
        rate,
    )


def loss_path(
    world: TokenMDP, start: PrefixTable, reference: PrefixTable, beta: float, rate: float = 0.5
) -> list[PrefixTable]:
    """The way of k3 in the loss; the scale is minus the slope of the update in a token's own logit at its end."""

    def scale(policy: PrefixTable) -> Tensor:
        own, ref = _law(policy), _law(reference)
        return beta * prefix_chances(world, policy) * (ref + own * (own - ref).clamp(min=0))

    return ascent(world, penalised_field(world, reference, "kl_loss", "k3", beta), start, scale, rate)


def token_by_token(world: TokenMDP, reference: PrefixTable, beta: float) -> PrefixTable:
    """`prop ref(a) exp(gamma^k r / b)` at every prefix: the tilt that looks at the token's own reward alone."""
    levels = grow(world, reference).levels
    return table_of(world, [level.logits + world.gamma**k * level.rewards / beta for k, level in enumerate(levels)])


def _law(policy: PrefixTable) -> Float[Tensor, "rows V"]:
    return torch.softmax(policy.logits.detach(), -1)
