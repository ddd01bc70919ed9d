"""Mean costates under state-scaled noise whose scale autograd does not see."""

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from envs.linear_quadratic import random_system
from envs.lq_variants import StateScaledNoise
from envs.noise import Noise, draw_noise
from tests.oracles import assert_mean_within, differs_by
from tests.theory.cases import stable_gain, tensor, variant
from theory.continuous.broken_assumptions import closed_scale_costate
from theory.continuous.costates import autograd_costates
from theory.continuous.lyapunov import linear_value

PATHS = 20_000


def costates_of(world, policy, noise, start):
    trajectory = rollout(world, policy, noise, start.expand(len(noise.xi), world.n))
    return autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma), trajectory.states.detach()


def scaled(horizon, cut):
    base = random_system(2, 2, seed=3, horizon=horizon, gamma=0.8, action_noise=0.6)
    return variant(StateScaledNoise, base, C=[[0.4, -0.6], [0.5, 0.5]], cut_scale_path=cut)


@pytest.mark.parametrize(("horizon", "steps"), [(4, None), (4, 4), (None, None)])
def test_cutting_the_scale_leaves_the_mean_costate_of_plain_noise(horizon, steps, rng):
    world, start = scaled(horizon, cut=True), tensor([0.5, -1.0])
    K = stable_gain(world, steps=steps)
    plain, value = closed_scale_costate(world, K), linear_value(world, K)
    noise = draw_noise(world, PATHS, horizon or 50, rng)
    closed, _ = costates_of(world, LinearPolicy(K), noise, start)
    assert_mean_within(closed[:, 0], plain.gradient(start))
    assert differs_by(closed[:, 0], value.gradient(start)), "the control: the cut costate misses the value gradient"
    whole, _ = costates_of(scaled(horizon, cut=False), LinearPolicy(K), noise, start)
    assert_mean_within(whole[:, 0], value.gradient(start))
    assert plain.P.shape == value.P.shape


def test_cutting_the_scale_leaves_the_cross_term_and_the_linear_costs(rng):
    """The noise's own part of the costate has mean zero; one path without noise then gives the mean exactly."""
    costs = {"N": [[0.2, 0.1], [-0.3, 0.2]], "q": [0.5, -0.7], "q_a": [0.9, 0.3], "q_f": [-0.4, 1.2]}
    world, K = scaled(4, cut=True).replace(**costs), stable_gain(scaled(4, cut=True))
    quiet = Noise(torch.zeros(1, 2).double(), torch.zeros(1, 4, 2).double(), torch.zeros(1, 4, 2).double())
    costates, states = costates_of(world, LinearPolicy(K), quiet, tensor([0.5, -1.0]))
    plain = closed_scale_costate(world, K)
    for t in range(5):
        torch.testing.assert_close(costates[:, t], plain.gradient(states[:, t], t), rtol=1e-11, atol=1e-13)
    drawn, _ = costates_of(world, LinearPolicy(K), draw_noise(world, 10_000, 4, rng), tensor([0.5, -1.0]))
    assert_mean_within(drawn[:, 0], plain.gradient(tensor([0.5, -1.0])))
    assert differs_by(drawn[:, 0], linear_value(world, K).gradient(tensor([0.5, -1.0])))


@pytest.mark.parametrize("steps", [None, 4])
def test_cut_costate_is_the_costate_of_the_mean_path(steps):
    """With the scale closed the costate is linear in the noise, so one path without noise gives its mean exactly."""
    world, K = scaled(4, cut=True), stable_gain(scaled(4, cut=True), steps=steps)
    quiet = Noise(torch.zeros(1, 2).double(), torch.zeros(1, 4, 2).double(), torch.zeros(1, 4, 2).double())
    costates, states = costates_of(world, LinearPolicy(K), quiet, tensor([0.5, -1.0]))
    expected = -2 * torch.einsum("tij,btj->bti", closed_scale_costate(world, K).P, states)
    torch.testing.assert_close(costates, expected, rtol=1e-11, atol=1e-13)
