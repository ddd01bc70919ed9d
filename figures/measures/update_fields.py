"""Mean updates as fields over the logits of a table, by the name of the recipe, and costates as a regressed field."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import Penalty, build_learner
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise
from envs.token_mdp import TokenMDP
from figures.measures.distillation import at_prefixes
from figures.measures.rollouts import costates_of
from figures.measures.tables import Field, mean_field

LENGTH, STD = "1/|o|", "GRPO with std"
ENTROPY, K3, K2, DISTILLATION = "entropy bonus", "k3 in the loss", "k2 in the loss", "on-policy distillation"
_PENALTIES: dict[str, tuple[str, str]] = {
    "k1 in the reward": ("kl_reward", "k1"),
    K2: ("kl_loss", "k2"),
    K3: ("kl_loss", "k3"),
}
_PLAIN: dict[str, tuple[str, int, dict[str, Any]]] = {
    "REINFORCE": ("reinforce", 1, {}),
    "RLOO": ("rloo", 2, {}),
    STD: ("grpo", 3, {"length": "row sum"}),
    LENGTH: ("grpo", 2, {"std": "none"}),
}
RECIPES = (*_PLAIN, *_PENALTIES, ENTROPY, DISTILLATION)


def recipe_field(world: TokenMDP, recipe: str, beta: float, seed: int) -> Field:
    """The exact mean update of a recipe; the reference, or the teacher, is a random table of this seed."""
    other = PrefixTable(world, seed=seed).to(world.P.device)
    if recipe == DISTILLATION:
        return at_prefixes(world, [other], torch.ones(1).to(other.logits))
    if recipe == ENTROPY:
        return mean_field(world, build_learner("reinforce", entropy=beta))
    if recipe in _PENALTIES:
        place, estimator = _PENALTIES[recipe]
        penalty: dict[str, Any] = {place: Penalty(estimator, beta)}
        return mean_field(world, build_learner("reinforce", **penalty), reference=other)
    name, group, options = _PLAIN[recipe]
    return mean_field(world, build_learner(name, **options), group)


def regressions(
    world: LinearQuadratic, K: Tensor, X: Float[Tensor, "n n"], noise: Noise, count: int
) -> tuple[Float[Tensor, "count n n"], Float[Tensor, "count n n"]]:
    """Errors of `count` regressions of the costate at time 0 on the state, and the inverse second moments of their states.

    Args:
        world: a linear-quadratic system.
        K: the policy's gain.
        X: the field that is right, `E[lambda_0 | s] = X s`.
        noise: of all paths, cut into `count` equal parts.
        count: number of regressions.
    """
    costates, trajectory = costates_of(world, LinearPolicy(K).to(str(K.device)), noise)
    s, lam = (x.detach().reshape(count, -1, x.shape[-1]) for x in (trajectory.states[:, 0], costates[:, 0]))
    moments = s.mT @ s
    fitted = torch.linalg.solve(moments, s.mT @ lam).mT
    return fitted - X, torch.linalg.inv(moments)
