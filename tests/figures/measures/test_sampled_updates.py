"""Sampled updates group by group: by differences of log-likelihoods, by hand, and against exact means, discount and all."""

import math
from dataclasses import replace

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.recipes.advantages import leave_one_out, mean_baseline
from agents.recipes.learners import rloo
from agents.sampling.rollout import rollout
from agents.sampling.token_rewards import token_returns
from agents.sampling.tokens import sample_tokens
from envs.linear_quadratic import random_system
from envs.noise import draw_noise
from envs.token_tasks import garnet
from figures.measures.sampled_updates import command_updates, group_costates, in_batches, linear_case
from figures.measures.token_systems import build_policy, build_world
from tests.theory.token_cases import transformer
from theory.continuous.lq_gradients import command_slope
from theory.groups.expected_update import expected_update


def test_a_sampled_group_costate_is_the_slope_of_its_weighted_log_likelihood():
    world = build_world("stop (2,4)")
    policy, G, groups = build_policy(world, 1), 3, 8
    updates = group_costates(world, policy, rloo(), "embedding", G, groups, torch.Generator().manual_seed(2))
    sample = sample_tokens(policy, world.prompts, world.horizon, torch.Generator().manual_seed(2), copies=G * groups)
    R = token_returns(world, sample.prompt, sample.tokens).reshape(groups, G)
    assert 0 < float(R.mean()) < 1
    A = (R - (R.sum(1, keepdim=True) - R) / (G - 1)).flatten()
    direction = torch.randn(updates.shape[1], generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def log_likelihood(h):
        x = policy.embed(torch.cat([world.prompts[sample.prompt], sample.tokens[:, :-1]], 1)).detach()
        last = world.prompts.shape[1] - 1
        x[:, last] += h * direction
        log_pi = torch.log_softmax(policy(x)[:, last:], -1).gather(2, sample.tokens[..., None])[..., 0]
        return (log_pi * world.mask(sample.tokens)).sum(1).detach()

    slope = (log_likelihood(1e-5) - log_likelihood(-1e-5)) / 2e-5
    assert torch.allclose(updates @ direction, (A * slope).reshape(groups, G).mean(1), atol=1e-8)


def test_sampled_groups_of_a_discounted_world_have_the_exact_mean_and_not_that_of_undiscounted_rewards():
    world, group, site = garnet(V=3, states=4, horizon=3, seed=1, gamma=0.5), 2, "layer1"
    policy, rng = transformer(world, temperature=0.25, seed=1), torch.Generator().manual_seed(0)
    sampled = in_batches(lambda n: group_costates(world, policy, rloo(), site, group, n, rng), 20_000)
    assert sampled.samples == 20_000

    def standard_errors_from(other):
        mean = expected_update(other, policy, rloo(), group, [site]).mean.costates[site][0][0, -1]
        return abs(sampled.mean - mean.numpy()) / sampled.standard_error

    assert standard_errors_from(world).max() < 4.5
    discount = world.gamma ** torch.arange(world.horizon, dtype=torch.float64)
    undiscounted = replace(world, r=world.r / discount[:, None, None])  # gamma^k of these rewards is r_k itself
    assert standard_errors_from(undiscounted).max() > 10, "the control"


def system():
    world = random_system(3, 2, seed=1, horizon=3, action_noise=0.5).to()
    K = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 4
    return world, K, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("advantage", [leave_one_out, mean_baseline])
def test_command_updates_are_advantages_times_noise_over_variance(advantage, gamma):
    world, K, start = system()
    world = world.replace(gamma=gamma)
    updates = command_updates(world, LinearPolicy(K), advantage, start, 4, 5, torch.Generator().manual_seed(1))
    noise = draw_noise(world, 20, 3, torch.Generator().manual_seed(1))
    path = rollout(world, LinearPolicy(K), noise, start.expand(20, -1))
    R = path.returns.detach().reshape(5, 4)
    A = R - (R.mean(1, keepdim=True) if advantage is mean_baseline else (R.sum(1, keepdim=True) - R) / 3)
    weighted = A.flatten()[:, None, None] * (noise.xi @ torch.linalg.inv(world.S_x))
    gain = -torch.einsum("btm,btn->bmn", weighted, path.states[:, :-1].detach())  # u = -K s
    both = torch.cat([weighted[:, 0], gain.flatten(1)], 1).reshape(5, 4, -1).mean(1)
    assert torch.allclose(updates, both, atol=1e-10)


@pytest.mark.parametrize("name", ["scalar", "random, laplace noise"])
def test_linear_cases_start_where_the_return_has_a_slope(name):
    world, K, start = linear_case(name)
    assert all(1e-2 < float(slope.norm()) < math.inf for slope in command_slope(world, K, start))


def test_batches_give_the_mean_and_the_error_of_all_groups_together():
    table = torch.randn(12_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes, at = [], 0

    def updates(count):
        nonlocal at
        sizes.append(count)
        at += count
        return table[at - count : at]

    mean = in_batches(updates, 12_000)
    assert sum(sizes) == mean.samples == 12_000
    assert max(sizes) <= 5_000
    torch.testing.assert_close(torch.tensor(mean.mean), table.mean(0))
    torch.testing.assert_close(torch.tensor(mean.standard_error), table.std(0) / 12_000**0.5)
