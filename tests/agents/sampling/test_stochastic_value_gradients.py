"""SVG(k) on sampled paths: its mean, its spread, its two ends in the pathwise estimators, and derivatives of a model."""

import numpy as np
import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.pathwise import command_costates, contract_commands, critic_gradient, pathwise_gradient
from agents.sampling.rollout import rollout
from agents.sampling.stochastic_value_gradients import replay, svg_costates
from envs.linear_quadratic import random_system
from envs.noise import FAMILIES
from envs.world import InputError
from tests.agents.cases import MANY, POLICIES, draws, same, sample, world
from tests.oracles import assert_mean_within, differs_by
from tests.theory.cases import affine_policies, priced, stable_gain
from theory.continuous.costates import autograd_costates
from theory.continuous.lyapunov import linear_value
from theory.continuous.model_gradients import action_value_gradient, model_costate, noise_gradient, svg_covariance


def exact_critic(lq, K, k, steps):
    """The critic that ends SVG(steps)."""
    value = linear_value(lq, K, k)
    return value.gradient if steps else lambda s, a, t: action_value_gradient(lq, K, s, a, t, k)


@pytest.mark.parametrize("noise", FAMILIES)
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 99, None])
def test_mean_and_covariance_given_the_state(steps, noise, rng):
    """Cross term, linear costs, offset, a loop that is not normal; at the first time, a time between and the last."""
    lq = priced(noise=noise)
    K, k = affine_policies(lq)["offset"]
    policy = LinearPolicy(K, k)
    _, path = sample(lq, policy, MANY, rng)
    slopes = svg_costates(lq, policy, path, steps, exact_critic(lq, K, k, steps))
    for t in (0, 2, lq.horizon - 1):
        mean = action_value_gradient(lq, K, path.states[:, t].detach(), path.commands[:, t].detach(), t, k)
        e = slopes[:, t] / lq.gamma**t - mean
        assert_mean_within(e, 0.0)
        assert_mean_within(e[:, :, None] * path.states[:, t].detach()[:, None], 0.0)
        truth = svg_covariance(lq, K, steps, t)
        assert_mean_within(e[:, :, None] * e[:, None], truth)
        assert differs_by(e[:, :, None] * e[:, None], 1.2 * truth)


@pytest.mark.parametrize("horizon", [None, 4])
def test_the_ends_are_the_critic_s_gradient_and_the_pathwise_one(horizon, rng):
    lq = world(horizon=horizon)
    policy = LinearPolicy(stable_gain(lq))
    value = linear_value(lq, policy.K.detach())
    _, path = sample(lq, policy, 5, rng, steps=4)
    own = contract_commands(policy, path.states, svg_costates(lq, policy, path, 1, value.gradient))
    same(own, critic_gradient(lq, policy, path, value.gradient))
    costates = autograd_costates(path.returns, path.state_probe, lq.gamma)
    for steps in (1, 2, 3, 9):  # sampled costates as the critic: every k is the pathwise estimator
        slopes = svg_costates(lq, policy, path, steps, lambda s, t: costates[:, t])
        same(contract_commands(policy, path.states, slopes), pathwise_gradient(policy, path))
    torch.testing.assert_close(svg_costates(lq, policy, path, None), command_costates(path))
    if horizon:  # beyond the horizon no critic counts
        nothing = svg_costates(lq, policy, path, 9, lambda s, t: 0 * s)
        torch.testing.assert_close(nothing, command_costates(path))
        assert not torch.allclose(svg_costates(lq, policy, path, 4, lambda s, t: 0 * s), command_costates(path))


@pytest.mark.parametrize("name", POLICIES)
def test_replay_in_the_world_itself_changes_nothing(name, rng):
    lq, policy = world(), POLICIES[name]()
    _, path = sample(lq, policy, 4, rng)
    again = replay(lq, policy, path)
    for field in ("states", "commands", "actions", "rewards"):
        torch.testing.assert_close(getattr(again, field), getattr(path, field))
    same(pathwise_gradient(policy, again), pathwise_gradient(policy, path))


@pytest.mark.parametrize("gain", ["offset", "both change"])
def test_a_wrong_model_on_real_and_on_imagined_paths(gain, rng):
    lq = priced()
    K, k = affine_policies(lq)[gain]
    model = lq.replace(A=lq.A + 0.1 * np.asarray(draws(3, 3)), B=lq.B + 0.1 * np.asarray(draws(3, 2, seed=1)))
    policy = LinearPolicy(K, k)
    noise, path = sample(lq, policy, MANY, rng)
    other, imagined = replay(model, policy, path), rollout(model, policy, noise)
    torch.testing.assert_close(other.states, path.states)
    start = path.states[:, 0].detach()
    centred, truth = start - start.mean(0), linear_value(lq, K).P[0]
    for paths, real in ((other, True), (imagined, False)):
        costates = autograd_costates(paths.returns, paths.state_probe, lq.gamma)[:, 0]
        P = model_costate(lq, K, model, real)[0]
        moments = centred.T @ centred / len(centred)
        products = (costates - costates.mean(0))[:, :, None] * centred[:, None]
        assert_mean_within(products, -2 * P @ moments)
        assert differs_by(products, -2 * truth @ moments)


@pytest.mark.parametrize("noise", FAMILIES)
def test_slope_in_the_action_noise_by_pathwise_products_under_every_noise(noise, rng):
    """`(1/2) sym(slope xi' S_x^-1)`, summed over time, in the mean; half of Q's second derivative has no spread at all."""
    lq = random_system(3, 2, seed=5, horizon=4, gamma=0.8, noise=noise)
    K = 0.3 * draws(2, 3)
    policy = LinearPolicy(K)
    drawn, path = sample(lq, policy, MANY, rng)
    for steps in (0, 1, None):
        slopes = svg_costates(lq, policy, path, steps, exact_critic(lq, K, None, steps))
        products = torch.einsum("bti,btj->bij", slopes, drawn.xi) @ torch.linalg.inv(torch.as_tensor(lq.S_x)) / 2
        sampled = (products + products.mT) / 2
        assert_mean_within(sampled, noise_gradient(lq, K))
        assert differs_by(sampled, 2 * noise_gradient(lq, K))


@pytest.mark.parametrize(
    ("steps", "critic", "name", "text"),
    [
        (-1, None, "linear", "^steps must be a whole number >= 0"),
        (1, None, "linear", r"^critic is missing: SVG\(1\)"),
        (2, lambda s, t: s, "network", r"^policy must read the last state alone for SVG\(2\); its window is None"),
    ],
)
def test_refusals(steps, critic, name, text, rng):
    lq, policy = world(), POLICIES[name]()
    _, path = sample(lq, policy, 3, rng)
    with pytest.raises(InputError, match=text):
        svg_costates(lq, policy, path, steps, critic)
