"""Sampling by batches, residual moments, and costates by differences against the recursion."""

import pytest
import torch

import figures.measures.rollouts as module
from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from envs.linear_quadratic import random_system, scalar
from envs.lq_variants import ChaoticMap
from envs.noise import draw_noise
from figures.measures.linear_systems import memoryless_system
from figures.measures.rollouts import difference_costates, fixed_start, residual_moments, sampled
from theory.continuous.costates import path_costates
from theory.continuous.lyapunov import linear_value

close = torch.testing.assert_close


def test_sampled_means_are_those_of_all_batches_together(rng, monkeypatch):
    monkeypatch.setattr(module, "_NUMBERS", 80)  # 10 paths of 4 steps of 2 numbers
    world, drawn = scalar(horizon=4), []

    def first_states(noise):
        drawn.append(noise.s_0)
        return noise.s_0

    estimate = sampled(world, 4, 35, rng, "cpu", first_states)
    assert max(map(len, drawn)) <= 10
    states = torch.cat(drawn)
    assert (len(states), estimate.samples) == (35, 35)
    close(torch.as_tensor(estimate.mean), states.mean(0))
    close(torch.as_tensor(estimate.standard_error), states.std(0) / 35**0.5)


def test_a_fixed_start_changes_the_first_states_only(rng):
    noise = draw_noise(random_system(2, 1, horizon=3), 5, 3, rng)
    fixed = fixed_start(noise, torch.tensor([0.5, -1.0], dtype=torch.float64))
    assert fixed.s_0.tolist() == [[0.5, -1.0]] * 5
    assert fixed.xi is noise.xi
    assert fixed.w is noise.w


def test_residual_moments_are_products_with_one_and_with_each_scaled_component():
    e, s = torch.tensor([[2.0, 3.0]]), torch.tensor([[4.0, 5.0, 6.0]])
    moments = residual_moments(e, s, torch.tensor([1.0, 5.0, 2.0]))
    assert moments.tolist() == [[[2.0, 8.0, 2.0, 6.0], [3.0, 12.0, 3.0, 9.0]]]


@pytest.mark.parametrize("name", ["scalar", "state-scaled noise", "chaotic map"])
def test_costates_by_differences_are_those_of_the_recursion(name, rng):
    system = memoryless_system(name)
    noise = draw_noise(system.world, 3, system.world.horizon, rng)
    states = rollout(system.world, system.policy, noise).states.detach()
    recursion = path_costates(system.world, system.command, states, noise.xi, noise.w)
    close(difference_costates(system.world, system.policy, states, noise, 1e-5), recursion, rtol=1e-6, atol=1e-6)
    if not isinstance(system.world, ChaoticMap):
        partial = path_costates(system.world, lambda s, t: system.command(s.detach(), t), states, noise.xi, noise.w)
        assert not torch.allclose(partial, recursion, rtol=1e-2), "the control: without the policy's slope"


def test_restarted_paths_keep_the_clock_of_a_gain_that_changes_with_time(rng):
    world = scalar(horizon=3)
    K = torch.tensor([0.2, 0.9, 1.6], dtype=torch.float64)[:, None, None]
    noise = draw_noise(world, 4000, 3, rng)
    states = rollout(world, LinearPolicy(K), noise).states.detach()
    costates, value = difference_costates(world, LinearPolicy(K), states, noise, 1e-5), linear_value(world, K)
    wrong = linear_value(world.replace(horizon=2), K[:2])  # the clock set back to 0 at t = 1
    gap, off = ((costates[:, 1] - v.gradient(states[:, 1], t)).mean() for v, t in ((value, 1), (wrong, 0)))
    error = float((costates[:, 1] - value.gradient(states[:, 1], 1)).std()) / 4000**0.5
    assert abs(float(gap)) < 5 * error < 0.2 * abs(float(off))
