"""Mean updates of critic-free recipes against kappa times the value gradient: the recipes, their kappa, the deviations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.closed_attention import ClosedAttention, everything
from agents.recipes.learners import Learner, cispo, dapo, dr_grpo, grpo, gspo, ppo, reinforce, rloo
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from theory.groups.binary_rewards import alignment, baseline_kappa, grpo_kappa
from theory.groups.expected_update import ExpectedUpdate, expected_update
from theory.tokens.completions import completions
from theory.tokens.forward_mode import forward_gradients
from theory.tokens.prefix_tree import grow
from theory.tokens.softmax_bounds import entropy

Kappa = Callable[[Tensor, int], Tensor]  # P of every prompt, length L of all completions -> kappa of every prompt


@dataclass(frozen=True)
class RecipeWithKappa:
    """A learner at a group size, and its kappa in closed form.

    Attributes:
        name: what figures and rows call it.
        learner: the recipe.
        group: G.
        kappa: the factor of its mean update.
        one_length: whether its factor 1/|o| needs completions of one length.
    """

    name: str
    learner: Learner
    group: int
    kappa: Kappa
    one_length: bool = False


def constant(kappa: float) -> Kappa:
    """The same kappa for every prompt."""
    return lambda P, L: torch.full_like(P, kappa)


def by_std(group: int, population: bool = True, eps: float = 0.0, length: bool = False) -> Kappa:
    """`c_G(P)`, over the length where the recipe averages over tokens."""
    return lambda P, L: grpo_kappa(P, group, population, eps) / (L if length else 1)


def recipes(most: int = 16) -> list[RecipeWithKappa]:
    """All recipes whose mean update has a kappa, at the group sizes up to `most` that make a difference to it."""
    sizes, unit = (2, 4, 8, 16), constant(1.0)
    every = [
        RecipeWithKappa("REINFORCE", reinforce(), 2, unit),
        RecipeWithKappa("REINFORCE", reinforce(baseline=True), 4, unit),
        RecipeWithKappa("REINFORCE", reinforce(to_go=True), 2, unit),
        RecipeWithKappa("REINFORCE", reinforce(baseline=True, to_go=True), 4, unit),
        RecipeWithKappa("PPO, exact critic", ppo(critic="exact"), 2, unit),
        RecipeWithKappa("GRPO, eps 1e-4", grpo(length="row sum", eps=1e-4), 4, by_std(4, eps=1e-4)),
        RecipeWithKappa("RLOO", rloo(), 4, unit),
    ]
    every += [RecipeWithKappa("Dr. GRPO", dr_grpo(), G, constant(baseline_kappa(G))) for G in sizes[:3]]
    every += [RecipeWithKappa("GRPO", grpo(length="row sum"), G, by_std(G)) for G in sizes]
    sample_std = grpo("sample", "row sum")
    every += [RecipeWithKappa("GRPO, sample std", sample_std, G, by_std(G, population=False)) for G in sizes[:2]]
    for name, build in (("DAPO", dapo), ("GSPO", gspo), ("CISPO", cispo)):
        every.append(RecipeWithKappa(name, build(), 4, by_std(4, length=True), one_length=True))
    return [recipe for recipe in every if recipe.group <= most]


def worst_deviation(
    costates: list[Float[Tensor, "N positions D"]], truth: list[Float[Tensor, "N D"]], kappa: Float[Tensor, "prompts"]
) -> float:
    """`max |costate - kappa truth| / largest |kappa truth|`, the largest among the prefixes of the same prompt.

    Args:
        costates: mean update at every prefix, level by level; the last position counts.
        truth: value gradient at every prefix.
        kappa: factor of each prompt.
    """
    gaps, sizes = [], []
    for costate, gradient in zip(costates, truth, strict=True):
        target = kappa.repeat_interleave(len(gradient) // len(kappa))[:, None] * gradient
        gaps.append(_norms(costate[:, -1] - target).reshape(len(kappa), -1).amax(1))
        sizes.append(_norms(target).reshape(len(kappa), -1).amax(1))
    return float((torch.stack(gaps).amax(0) / torch.stack(sizes).amax(0)).max())


def _norms(x: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norms


def parameter_deviation(update: ExpectedUpdate, kappa: float) -> float:
    """`|mean update - kappa grad J| / |kappa grad J|`, all parameters together."""
    _, scale, bias = alignment(update.mean, update.truth)
    return float(((scale - kappa) ** 2 + bias**2) ** 0.5 / kappa)


@dataclass(frozen=True)
class ExactCase:
    """A world with binary rewards and a policy, with all that is exact about them.

    Attributes:
        world, policy: the case.
        P: success probability of every prompt.
        V: value of every prefix, level by level.
        entropy: of the first token, nats, in the mean over prompts.
        truth: site -> value gradients of all prefixes, level by level, by forward mode.
    """

    world: TokenMDP
    policy: TokenPolicy
    P: Float[Tensor, "prompts"]
    V: list[Tensor]
    entropy: float
    truth: dict[str, list[Tensor]]

    def recipes(self, most: int) -> list[RecipeWithKappa]:
        """The recipes that have a kappa here: where completions have many lengths, none with a factor 1/|o|."""
        return [recipe for recipe in recipes(most) if not recipe.one_length or self.world.end is None]

    def update(self, recipe: RecipeWithKappa) -> ExpectedUpdate:
        """The recipe's mean update, with costates at all sites."""
        values = self.V if recipe.learner.critic == "exact" else None
        world, sites = self.world, self.policy.sites
        return expected_update(world, self.policy, recipe.learner, recipe.group, sites, values=values, prompts=1)

    def deviation_without_past(self, site: str) -> float:
        """`worst_deviation` of RLOO, whose kappa is 1, when the keys and values of earlier positions are detached."""
        closed = expected_update(self.world, ClosedAttention(self.policy, everything), rloo(), 2, [site])
        return worst_deviation(closed.mean.costates[site], self.truth[site], torch.ones_like(self.P))


def exact_case(world: TokenMDP, policy: TokenPolicy) -> ExactCase:
    """Enumerate the prefixes of a world under a policy; raises InputError where rewards are not binary."""
    with torch.no_grad():
        tree = grow(world, policy)
    truth = {site: forward_gradients(world, policy, site) for site in policy.sites}
    return ExactCase(
        world, policy, completions(tree).success(), tree.V, float(entropy(tree.levels[0].pi).mean()), truth
    )


def prompt_scales(costates: list[Tensor], truth: list[Tensor]) -> list[float]:
    """`<costate, truth> / |truth|^2` at every prompt: kappa as it is measured."""
    return [alignment(x, y).scale for x, y in zip(costates[0][:, -1], truth[0], strict=True)]
