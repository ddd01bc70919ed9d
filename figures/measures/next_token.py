"""Next-token rewards on a corpus: the recipes with their factors, closed fields beside the likelihood's, and ends of tables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import Learner, grpo, maxrl, reinforce, rloo
from envs.corpus import Corpus, next_token_world, prediction_world
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.measures.tables import Field, mean_field, table_of
from figures.measures.token_systems import build_world
from theory.differences import directional_slope, flat_parameters
from theory.groups.binary_rewards import alignment, grpo_kappa, mean_factor
from theory.groups.objectives import of_policy, prompt_gradients, truncated_log_objective
from theory.tokens.dynamic_programming import best_words
from theory.tokens.next_token import log_likelihood
from theory.tokens.prefix_tree import Tree, grow

Kappa = Callable[[Tensor], Tensor]
RPT, LIKELIHOOD, ARCSINE = "RPT", "likelihood", "GRPO, G large"
_MOST = 20_000


class NextTokenRecipe(NamedTuple):
    """A recipe, its group size, and its factor kappa(P) in closed form."""

    learner: Learner
    group: int
    kappa: Kappa


def _by_std(group: int) -> NextTokenRecipe:
    return NextTokenRecipe(grpo(length="row sum"), group, lambda P: grpo_kappa(P, group))


def by_mean(group: int) -> NextTokenRecipe:
    """Division by the mean of a group of this size."""
    return NextTokenRecipe(maxrl(), group, lambda P: mean_factor(P, group))


RECIPES = {
    RPT: NextTokenRecipe(reinforce(), 1, torch.ones_like),
    "RLOO": NextTokenRecipe(rloo(), 2, torch.ones_like),
    "GRPO, G = 3": _by_std(3),
    "GRPO, G = 8": _by_std(8),
    "mean, G = 4": by_mean(4),
}
LIMITS: dict[str, Kappa] = {LIKELIHOOD: lambda P: 1 / P, ARCSINE: lambda P: 1 / (P * (1 - P)).sqrt()}
# laws of the next token after one context: on both sides of `q_1^2 >= sum of the other q_a^2`, and near it
LAWS = {
    "(.4, .35, .25)": (0.4, 0.35, 0.25),
    "(.6, .3, .1)": (0.6, 0.3, 0.1),
    "(.6, .4)": (0.6, 0.4),
    "(.45, .33, .22)": (0.45, 0.33, 0.22),
    "(.41, .34, .25)": (0.41, 0.34, 0.25),
    "(.28, .24, .2, .16, .12)": (0.28, 0.24, 0.2, 0.16, 0.12),
}


def corpus_world(name: str, thoughts: int, quality: float, noise: float) -> TokenMDP:
    """The first token of the answers of a corpus about a named world."""
    world = build_world(name)
    corpus = Corpus(world, best_words(world), quality, noise)
    return next_token_world(corpus, world.prompts.shape[1], thoughts)


def law_world(q: Float[Tensor, "V"]) -> TokenMDP:
    """One context whose next token has the law q."""
    rows = torch.stack([torch.zeros(len(q), dtype=torch.long), torch.arange(len(q))], 1).to(q.device)
    return prediction_world(len(q), rows, q)


def slope_of(world: TokenMDP, policy: TokenPolicy, objective: Callable[[Tree], Tensor]) -> Float[Tensor, "parameters"]:
    """The gradient of an objective on the live prefix tree."""
    slopes = torch.autograd.grad(
        objective(grow(world, policy)), list(policy.parameters()), allow_unused=True, materialize_grads=True
    )
    return flat_parameters(slopes)


def factor_gaps(world: TokenMDP, policy: Any) -> dict[str, float]:
    """How far each recipe's exact mean update is from `sum_x q_x kappa(P_x) grad P_x`, relative to its size.

    The likelihood's gradient, on the live tree, against `kappa = 1 / P` as well.
    """
    P, slopes = prompt_gradients(world, policy)
    updates = {name: mean_field(world, recipe.learner, recipe.group)(policy) for name, recipe in RECIPES.items()}
    updates[LIKELIHOOD] = slope_of(world, policy, log_likelihood)
    factors = {name: recipe.kappa for name, recipe in RECIPES.items()} | LIMITS
    gaps = {name: update - (world.weights * factors[name](P)) @ slopes for name, update in updates.items()}
    return {name: float(gap.norm() / updates[name].norm()) for name, gap in gaps.items()}


def sharpened_cosine(q: Float[Tensor, "V"]) -> float:
    """Cosine of RPT's field to the likelihood's at `pi prop q^2`: a table that is more certain than the corpus."""
    table = PrefixTable(law_world(q), 2 * q.log()[None])
    return alignment(*(closed_field(q, kappa)(table) for kappa in (RECIPES[RPT].kappa, LIMITS[LIKELIHOOD]))).cosine


def along_and_slope(world: TokenMDP, policy: Any, group: int, rng: torch.Generator) -> tuple[float, float]:
    """Division by the mean: its update along a random direction, and the slope of the truncated log there, by differences.

    Both are in units of the update's size; the direction is half along the update, so that it is not blind to it.
    """
    update = mean_field(world, by_mean(group).learner, group)(policy)
    noise = torch.randn(len(update), generator=rng, dtype=update.dtype).to(update)
    direction = noise / noise.norm() + update / update.norm()
    direction = direction / direction.norm()
    slope = directional_slope(policy, direction, of_policy(world, truncated_log_objective(group)))
    return float(update @ direction / update.norm()), float(slope / update.norm())


def closed_field(q: Float[Tensor, "V"], kappa: Kappa) -> Field:
    """`sum_x q_x kappa(pi_x) grad pi_x` over the logits of the one row of a table."""

    def field(policy: PrefixTable) -> Tensor:
        pi = torch.softmax(policy.logits.detach()[0], -1)
        pull = q.to(pi) * kappa(pi)
        return pi * (pull - pi @ pull)

    return field


def end_of(
    world: TokenMDP, field: Field, start: PrefixTable, kappa: Kappa, rate: float = 1.0, tolerance: float = 1e-13
) -> Float[Tensor, "V"]:
    """The law at which a field brings the one row of a table to rest.

    Logits move by the field over pi, in units of the largest `q kappa`: the moves stay bounded where kappa does not. It ends
    where no probability would move by more than `tolerance`, as logits go on for ever where a token gets nothing.

    Raises:
        InputError: it has not come to rest after many steps.
    """
    q, policy = world.weights.to(world.P.device), table_of(world, [start.logits])
    for _ in range(_MOST):
        pi = torch.softmax(policy.logits.detach()[0], -1)
        floor = pi.clamp(min=torch.finfo(pi.dtype).tiny)
        move = rate * field(policy) / floor / (q * kappa(floor)).max()
        if float((pi * move).abs().max()) < tolerance:
            return pi
        logits = policy.logits.detach()[0] + move
        policy = table_of(world, [(logits - logits.max()).clamp(min=-80.0)])
    raise InputError(f"rate={rate} has not brought the law to rest in {_MOST} steps: take another one")
