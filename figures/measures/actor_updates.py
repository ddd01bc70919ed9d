"""Updates of critic-free learners as claims measure them: recipes with their kappa, sampled groups in both worlds."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.recipes.advantages import Advantage
from agents.recipes.learners import Learner, cispo, dapo, dr_grpo, grpo, gspo, ppo, reinforce, rloo
from agents.sampling.completions import context_log_probs, sample_completions
from agents.sampling.pathwise import contract_commands
from agents.sampling.rollout import rollout
from agents.sampling.score_function import command_scores
from envs.linear_quadratic import LinearQuadratic
from envs.noise import draw_noise
from envs.policy import ContextPolicy
from envs.token_mdp import TokenMDP
from theory.groups.binary_rewards import baseline_kappa, grpo_kappa

Kappa = Callable[[Tensor, int], Tensor]  # P of every prompt, length L of all completions -> kappa of every prompt


@dataclass(frozen=True)
class Recipe:
    """A learner at a group size, and its kappa in closed form."""

    name: str
    learner: Learner
    group: int
    kappa: Kappa
    one_length: bool = False  # whether its factor 1/|o| needs completions of one length


def constant(kappa: float) -> Kappa:
    """The same kappa for every prompt."""
    return lambda P, L: torch.full_like(P, kappa)


def by_std(group: int, population: bool = True, eps: float = 0.0, length: bool = False) -> Kappa:
    """`c_G(P)`, over the length where the recipe averages over tokens."""
    return lambda P, L: grpo_kappa(P, group, population, eps) / (L if length else 1)


def recipes(most: int = 16) -> list[Recipe]:
    """All recipes whose mean update has a kappa, at the group sizes up to `most` that make a difference to it."""
    sizes = (2, 4, 8, 16)
    found = [
        Recipe("REINFORCE", reinforce(), 2, constant(1.0)),
        Recipe("REINFORCE", reinforce(baseline=True), 4, constant(1.0)),
        Recipe("REINFORCE", reinforce(to_go=True), 2, constant(1.0)),
        Recipe("REINFORCE", reinforce(baseline=True, to_go=True), 4, constant(1.0)),
        Recipe("PPO, exact critic", ppo(critic="exact"), 2, constant(1.0)),
        Recipe("GRPO, eps 1e-4", grpo(length="row sum", eps=1e-4), 4, by_std(4, eps=1e-4)),
        Recipe("RLOO", rloo(), 4, constant(1.0)),
        *[Recipe("Dr. GRPO", dr_grpo(), G, constant(baseline_kappa(G))) for G in sizes[:3]],
        *[Recipe("GRPO", grpo(length="row sum"), G, by_std(G)) for G in sizes],
        *[Recipe("GRPO, sample std", grpo("sample", "row sum"), G, by_std(G, population=False)) for G in sizes[:2]],
    ]
    for name, build in (("DAPO", dapo), ("GSPO", gspo), ("CISPO", cispo)):
        found.append(Recipe(name, build(), 4, by_std(4, length=True), one_length=True))
    return [recipe for recipe in found if recipe.group <= most]


def worst_deviation(
    found: list[Float[Tensor, "N positions D"]], truth: list[Float[Tensor, "N D"]], kappa: Float[Tensor, "prompts"]
) -> float:
    """`max |found - kappa truth| / largest |kappa truth|`, the largest among the prefixes of the same prompt."""
    gaps, sizes = [], []
    for costate, gradient in zip(found, truth, strict=True):
        target = kappa.repeat_interleave(len(gradient) // len(kappa))[:, None] * gradient
        gaps.append((costate[:, -1] - target).norm(dim=-1).reshape(len(kappa), -1).amax(1))
        sizes.append(target.norm(dim=-1).reshape(len(kappa), -1).amax(1))
    return float((torch.stack(gaps).amax(0) / torch.stack(sizes).amax(0)).max())


def group_costates(
    world: TokenMDP, policy: ContextPolicy, learner: Learner, site: str, group: int, groups: int,
    rng: torch.Generator,
) -> Float[Tensor, "groups D"]:  # fmt: skip
    """The real update of each of `groups` sampled groups of one prompt, read at the prompt's last position."""
    sample = sample_completions(world, policy, torch.zeros(groups, dtype=torch.int64), group, rng)
    probe = torch.zeros_like(policy.embed(sample.contexts[:, :-1])).requires_grad_()
    log_probs, _ = context_log_probs(policy, sample.contexts, world.horizon, {site: probe})
    (slope,) = torch.autograd.grad(learner.loss(log_probs, None, sample.batch()), probe)
    last = world.prompts.shape[1] - 1
    return -groups * slope[:, last].reshape(groups, group, -1).sum(1)  # the loss is the groups' mean


def command_updates(
    world: LinearQuadratic, policy: LinearPolicy, advantage: Advantage, start: Float[Tensor, "n"], group: int, groups: int,
    rng: torch.Generator,
) -> Float[Tensor, "groups m+mn"]:  # fmt: skip
    """Per group of rollouts from one start state: mean of `A_i grad_u log pi(a_0)` and of `A_i sum_t grad_K log pi(a_t)`."""
    T = int(world.horizon or 0)
    noise = draw_noise(world, group * groups, T, rng)
    path = rollout(world, policy, noise, start.expand(group * groups, -1))
    rewards = (path.rewards * world.gamma ** torch.arange(T + 1, dtype=torch.float64)).detach()
    index = torch.arange(groups).repeat_interleave(group)
    A = advantage(rewards, torch.ones_like(rewards, dtype=torch.bool), index)[:, :T, None]
    weighted = A * command_scores(world, path)
    gain = contract_commands(policy, path.states, weighted)["K"]
    return torch.cat([weighted[:, 0], gain.flatten(1)], 1).reshape(groups, group, -1).mean(1)
