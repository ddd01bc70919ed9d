"""Sampled updates of critic-free recipes, group by group: in token worlds and in linear-quadratic ones."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.recipes.advantages import Advantage
from agents.recipes.learners import Learner
from agents.sampling.completions import context_log_probs, sample_completions
from agents.sampling.pathwise import contract_commands
from agents.sampling.rollout import rollout
from agents.sampling.score_function import command_scores
from envs.linear_quadratic import LinearQuadratic, random_system, scalar
from envs.noise import draw_noise
from envs.policy import ContextPolicy
from envs.token_mdp import TokenMDP
from figures.harness.statistics import Estimate, batches, estimate, pooled
from figures.measures.rollouts import fixed_start
from theory.continuous.riccati import riccati

_PIECE = 20_000  # samples of a costate at a time
_BATCH = 5_000  # groups sampled at a time
_STEPS = 3  # horizon of the linear-quadratic worlds
_GAIN = 0.5  # of the optimal gain: at the optimum the slope is 0
_AWAY = 6  # every component of the start state, from the mean
LINEAR = {
    "scalar": lambda: scalar(horizon=_STEPS, action_noise=0.5),
    "random, laplace noise": lambda: random_system(3, 2, seed=1, horizon=_STEPS, action_noise=0.5, noise="laplace"),
}


def group_costates(
    world: TokenMDP,
    policy: ContextPolicy,
    learner: Learner,
    site: str,
    group: int,
    groups: int,
    rng: torch.Generator,
) -> Float[Tensor, "groups D"]:
    """Sampled updates of `groups` groups of the first prompt, each read at the prompt's last position.

    The learner's own loss of completions drawn from the policy is differentiated in a probe at the site.
    """
    sample = sample_completions(world, policy, torch.zeros(groups, dtype=torch.int64), group, rng)
    probe = torch.zeros_like(policy.embed(sample.contexts[:, :-1])).requires_grad_()
    log_probs, _ = context_log_probs(policy, sample.contexts, world.horizon, {site: probe})
    (slope,) = torch.autograd.grad(learner.loss(log_probs, None, sample.batch()), probe)
    last = world.prompts.shape[1] - 1
    return -groups * slope[:, last].reshape(groups, group, -1).sum(1)  # the loss is the groups' mean


def command_updates(
    world: LinearQuadratic,
    policy: LinearPolicy,
    advantage: Advantage,
    start: Float[Tensor, "n"],
    group: int,
    groups: int,
    rng: torch.Generator,
) -> Float[Tensor, "groups m+mn"]:
    """Per group of rollouts from one start state: mean of `A_i grad_u log pi(a_0)` and of `A_i sum_t grad_K log pi(a_t)`."""
    T = int(world.horizon or 0)
    device = str(policy.K.device)
    noise = fixed_start(draw_noise(world, group * groups, T, rng).to(device), start)
    path = rollout(world, policy, noise)
    rewards = (path.rewards * world.gamma ** torch.arange(T + 1, dtype=torch.float64, device=device)).detach()
    index = torch.arange(groups, device=device).repeat_interleave(group)
    A = advantage(rewards, torch.ones_like(rewards, dtype=torch.bool), index)[:, :T, None]
    weighted = A * command_scores(world, path)
    gain = contract_commands(policy, path.states, weighted)["K"]
    return torch.cat([weighted[:, 0], gain.flatten(1)], 1).reshape(groups, group, -1).mean(1)


def in_batches(updates: Callable[[int], Tensor], groups: int) -> Estimate:
    """Mean over `groups` sampled groups of what `updates(count)` gives, (count, ...), in batches that fit the memory."""
    return pooled(estimate(updates(count)) for count in batches(groups, _BATCH))


def costate_samples(samples: int, draw: Callable[[int], Float[Tensor, "roots count positions D"]]) -> Tensor:
    """Costates at the first root's last position, (samples, D), drawn in pieces that fit the memory."""
    return torch.cat([draw(count)[0, :, -1] for count in batches(samples, _PIECE)])


def linear_case(name: str) -> tuple[LinearQuadratic, Float[Tensor, "m n"], Float[Tensor, "n"]]:
    """World, gain and start state of a linear-quadratic case."""
    world = LINEAR[name]().to()
    return world, _GAIN * riccati(world).K[0], world.m_0 + _AWAY
